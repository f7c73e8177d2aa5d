-- wake: finds endpoints whose time has come, hints that were lost, and leases that ran out; keeps the worker's sign of life.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] most endpoints to look at
-- ARGV[4] how long a hint holds, ms
-- ARGV[5] worker's name
-- ARGV[6] its sign of life, JSON ('' = not this time)
-- returns {'woken', now, {endpoint and its workspace of each to hint, in turn}, {lost callback, ...}, number of endpoints looked at, number
--   of workers alive, whether somebody watches attempts, the number of the format ('' = none), what broke on some endpoint ('' = nothing),
--   whether more are due}
--   lost callback: {endpoint, its name, eventId, its entry}
--   its lease ran out; settle it with its claim number (whoever settles first counts)
-- Goes round by workspace: each that is due gives as many, and comes behind the others then.
-- Works when Redis is full.
-- include keys
-- include clock
-- include guard
-- include endpoint
-- include entry
redis.call('DEL', P .. 'never')
local ALIVE_MS, AGAIN_MS, LOST_AGAIN_MS = 15000, 5000, 1000
if ARGV[6] ~= '' then
  redis.call('SET', key_of('worker', ARGV[5]), ARGV[6], 'PX', ALIVE_MS)
  redis.call('ZADD', key_of('workers'), NOW, ARGV[5])
  redis.call('ZREMRANGEBYSCORE', key_of('workers'), '-inf', now - ALIVE_MS)
  redis.call('PEXPIRE', key_of('workers'), ALIVE_MS)
end

local hints, lost, looked_at, more = {}, {}, 0, 0

local function add_lost(endpoint, s, id)
  if not s.workspace then return end -- its record is gone; the sweep makes it again
  local e = read_entry(s.workspace, id)
  if not e then return redis.call('ZREM', key_of('leased', endpoint), id) end -- removed by hand
  lost[#lost + 1] = { endpoint, s.name, id, text_of(e) }
end

-- `workspace` is the one in whose schedule it was found.
local function look_at(workspace, endpoint)
  local s = look(load(endpoint))
  if (s.workspace or NOBODY) ~= workspace then unschedule(workspace, endpoint) end
  local lost_before = #lost
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key_of('leased', endpoint), '-inf', NOW, 'LIMIT', 0, 100)) do
    add_lost(endpoint, s, id)
  end
  if s.workspace and take_hint(s, ARGV[4]) then
    hints[#hints + 1] = endpoint
    hints[#hints + 1] = s.workspace
  end
  reschedule(s)
  if #lost > lost_before then -- whoever settles them reschedules it; until then others have their turn
    redis.call('ZADD', key_of('schedule', s.workspace), now + LOST_AGAIN_MS, endpoint)
  end
  if not s.workspace and (s.leased > 0 or s.from) then
    redis.call('ZADD', key_of('schedule', NOBODY), now + AGAIN_MS, endpoint)
  end
end

local function go_round(workspace, most)
  local own = key_of('schedule', workspace)
  for _, endpoint in ipairs(redis.call('ZRANGEBYSCORE', own, '-inf', NOW, 'LIMIT', 0, most)) do
    looked_at = looked_at + 1
    if not guarded(look_at, workspace, endpoint) then redis.call('ZADD', own, now + AGAIN_MS, endpoint) end
  end
  local first = redis.call('ZRANGE', own, '0', '0', 'WITHSCORES')[2]
  if not first then return redis.call('ZREM', key_of('schedule'), workspace) end
  if tonumber(first) <= now then more = 1 end
  redis.call('ZADD', key_of('schedule'), int(math.max(tonumber(first), now)), workspace)
end

local due = redis.call('ZRANGEBYSCORE', key_of('schedule'), '-inf', NOW, 'LIMIT', 0, ARGV[3])
local each = int(math.ceil(ARGV[3] / math.max(#due, 1)))
if #due == tonumber(ARGV[3]) then more = 1 end
for _, workspace in ipairs(due) do
  if not guarded(go_round, workspace, each) then
    redis.call('ZADD', key_of('schedule'), now + AGAIN_MS, workspace)
  end
end
return { 'woken', now, hints, lost, looked_at, redis.call('ZCARD', key_of('workers')), redis.call('EXISTS', key_of('tail')),
  redis.call('GET', key_of('format')) or '', problem, more }
