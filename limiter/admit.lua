-- Decides whether one permit may be taken out of all of the budgets, and counts it in all of them or in none.
--
-- KEYS     one ring for each budget; in a Cluster all of one slot
-- ARGV[1]  the question, numbers in binary, the highest byte first:
--   8 bytes, 8, 8   what is added to Redis's clock (signed; see alive.lua); the earliest and the latest that the caller takes
--                   it for
--   then for each budget: 8 bytes, 4, 8, 1   its longest window in µs (it is kept for so long), how many stamps are kept, the
--                   latest stamp that the caller knows of (0: none), how many windows follow;
--   for each of those: 4 bytes, 8   requests (0: none may go), length in µs (with the guard)
-- ARGV[2]  the channel that is told of what was counted; if it is missing nobody is
-- ARGV[3]  what it is told of who takes the permit, as it is
--
-- Returns, likewise in binary, 1 byte and 8: what was decided, and now. Then, if it is
--   1, yes:  8 bytes, the permit's stamp, and for each budget 8, the stamp before (0: none)
--   0, no:   for each budget 8 bytes: since when it has had room, or when it will have, if nobody takes any before
--   2:       nothing, as a stamp that the caller knows of is not there: Redis has lost data
--   3:       nothing, as Redis's clock is not where the caller takes it to be: one of the two was set
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
--   expires  8 bytes  when the key's life was last set, by the server's clock as it is: that may be set, and the key's end stays
--                   where it is then. A ring lives LIFE longer than its window, so that steps of a clock that are shorter end none.
local HEADER, FORMAT, REGAIN, LIFE = 48, '>I8I8I8I4I4I4I4I8', 1 / 600, 7260000
local call, unpack, pack, floor, question = redis.call, struct.unpack, struct.pack, math.floor, ARGV[1]

local clock, shift, earliest, latest, at = call('TIME'), unpack('>i8I8I8', question)
local now = clock[1] * 1000000 + clock[2] + shift
if now < earliest or now > latest then
  return pack('>BI8', 3, now)
end
local rings, room, stamp, rooms = {}, true, now, {}

for i = 1, #KEYS do
  local key = KEYS[i]
  local paused, shrunk, last, factor, first, count, size, expires = 0, 0, 0, 0, 0, 0, 0, 0
  local header = call('GETRANGE', key, 0, HEADER - 1)
  if #header == HEADER then
    paused, shrunk, last, factor, first, count, size, expires = unpack(FORMAT, header)
  end
  local span, keep, known, windows
  span, keep, known, windows, at = unpack('>I8I4I8B', question, at)
  if known > last then
    return pack('>BI8', 2, now)
  end
  local ready, share = paused, 1
  if shrunk > 0 then
    share = math.min(1, factor / 1000000 + (now - shrunk) / 1000000 * REGAIN)
  end
  for w = 1, windows do
    local limit, length
    limit, length, at = unpack('>I4I8', question, at)
    if limit == 0 then
      ready = math.max(ready, now + length)
    else
      if share < 1 then limit = math.max(1, floor(limit * share)) end
      if limit <= count then
        local place = HEADER + 8 * ((first + count - limit) % size)
        local free = unpack('>I8', call('GETRANGE', key, place, place + 7)) + length
        if free > ready then ready = free end
      end
    end
  end
  if ready > now then room = false end
  if last >= stamp then stamp = last + 1 end
  rings[i] = {paused, shrunk, last, factor, first, count, size, expires, span, keep}
  rooms[i] = pack('>I8', ready)
end
if not room then
  return pack('>BI8', 0, now) .. table.concat(rooms)
end

stamp = stamp + stamp % 2 -- odd ones are made by replicas that count alone
local text = pack('>I8', stamp)
local answer, told = pack('>BI8', 1, now) .. text, ARGV[2] and '+' .. text .. ARGV[3]
for i = 1, #KEYS do
  local key, ring = KEYS[i], rings[i]
  local last, first, count, size, expires, span, keep = ring[3], ring[5], ring[6], ring[7], ring[8], ring[9], ring[10]
  if count == size then
    local oldest = HEADER + 8 * first
    if count > 0 and (size >= keep or unpack('>I8', call('GETRANGE', key, oldest, oldest + 7)) <= now - span) then
      first, count = (first + 1) % size, count - 1 -- the oldest makes room
    else
      local stamps = call('GETRANGE', key, HEADER, -1)
      stamps = string.sub(stamps, 8 * first + 1) .. string.sub(stamps, 1, 8 * first)
      first, size, expires = 0, math.min(math.max(2 * size, 8), math.max(keep, 1)), 0
      call('SET', key, string.rep('\0', HEADER) .. stamps .. string.rep('\0', 8 * (size - count)))
    end
  end
  call('SETRANGE', key, HEADER + 8 * ((first + count) % size), text)
  local renew = expires < now - shift - 30000000 or expires > now - shift
  if renew then expires = now - shift end
  call('SETRANGE', key, 0, pack(FORMAT, ring[1], ring[2], stamp, ring[4], first, count + 1, size, expires))
  if renew then call('PEXPIRE', key, math.ceil(span / 1000) + LIFE) end
  answer = answer .. pack('>I8', last)
  if ARGV[2] then told = told .. pack('>I8I8I4I2', last, span, keep, #key) .. key end
end
if ARGV[2] then call('PUBLISH', ARGV[2], told) end
return answer
