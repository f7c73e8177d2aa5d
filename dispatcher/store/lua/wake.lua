-- wake: finds endpoints that need attention now, hints that were lost, and leases that ran out; stores the
-- worker's heartbeat.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   most: most endpoints to look at
--   hint_ms: how long a hint holds
--   worker: its name
--   heartbeat: its heartbeat, JSON ('' = not this time)
-- returns {'woken', now, {endpoint and workspace of each hint, in turn}, {lost callback, ...}, number of
--   endpoints looked at, number of live workers, whether someone watches attempts, the format number
--   ('' = none), the error on some endpoint ('' = none), whether more are due}
--   lost callback: {endpoint, its name, eventId, its entry}
--   its lease ran out; settle it with its claim number (the first settle counts)
-- Takes the due workspaces in turn: each gets an equal share of `most`, then goes behind the others.
-- Works when Redis is full.
-- include prologue
-- include heartbeats
-- include guard
-- include endpoint
-- include schedule
-- include entry
redis.call('DEL', PREFIX .. 'never')
local most, hint_ms, worker, heartbeat = take(4)
local AGAIN_MS, LOST_AGAIN_MS = 5000, 1000
if heartbeat ~= '' then store_heartbeat(worker, heartbeat) end

local hints, lost, looked_at, more = {}, {}, 0, 0

local function add_lost(endpoint, id)
  if not endpoint.workspace then return end -- its record is gone; a sweep finds it
  local entry = read_entry(endpoint.workspace, id)
  if not entry then return redis.call('ZREM', endpoint.leased_key, id) end -- removed by hand
  lost[#lost + 1] = { endpoint.id, endpoint.name, id, text_of(entry) }
end

-- `workspace` is the one in whose schedule it was found.
local function look_at(workspace, endpoint_id)
  local endpoint = assess(load_endpoint(endpoint_id))
  if (endpoint.workspace or NO_WORKSPACE) ~= workspace then unschedule(workspace, endpoint_id) end
  local lost_before, leased = #lost, key_of('leased', endpoint_id)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leased, '-inf', NOW, 'LIMIT', 0, 100)) do
    add_lost(endpoint, id)
  end
  if endpoint.workspace and take_hint(endpoint, hint_ms) then
    hints[#hints + 1], hints[#hints + 2] = endpoint_id, endpoint.workspace
  end
  reschedule(endpoint)
  if #lost > lost_before then -- their settle reschedules it; until then others have their turn
    redis.call('ZADD', key_of('schedule', endpoint.workspace), now + LOST_AGAIN_MS, endpoint_id)
  end
  if not endpoint.workspace and (endpoint.leased > 0 or endpoint.due_at) then
    redis.call('ZADD', key_of('schedule', NO_WORKSPACE), now + AGAIN_MS, endpoint_id)
  end
end

local function go_round(workspace, most_of_it)
  local own = key_of('schedule', workspace)
  for _, endpoint_id in ipairs(redis.call('ZRANGEBYSCORE', own, '-inf', NOW, 'LIMIT', 0, most_of_it)) do
    looked_at = looked_at + 1
    local ok = guarded(look_at, workspace, endpoint_id)
    if not ok then redis.call('ZADD', own, now + AGAIN_MS, endpoint_id) end
  end
  local first = redis.call('ZRANGE', own, '0', '0', 'WITHSCORES')[2]
  if not first then return redis.call('ZREM', key_of('schedule'), workspace) end
  if tonumber(first) <= now then more = 1 end
  local next_ms = math.min(math.max(tonumber(first), now), now + MAX_TTL) -- it may be damaged
  redis.call('ZADD', key_of('schedule'), int(next_ms), workspace)
end

local due = redis.call('ZRANGEBYSCORE', key_of('schedule'), '-inf', NOW, 'LIMIT', 0, most)
local each_of = int(math.ceil(most / math.max(#due, 1)))
if #due == tonumber(most) then more = 1 end
for _, workspace in ipairs(due) do
  if not guarded(go_round, workspace, each_of) then
    redis.call('ZADD', key_of('schedule'), now + AGAIN_MS, workspace)
  end
end
return { 'woken', now, hints, lost, looked_at, redis.call('ZCARD', key_of('workers')),
  redis.call('EXISTS', key_of('tail')), redis.call('MGET', key_of('format'))[1] or '', problem, more }
