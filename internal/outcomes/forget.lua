-- Removes a record if it is still its owner's and has no outcome.
--
-- KEYS 1 the record   2 the client's count (both as in begin.lua)
-- ARGV 1 owner
--
-- Returns 1 when it is removed, 0 when it was not there.
local found = redis.call('HMGET', KEYS[1], 'state', 'owner')
if found[2] ~= ARGV[1] or tonumber(found[1]) > 2 then
	return 0
end
if found[1] == '2' then
	local clock = redis.call('TIME')
	local hour = string.format('%d', math.floor(clock[1] / 3600))
	redis.call('HSET', KEYS[2], hour, (redis.call('HGET', KEYS[2], hour) or 0) - 1)
	redis.call('PEXPIRE', KEYS[2], 25 * 3600000)
end
return redis.call('DEL', KEYS[1])
