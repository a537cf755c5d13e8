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
--   0, no:   for each budget 8 bytes: when it will have room, if nobody takes any before, or a time at which it had
--   2:       nothing, as a stamp that the caller knows of is not there: Redis has lost data
--   3:       nothing, as Redis's clock is not where the caller takes it to be: one of the two was set
-- All times are µs since 1970 by Redis's own clock.
--
-- A ring is one string, so that a budget costs 8 bytes a stamp: a header, then stamps in a circle. Of the header's fields, where
-- they begin and how many bytes they have:
--   paused    0  8   no permit before then
--   shrunk    8  8   since when the budget is smaller than its windows say, because another program uses it, too
--   factor   16  4   what it shrank to, in millionths; it grows back by REGAIN a second
--   size     20  4   of the circle, in stamps
--   expires  24  8   when the key's expiry was last set, by the server's clock as it is: that may be set, and the key's end stays
--                    where it is then. A ring lives LIFE longer than its window, so that steps of a clock that are shorter end none.
--   next     32  8   the number of the next stamp: they are counted from 0, and number N is at place N % size
--   last     40  8   the latest stamp
--   marks    48  32  for the first window, and for the others: the stamps below this number (8 bytes) are not later than this time
--                    (8 bytes). A permit that depends on one of them reads none if that time is long enough ago. Else the mark is
--                    set AHEAD stamps further on, if that one is old enough, too.
-- What a step is given is text where it is always the same: Redis takes as long to make text of a number as for the step.
local HEADER, FORMAT, AHEAD, REGAIN, LIFE = 80, '>I8I8I4I4I8I8I8', 16, 1 / 600, 7260000
local call, unpack, pack, question = redis.call, struct.unpack, struct.pack, ARGV[1]

local function look(key, at) -- the stamp there
  return (struct.unpack('>I8', redis.call('GETRANGE', key, at, at + 7)))
end

local clock, shift, earliest, latest, at = call('TIME'), unpack('>i8I8I8', question)
local now = clock[1] * 1000000 + clock[2] + shift
if now < earliest or now > latest then
  return pack('>BI8', 3, now)
end
local rings, room, stamp = {}, true, now

for i = 1, #KEYS do
  local key = KEYS[i]
  local header = call('GETRANGE', key, '0', '79')
  if #header < HEADER then header = string.rep('\0', HEADER) end
  local ready, shrunk, factor, size, expires, next, last = unpack(FORMAT, header)
  local span, keep, known, windows
  span, keep, known, windows, at = unpack('>I8I4I8B', question, at)
  if known > last then
    return pack('>BI8', 2, now)
  end
  local share = 1
  if shrunk > 0 then
    share = math.min(1, factor / 1000000 + (now - shrunk) / 1000000 * REGAIN)
  end
  for w = 1, windows do
    local limit, length
    limit, length, at = unpack('>I4I8', question, at)
    if share < 1 and limit > 0 then limit = math.max(1, math.floor(limit * share)) end
    if limit == 0 then
      ready = math.max(ready, now + length)
    elseif limit <= next and limit <= size then
      local decides, mark = next - limit, w == 1 and 48 or 64
      local marked, since = unpack('>I8I8', header, mark + 1)
      if decides >= marked or since + length > now then
        local further = math.min(decides + AHEAD, next - 1)
        since = look(key, HEADER + 8 * (further % size))
        if since + length <= now then
          call('SETRANGE', key, mark, pack('>I8I8', further + 1, since))
        else
          since = look(key, HEADER + 8 * (decides % size))
        end
      end
      if since + length > ready then ready = since + length end
    end
  end
  if ready > now then room = false end
  if last >= stamp then stamp = last + 1 end
  rings[i] = {ready, header, size, expires, next, last, span, keep}
end
if not room then
  local answer = pack('>BI8', 0, now)
  for i = 1, #KEYS do answer = answer .. pack('>I8', rings[i][1]) end
  return answer
end

stamp = stamp + stamp % 2 -- odd ones are made by replicas that count alone
local text = pack('>I8', stamp)
local answer, told = pack('>BI8I8', 1, now, stamp), ARGV[2] and '+' .. text .. ARGV[3]
for i = 1, #KEYS do
  local key, ring = KEYS[i], rings[i]
  local header, size, expires, next, last, span, keep = ring[2], ring[3], ring[4], ring[5], ring[6], ring[7], ring[8]
  local oldest = next % math.max(size, 1)
  if next >= size and (size == 0 or size < keep and look(key, HEADER + 8 * oldest) > now - span) then -- it makes no room yet
    local stamps = call('GETRANGE', key, HEADER, -1)
    stamps = string.sub(stamps, 8 * oldest + 1) .. string.sub(stamps, 1, 8 * oldest)
    next, size, expires = size, math.min(math.max(2 * size, 8), math.max(keep, 1)), 0
    call('SET', key, string.sub(header, 1, 20) .. pack('>I4', size) .. string.rep('\0', HEADER - 24) ..
      stamps .. string.rep('\0', 8 * (size - next)))
  end
  call('SETRANGE', key, HEADER + 8 * (next % size), text)
  call('SETRANGE', key, '32', pack('>I8I8', next + 1, stamp))
  if expires < now - shift - 30000000 or expires > now - shift then
    call('SETRANGE', key, '24', pack('>I8', now - shift))
    call('PEXPIRE', key, math.ceil(span / 1000) + LIFE)
  end
  answer = answer .. pack('>I8', last)
  if ARGV[2] then told = told .. pack('>I8I8I4I2', last, span, keep, #key) .. key end
end
if ARGV[2] then call('PUBLISH', ARGV[2], told) end
return answer
