-- Removes a grant, and leaves a mark of that: without it nobody could tell a removal from lost data.
--
-- KEYS 1 the grant, a hash: version, and sealed, which is absent once the grant was removed
-- ARGV 1 how long the mark stays, in ms   2 channel   3 account, as in the key
--
-- Returns {1 if there was a grant, else 0; the removal's version: higher than the grant's, and at least now in Unix ms}.
local stored = redis.call('HMGET', KEYS[1], 'version', 'sealed')
local now = redis.call('TIME')
local version = math.max(tonumber(stored[1] or '0') + 1, now[1] * 1000 + math.floor(now[2] / 1000))
local text = string.format('%.0f', version)
redis.call('HSET', KEYS[1], 'version', text)
redis.call('HDEL', KEYS[1], 'sealed', 'clock')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.pcall('PUBLISH', ARGV[2], text .. ' ' .. ARGV[3])
return {stored[2] and 1 or 0, text}
