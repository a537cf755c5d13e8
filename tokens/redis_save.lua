-- Writes a grant if the stored one is of the version that it replaces, and tells the other replicas.
--
-- KEYS 1 the grant, a hash: version, and sealed, which is absent once the grant was removed
-- ARGV 1 the version that is replaced; 0: there is no grant
--      2 the new version   3 the new grant, sealed   4 channel   5 account, as in the key
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
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'sealed', ARGV[3])
redis.call('PERSIST', KEYS[1])
redis.pcall('PUBLISH', ARGV[4], ARGV[2] .. ' ' .. ARGV[5]) -- if it may not, the others find out a little later
return {1}
