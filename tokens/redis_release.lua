-- Gives the lock back and takes the mark away, each if it is the owner's.
--
-- KEYS 2 the lock   3 the mark, a hash: version, owner
-- ARGV 1 owner
--
-- Returns {1 if the lock was the owner's, else 0}.
local mine = redis.call('GET', KEYS[2]) == ARGV[1]
if mine then
	redis.call('DEL', KEYS[2])
end
if redis.call('HGET', KEYS[3], 'owner') == ARGV[1] then
	redis.call('DEL', KEYS[3])
end
return {mine and 1 or 0}
