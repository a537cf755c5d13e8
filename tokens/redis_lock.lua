-- Takes the lock if it is free, or a left-over of the same process.
--
-- KEYS 2 the lock, a string: its owner
-- ARGV 1 owner: process and number   2 process   3 how long the lock lives unless it is renewed, in ms
--
-- Returns {1, run id of this Redis server, or empty if it does not say, now in Unix ms by its clock} when it is taken;
--         {0, ms until it expires} when another process has it.
local held = redis.call('GET', KEYS[2])
if held and string.sub(held, 1, #ARGV[2]) ~= ARGV[2] then
	return {0, redis.call('PTTL', KEYS[2])}
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
local info = redis.pcall('INFO', 'server')
local now = redis.call('TIME')
return {1, type(info) == 'string' and string.match(info, 'run_id:(%w+)') or '', now[1] * 1000 + math.floor(now[2] / 1000)}
