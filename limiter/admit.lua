-- Decides whether one permit may be taken out of all of the budgets, and counts it in all of them or in none.
--
-- KEYS     one ring for each budget; in a Cluster all of one slot
-- ARGV[1]  the channel that is told of what was counted; '': nobody is
-- ARGV     then for each budget: its longest window in µs (it is kept for so long), how many stamps are kept, the latest
--          stamp that the caller knows of (0: none), how many windows follow; for each of those: requests, length in µs
--          (with the guard)
--
-- Returns {1, now, then for each budget: the permit's stamp, the one before it (0: none)} or
--         {0, now, then for each budget: since when it has had room, or when it will have, if nobody takes any before} or
--         {2, now} if a stamp that the caller knows of is not there: Redis has lost data.
-- All times are µs since 1970 by Redis's own clock.
--
-- A ring is one string, so that a budget costs 8 bytes a stamp: a header, then stamps in a circle.
--   paused   8 bytes  no permit before then
--   shrunk   8 bytes  since when the budget is smaller than its windows say, because another program uses it, too
--   last     8 bytes  the latest stamp
--   factor   4 bytes  what it shrank to, in millionths; it grows back by REGAIN a second
--   first    4 bytes  where the oldest stamp is in the circle
--   count    4 bytes
--   size     4 bytes  of the circle, in stamps
--   expires  8 bytes  when the key's expiry was last set
local HEADER, FORMAT, REGAIN = 48, '>I8I8I8I4I4I4I4I8', 1 / 600
local call, unpack, pack, max = redis.call, struct.unpack, struct.pack, math.max

local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
local rings, room, stamp, arg = {}, true, now, 2
local answer = {0, now}

for i = 1, #KEYS do
  local key = KEYS[i]
  local paused, shrunk, last, factor, first, count, size, expires = 0, 0, 0, 0, 0, 0, 0, 0
  local header = call('GETRANGE', key, 0, HEADER - 1)
  if #header == HEADER then
    paused, shrunk, last, factor, first, count, size, expires = unpack(FORMAT, header)
  end
  if tonumber(ARGV[arg + 2]) > last then
    return {2, now}
  end
  local ready, share = paused, 1
  if shrunk > 0 then
    share = math.min(1, factor / 1000000 + (now - shrunk) / 1000000 * REGAIN)
  end
  local windows = arg + 4
  local after = windows + 2 * ARGV[arg + 3]
  for w = windows, after - 2, 2 do
    local limit = max(1, math.floor(ARGV[w] * share))
    if limit <= count then
      local place = HEADER + 8 * ((first + count - limit) % size)
      ready = max(ready, unpack('>I8', call('GETRANGE', key, place, place + 7)) + ARGV[w + 1])
    end
  end
  if ready > now then room = false end
  if last >= stamp then stamp = last + 1 end
  rings[i] = {paused, shrunk, last, factor, first, count, size, expires, tonumber(ARGV[arg]), tonumber(ARGV[arg + 1])}
  answer[2 + i] = ready
  arg = after
end
if not room then
  return answer
end

answer = {1, now}
for i = 1, #KEYS do
  local key = KEYS[i]
  local paused, shrunk, last, factor, first, count, size, expires, span, keep = _G.unpack(rings[i])
  if count == size then
    local oldest = HEADER + 8 * first
    if count > 0 and (size >= keep or unpack('>I8', call('GETRANGE', key, oldest, oldest + 7)) <= now - span) then
      first, count = (first + 1) % size, count - 1 -- the oldest makes room
    else
      local stamps = call('GETRANGE', key, HEADER, -1)
      stamps = string.sub(stamps, 8 * first + 1) .. string.sub(stamps, 1, 8 * first)
      first, size, expires = 0, math.min(max(2 * size, 8), max(keep, 1)), 0
      call('SET', key, string.rep('\0', HEADER) .. stamps .. string.rep('\0', 8 * (size - count)))
    end
  end
  call('SETRANGE', key, HEADER + 8 * ((first + count) % size), pack('>I8', stamp))
  local renew = expires < now - 30000000
  if renew then expires = now end
  call('SETRANGE', key, 0, pack(FORMAT, paused, shrunk, stamp, factor, first, count + 1, size, expires))
  if renew then call('PEXPIRE', key, math.ceil(span / 1000) + 60000) end
  if ARGV[1] ~= '' then
    call('PUBLISH', ARGV[1], pack('>c1I8I8I8I4', '+', stamp, last, span, keep) .. key)
  end
  answer[1 + 2 * i], answer[2 + 2 * i] = stamp, last
end
return answer
