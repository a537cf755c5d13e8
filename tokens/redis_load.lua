-- Reads a grant, and what time it is.
--
-- KEYS 1 the grant, a hash: version; sealed, which is absent once the grant was removed; clock: as redis_save.lua has it
--
-- Returns {version, sealed, clock, now in Unix ms by Redis's clock}; an empty string for what is not there.
local stored = redis.call('HMGET', KEYS[1], 'version', 'sealed', 'clock')
local now = redis.call('TIME')
return {stored[1] or '', stored[2] or '', stored[3] or '', now[1] * 1000 + math.floor(now[2] / 1000)}
