-- Writes a grant if the stored one is of the version that it replaces, and tells the other replicas.
--
-- KEYS 1 the grant, a hash: version; sealed, which is absent once the grant was removed; clock: "VERSION MS", by how much the
--        clock of who wrote that version was ahead of Redis's
-- ARGV 1 the version that is replaced; 0: there is no grant
--      2 the new version   3 the new grant, sealed   4 channel   5 account, as in the key
--      6 what time it is by the writer's clock, in Unix ms
-- Versions are Unix milliseconds, or a little more.
--
-- Returns {1} when it is written, also by an earlier try whose answer was lost;
--         {0, version, sealed} when another is stored, each empty for what is not there.
local stored = redis.call('HMGET', KEYS[1], 'version', 'sealed')
local version, sealed = stored[1] or '', stored[2] or ''
if sealed ~= '' then
	if sealed == ARGV[3] then
		return {1}
	end
	if version ~= ARGV[1] then
		return {0, version, sealed}
	end
elseif ARGV[1] ~= '0' or (version ~= '' and tonumber(version) >= tonumber(ARGV[2])) then
	return {0, version, ''}
end
local now = redis.call('TIME')
local ahead = ARGV[6] - now[1] * 1000 - math.floor(now[2] / 1000)
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'sealed', ARGV[3], 'clock', string.format('%s %.0f', ARGV[2], ahead))
redis.call('PERSIST', KEYS[1])
redis.pcall('PUBLISH', ARGV[4], ARGV[2] .. ' ' .. ARGV[5]) -- if it may not, the others find out a little later
return {1}
