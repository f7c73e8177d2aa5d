-- When an endpoint next needs attention, and how long a hint that it is ready holds.

local function set_hinted(endpoint, until_ms)
  if endpoint.hinted_until == until_ms then return end
  endpoint.hinted_until = until_ms
  if until_ms == 0 then
    redis.call('HDEL', endpoint.record_key, 'hinted_until')
  else
    redis.call('HSET', endpoint.record_key, 'hinted_until', int(until_ms))
  end
end

-- Whether the caller has to hint the endpoint: it is ready, and no hint holds. Notes the new hint.
local function take_hint(endpoint, hint_ms)
  if not endpoint.ready or endpoint.hinted_until > now then return false end
  set_hinted(endpoint, now + hint_ms)
  return true
end

-- Invariant: an endpoint with something in its lane or leased is in its workspace's schedule, unless the
-- operator stopped it; and a workspace is in `schedule` while its own schedule is not empty, by when to look
-- at it next. So wake can take workspaces in turn: one with many due endpoints delays only its own. Only wake
-- removes a workspace from there, when it finds its schedule empty.
local NO_WORKSPACE = '*' -- in place of the workspace if an endpoint's record is gone
local function unschedule(workspace, endpoint_id)
  redis.call('ZREM', key_of('schedule', workspace), endpoint_id)
end

-- Notes in its record whether a paused subscription holds it: the exporter may not read workspaces.
local function note_hold(endpoint)
  local held = endpoint.stopped and not endpoint.is_kept
  if held == endpoint.held then return end
  endpoint.held = held
  if held then redis.call('HSET', endpoint.record_key, 'held', '1') end
  if not held then redis.call('HDEL', endpoint.record_key, 'held') end
end

-- `endpoint` must be assessed.
local function reschedule(endpoint)
  local LOOK_AGAIN_MS = 5000
  local workspace = endpoint.workspace or NO_WORKSPACE
  note_hold(endpoint)
  local next_ms = endpoint.leased > 0 and (endpoint.lease_end
    or tonumber(redis.call('ZRANGE', endpoint.leased_key, '0', '0', 'WITHSCORES')[2]))
  if endpoint.due_at and endpoint.room > 0 and not endpoint.stopped then
    local due_at = endpoint.due_at
    if endpoint.short_of_token then due_at = math.min(due_at, now + LOOK_AGAIN_MS) end -- the rate may change
    local opens_at = math.max(due_at, endpoint.hinted_until)
    next_ms = next_ms and math.min(next_ms, opens_at) or opens_at
  end
  if not next_ms then return unschedule(workspace, endpoint.id) end
  local next_time = int(next_ms)
  redis.call('ZADD', key_of('schedule', workspace), next_time, endpoint.id)
  -- behind those that have waited longer
  redis.call('ZADD', key_of('schedule'), 'LT', next_ms > now and next_time or NOW, workspace)
end
