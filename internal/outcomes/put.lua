-- Writes the next state of a record, or says that its owner lives. A state never goes back.
--
-- KEYS 1 the record   2 the client's count (both as in begin.lua)
-- ARGV 1 owner   2 state   3 how long the owner lives without a sign of life, in ms   4 in how many ms the record expires
--      5 the sealed record   6 units to count
--
-- Returns {'put'}; {'lost'} when there was no record: it is there again now; {'taken'} when there is another's, which
-- gives way only while it is waiting, and only to an outcome: its owner then cannot send.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'state', 'owner')
local state, has = tonumber(ARGV[2]), found[1] and tonumber(found[1]) or 0
if found[1] and found[2] ~= ARGV[1] and (has > 1 or state < 3) then
	return {'taken'}
end
if found[2] == ARGV[1] and has > state then
	return {'put'}
end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'owner', ARGV[1], 'until', now + ARGV[3], 'sealed', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if has < state and tonumber(ARGV[6]) > 0 then
	local hour = string.format('%d', math.floor(now / 3600000))
	redis.call('HSET', KEYS[2], hour, (redis.call('HGET', KEYS[2], hour) or 0) + ARGV[6])
	redis.call('PEXPIRE', KEYS[2], 25 * 3600000)
end
return {found[1] and 'put' or 'lost'}
