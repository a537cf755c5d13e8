-- Keeps the lock, and puts it and the mark back if Redis has lost them; the mark also when another has the lock by
-- now, who must not spend what is being spent.
--
-- KEYS 2 the lock   3 the mark, a hash: version, owner
-- ARGV 1 owner   2 how long the lock lives, in ms
--      3 the version that is being spent; empty: none   4 how long the mark still lives, in ms
--
-- Returns {1}, or {0} when the lock is another's.
local held = redis.call('GET', KEYS[2])
local mine = not held or held == ARGV[1]
if mine then
	redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
if ARGV[3] ~= '' and redis.call('EXISTS', KEYS[3]) == 0 then
	redis.call('HSET', KEYS[3], 'version', ARGV[3], 'owner', ARGV[1])
	redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
return {mine and 1 or 0}
