-- Gives leave to spend a grant's refresh token, and marks that it is being spent.
--
-- KEYS 1 the grant   2 the lock   3 the mark, a hash: version, owner
-- ARGV 1 owner   2 process   3 the version to be spent; 0: a token from outside
--      4 how long the lock lives   5 how long the mark lives, both in ms
--      6 the latest that the caller takes the time for, in Unix ms; 0: it does not know
--
-- Returns {1} when it may be spent now;
--         {2, ms} when another process may yet bring the answer for this version, which it cannot after that time;
--         {3} when another version is stored;
--         {4} when the lock is another's;
--         {5, now in Unix ms} when it is later than that: the clock was set, and marks may have died before their time.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
	return {4}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if ARGV[6] ~= '0' and now > tonumber(ARGV[6]) then
	return {5, now}
end
if ARGV[3] ~= '0' then
	local stored = redis.call('HMGET', KEYS[1], 'version', 'sealed')
	if stored[1] ~= ARGV[3] or not stored[2] then
		return {3}
	end
end
local mark = redis.call('HMGET', KEYS[3], 'version', 'owner')
if mark[2] and string.sub(mark[2], 1, #ARGV[2]) ~= ARGV[2] and (mark[1] == ARGV[3] or ARGV[3] == '0') then
	return {2, redis.call('PTTL', KEYS[3])}
end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('HSET', KEYS[3], 'version', ARGV[3], 'owner', ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[5])
return {1}
