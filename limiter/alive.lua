-- Says that a replica is alive, and asks which ones are; keeps the time that all of them share.
--
-- KEYS[1]  a hash: replica → 'WHEN PART RUN SLOT [LOST|C…]': when it last said so; one in how many of each budget is its own if it
--          loses Redis (0: nothing that others need to leave to it); of which run of the server it said so; a small number that no
--          other replica has, by which the stamps that it makes alone differ from all others; LOST, C…: see below.
--          'clock' → what is added to the server's clock, so that it goes on as before when that is set
-- ARGV[1]  the channel that is told when a replica is new
-- ARGV[2]  the replica
-- ARGV[3]  its part; '' only asks who else there is
-- ARGV[4], ARGV[5]  the earliest and the latest time that the caller takes it for; if it is another, the replica does not count as
--          seen: the call is late, or the clock was set
-- ARGV[6]  by how much the clock was set: so much is taken off; 0: it was not
-- ARGV[7]  what was added to the clock when that was measured
-- ARGV[8]  the replica's slot; -1: it has none yet
-- ARGV[9]  the run that was given what the replica knows, as a number; in another one it does not count as seen. 0: any
-- ARGV[10]  when it last said so, as it was told then; 0: it has not
-- ARGV[11]  the others as they stood here when it was last told, 'REPLICA WHEN PART…' a line
--
-- Returns the others as in ARGV[11], and {now, what is added to the clock, how many are alive, 1 if the replica is new, 1 if the
-- others find the clock right, which the caller does not, the replica's slot, a number that is another one for each run of a server,
-- then the parts of all that may be alive without us}, in decimal. It keeps its slot unless another replica has it.
-- All times are µs, since 1970 by the shared clock.
--
-- A replica that has been silent for SILENT and did not say goodbye has died, or it is cut off and counts its part alone. The
-- server knows: the connections of a process that died are closed, and the channel KEYS[1]:REPLICA has nobody who listens to it;
-- those of one that is cut off stay. If they are closed after LATE, at C…, it may be that it was cut off, has gone over to
-- another master, and now the network is mended: then we are about to go there, too, and have GRACE for that. If they stay for
-- SURE then they are LOST and closing them means nothing any more: the server gives up what does not answer. Another run of the
-- server, or another server, knows nothing of connections: what has not come there after SURE is taken for dead. After OVER it
-- has no good token any more and sends nothing.
-- If the server does not have what the caller said last, it was started empty or with older data: of what the caller saw after that
-- all is lost, and put back.
local SILENT, SURE, OVER, WITNESS, LATE, GRACE = 600000, 300000000, 3600000000, 500000, 2000000, 30000000
local LIFE = 129600000 -- ms, 36 hours: longer than any ring lives (a window of a day, and LIFE of admit.lua), whose stamps are
-- nothing without 'clock'
local call, text = redis.call, function(n) return string.format('%.0f', n) end
local function when(said) return tonumber(string.match(said or '', '^%d+') or 0) end
local function listens(name)
  local listening = redis.pcall('PUBSUB', 'NUMSUB', KEYS[1] .. ':' .. name)
  return listening[2] and listening[2] > 0
end
local clock = call('TIME')
local run = string.match(call('INFO', 'server'), 'run_id:(%w+)') or '-'
local number = text(tonumber(string.sub(run, 1, 12), 16) or 0)
local shift, others, own = 0, {}, nil
local all = call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] == 'clock' then
    shift = tonumber(all[i + 1])
  elseif all[i] == ARGV[2] then
    own = all[i + 1]
  else
    others[all[i]] = all[i + 1]
  end
end
local now, off = clock[1] * 1000000 + clock[2] + shift, 0

if ARGV[6] ~= '0' and tonumber(ARGV[7]) == shift then
  for _, said in pairs(others) do -- somebody was here just now, and found the clock right
    local age = now - when(said)
    if age > -WITNESS / 2 and age < WITNESS then off = 1 end
  end
  if off == 0 then
    shift, now = shift - ARGV[6], now - ARGV[6]
    call('HSET', KEYS[1], 'clock', text(shift))
    call('PEXPIRE', KEYS[1], LIFE)
  end
end

local answer, known, alive, new, slot = {}, {}, 0, 0, tonumber(ARGV[8])
local right = now >= tonumber(ARGV[4]) and now <= tonumber(ARGV[5]) -- else the clock was set, and tells nothing of who is silent
if right and when(own) < tonumber(ARGV[10]) then -- what was here is lost, and with it who may be cut off
  for name, said in string.gmatch(ARGV[11], '(%w+) ([^\n]+)') do
    local may = now - when(said) <= SURE
    if string.match(said, '^%d+ %d+ (%w+)') == run then may = listens(name) end
    if may and when(said) > when(others[name]) then
      others[name] = said
      call('HSET', KEYS[1], name, said)
      call('PEXPIRE', KEYS[1], LIFE)
    end
  end
end
if ARGV[3] ~= '' and right and (ARGV[9] == '0' or ARGV[9] == number) then
  local taken = {}
  for _, said in pairs(others) do
    taken[tonumber(string.match(said, '^%d+ %d+ %w+ (%d+)')) or -1] = true
  end
  if slot < 0 or taken[slot] then
    slot = 0
    while taken[slot] do slot = slot + 1 end
  end
  new, alive = call('HSET', KEYS[1], ARGV[2], text(now) .. ' ' .. ARGV[3] .. ' ' .. run .. ' ' .. slot), 1
  if new == 1 then call('PUBLISH', ARGV[1], 'replica') end
  call('PEXPIRE', KEYS[1], LIFE)
end
for name, said in pairs(others) do
  local at, part, ran, lost = string.match(said, '^(%d+) (%d+) (%w+) %d+ ?(%w*)$')
  local silence = now - tonumber(at or 0)
  local dead = not at or silence > OVER
  if silence <= SILENT then
    alive = alive + 1
  elseif not dead and string.sub(lost, 1, 1) == 'C' then
    dead = now - tonumber(string.sub(lost, 2)) > GRACE
  elseif not dead and lost == '' then
    if part == '0' or ran ~= run then
      dead = silence > SURE or part == '0'
    else
      local gone = not listens(name)
      dead = gone and silence <= LATE
      if gone and not dead and right then
        call('HSET', KEYS[1], name, said .. ' C' .. text(now))
      elseif silence > SURE and right then
        call('HSET', KEYS[1], name, said .. ' LOST')
      end
    end
  end
  if dead and right then
    call('HDEL', KEYS[1], name)
  else
    known[#known + 1] = name .. ' ' .. said
    if silence > SILENT then answer[#answer + 1] = part end
  end
end
return {table.concat(known, '\n'), text(now), text(shift), tostring(alive), tostring(new), tostring(off), tostring(slot), number, unpack(answer)}
