-- One turn that several processes share. All of it is one string, so that nothing of it can be lost alone: a JSON object
--   holder   which process has it, if any
--   ends     when the lease ends unless it is renewed, in ms of Redis's clock
--   waiting  a list of {process, seen}: who wants it, first come first served, and when each last said so, in ms
--
-- KEYS 1 the turn
-- ARGV 1 what to do: ask, renew or leave   2 the process   3 how long the lease lives, in ms
--      4 how long one who waits is believed to do so, in ms
--
-- ask    Takes the turn if it is free, or the process's own, and nobody who waits came before; else waits for it.
--        Returns 1 if it is taken, else 0.
-- renew  Makes the lease live on. If it is nobody's, as after Redis has lost it, it is taken again.
--        Returns 1 if the process has it, else 0: another one does.
-- leave  Gives the lease back, and the place among those who wait. Returns 1.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local me, lease, believed = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local stored = redis.call('GET', KEYS[1])
local turn = stored and cjson.decode(stored) or {}
if turn.holder and turn.ends <= now then
	turn.holder, turn.ends = nil, nil
end

-- Those who wait still, me left out.
local waiting, mine, before = {}, nil, 0
for _, w in ipairs(turn.waiting or {}) do
	if w[1] == me then
		mine, before = w, #waiting
	elseif w[2] + believed > now then
		table.insert(waiting, w)
	end
end
if not mine then
	before = #waiting
end

local result = 1
local free = not turn.holder or turn.holder == me
if ARGV[1] == 'leave' then
	if free then
		turn.holder, turn.ends = nil, nil
	end
elseif free and (ARGV[1] == 'renew' or before == 0) then
	turn.holder, turn.ends = me, now + lease
else
	result = 0
	if ARGV[1] == 'ask' then
		table.insert(waiting, before + 1, {me, now})
	end
end

if not turn.holder and #waiting == 0 then
	redis.call('DEL', KEYS[1])
	return result
end
turn.waiting = #waiting > 0 and waiting or nil
redis.call('SET', KEYS[1], cjson.encode(turn), 'PX', math.max(lease, believed))
return result
