-- Changes what is counted in one budget. The ring is as in admit.lua.
--
-- KEYS[1]  the ring
-- ARGV[1]  the channel that is told
-- ARGV[2]  the budget's longest window in µs: it is kept for so long
-- ARGV[3]  how many stamps are kept
-- ARGV[4]  what is added to Redis's clock, the earliest and the latest time that the caller takes it for, as in admit.lua
-- ARGV[5]  what to do, with its arguments in ARGV[6] and on:
--   move  STAMP            the permit counts from now on: its request has left just now. Returns its new stamp; 'forgotten', and
--                          nothing is done, if there is no ring, which outlives its permits: Redis has lost data.
--   drop  STAMP            the permit was not used. Returns '0'.
--   pause UNTIL SHRUNK FACTOR   no permit before then, if that is later than what holds; SHRUNK is 0 if the budget does
--                          not shrink. Returns '0'.
--   merge STAMPS UNTIL SHRUNK FACTOR  what a replica knows goes in where it is missing; STAMPS as they stand in a ring.
--                          Returns the whole string. The others are told that it is to be fetched if something was missing.
-- All times are µs since 1970 by Redis's own clock. drop returns '' if the stamp is not there (any more). Nothing is done, and
-- 'clock' returned, if Redis's clock is not where the caller takes it to be.
local HEADER, FORMAT, LIFE = 80, '>I8I8I4I4I8I8I8', 7260000
local key, channel, span, keep = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local verb = ARGV[5]
local clock = redis.call('TIME')
local shift, earliest, latest = struct.unpack('>i8I8I8', ARGV[4])
local now = clock[1] * 1000000 + clock[2] + shift
if now < earliest or now > latest then
  return 'clock'
end

local paused, shrunk, factor, size, expires, next, last, count = 0, 0, 0, 0, 0, 0, 0, 0
local whole = redis.call('GET', key)
local stamps = '' -- the oldest first
if whole and #whole >= HEADER then
  paused, shrunk, factor, size, expires, next, last = struct.unpack(FORMAT, whole)
  count = math.min(next, size)
  local first = HEADER + 8 * ((next - count) % math.max(size, 1)) -- where the oldest begins
  stamps = string.sub(string.sub(whole, first + 1) .. string.sub(whole, HEADER + 1, first), 1, 8 * count)
end

if verb == 'move' and not whole then
  return 'forgotten'
end

local function read(text, i) -- the i-th stamp, from 1
  return (struct.unpack('>I8', text, 8 * i - 7))
end

local function text(n) return string.format('%.0f', n) end

local function store() -- the stamps are numbered anew, so that the marks are void
  count = #stamps / 8
  size = math.max(size, count)
  redis.call('SET', key, struct.pack(FORMAT, paused, shrunk, factor, size, 0, count, last) .. string.rep('\0', 32) ..
    stamps .. string.rep('\0', 8 * (size - count)), 'PX', math.ceil(math.max(span, paused - now) / 1000) + LIFE)
end

local function find(stamp)
  local low, high = 1, count
  while low < high do
    local middle = math.floor((low + high) / 2)
    if read(stamps, middle) < stamp then low = middle + 1 else high = middle end
  end
  if count > 0 and read(stamps, low) == stamp then return low end
end

local function later(until_, since, to) -- the longer pause, and the newer shrinking
  paused = math.max(paused, until_)
  if since > shrunk then shrunk, factor = since, to end
end

if verb == 'move' or verb == 'drop' then
  local i = find(tonumber(ARGV[6]))
  if i then
    stamps = string.sub(stamps, 1, 8 * i - 8) .. string.sub(stamps, 8 * i + 1)
  elseif verb == 'drop' then
    return ''
  elseif count >= math.max(keep, 1) then -- others have pushed it out; its request leaves now all the same
    stamps = string.sub(stamps, 9)
  end
  local new = 0
  if verb == 'move' then
    new = math.max(now, last + 1)
    new = new + new % 2
    stamps, last = stamps .. struct.pack('>I8', new), new
  end
  store()
  redis.call('PUBLISH', channel, verb .. ' ' .. ARGV[6] .. ' ' .. text(new) .. ' ' .. keep .. ' ' .. text(span) .. ' ' .. key)
  return text(new)
end

if verb == 'pause' then
  later(tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]))
  store()
  redis.call('PUBLISH', channel, 'pause ' .. text(paused) .. ' ' .. text(shrunk) .. ' ' .. text(factor) .. ' ' .. keep .. ' ' .. text(span) .. ' ' .. key)
  return '0'
end

-- merge: both are in ascending order
local theirs, merged = ARGV[6], {}
later(tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]))
local i, j, ours, more = 1, 1, count, #theirs / 8
while i <= ours or j <= more do
  local a, b = i <= ours and read(stamps, i) or math.huge, j <= more and read(theirs, j) or math.huge
  local stamp = math.min(a, b)
  if a == stamp then i = i + 1 end
  if b == stamp then j = j + 1 end
  merged[#merged + 1] = struct.pack('>I8', stamp)
end
local grown = #merged > count
keep = math.max(keep, size) -- another replica may have larger windows
stamps = table.concat(merged, '', math.max(1, #merged - keep + 1))
last = math.max(last, #stamps > 0 and read(stamps, #stamps / 8) or 0)
store()
if grown then
  redis.call('PUBLISH', channel, 'merge ' .. text(last) .. ' 0 ' .. keep .. ' ' .. text(span) .. ' ' .. key)
end
return redis.call('GET', key)
