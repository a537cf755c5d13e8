-- Claims a name, unless there is a record of it.
--
-- KEYS 1 the record, a hash: state (1 waiting, 2 sent, 3 done, 4 unknown), owner, until, sealed
--      2 the client's count, a hash: hour → units
-- ARGV 1 owner   2 how long it lives without a sign of life, in ms   3 the sealed record   4 most units
--
-- Returns {'claimed'}, also when an earlier try has claimed it whose answer was lost;
--         {'found', 1 if its owner lives, else 0, sealed} for another's; {'full'} when the client has the most on record.
-- Times are Unix ms by Redis's own clock. A waiting record whose owner shows no life expires.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'state', 'owner', 'until', 'sealed')
if found[1] and found[2] ~= ARGV[1] then
	return {'found', tonumber(found[3]) > now and 1 or 0, found[4]}
end
local units, hour = 0, math.floor(now / 3600000)
local counts = redis.call('HGETALL', KEYS[2])
for i = 1, #counts, 2 do
	if tonumber(counts[i]) < hour - 24 then
		redis.call('HDEL', KEYS[2], counts[i])
	else
		units = units + tonumber(counts[i + 1])
	end
end
if units >= tonumber(ARGV[4]) then
	return {'full'}
end
redis.call('HSET', KEYS[1], 'state', '1', 'owner', ARGV[1], 'until', now + ARGV[2], 'sealed', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {'claimed'}
