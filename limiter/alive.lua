-- Says that a replica is alive, and asks which ones are.
--
-- KEYS[1]  a hash: replica → when it last said so
-- ARGV[1]  the channel that is told when a replica is new
-- ARGV[2]  the replica; '' only asks
-- ARGV[3]  for how long one counts as alive, in µs
--
-- Returns {now, how many are alive, 1 if the replica is new}, in decimal; now is µs since 1970 by Redis's own clock.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local new = 0
if ARGV[2] ~= '' then
  new = redis.call('HSET', KEYS[1], ARGV[2], string.format('%.0f', now))
  if new == 1 then
    redis.call('PUBLISH', ARGV[1], 'replica')
  end
  redis.call('PEXPIRE', KEYS[1], 3600000)
end
local alive = 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if tonumber(all[i + 1]) > now - tonumber(ARGV[3]) then
    alive = alive + 1
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return {string.format('%.0f', now), tostring(alive), tostring(new)}
