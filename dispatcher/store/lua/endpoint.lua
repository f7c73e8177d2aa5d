-- What an endpoint is doing, and when it next needs attention. ARGV[2] is the default max_concurrency.
local START_WINDOW, BUCKET_SECONDS, HOUR, LOOK_AGAIN_MS, MAX_HINT_MS = 2, 0.1, 3600000, 5000, 60000

-- A workspace's revision and limits; read once a script.
local workspaces = {}
local function workspace_of(id)
  if not workspaces[id] then
    local h = redis.call('HMGET', key_of('workspace', id), 'revision', 'ordering', 'max_concurrency', 'rate_per_second')
    workspaces[id] = { revision = h[1], ordering = h[2] or 'first_attempt', max = tonumber(h[3] or ARGV[2]), rate = tonumber(h[4] or 0) }
  end
  return workspaces[id]
end

-- What is kept of an endpoint.
local function load(endpoint)
  local h = redis.call('HMGET', key_of('endpoint', endpoint), 'name', 'window', 'hinted_until', 'pause', 'stopped', 'tat', 'seen',
    'failures', 'pause_ms', 'p95', 'down_since', 'waiting')
  local workspace = h[1] and string.match(h[1], '^%S+')
  local limits = workspace and workspace_of(workspace) or { max = tonumber(ARGV[2]), rate = 0 }
  local hinted_until = tonumber(h[3] or 0)
  if hinted_until > now + MAX_HINT_MS then hinted_until = 0 end -- Redis's clock went back
  return {
    id = endpoint, name = h[1] or '', workspace = workspace, revision = limits.revision or '', max = limits.max,
    rate = limits.rate, window = math.min(tonumber(h[2] or START_WINDOW), limits.max), hinted_until = hinted_until,
    pause = tonumber(h[4] or 0), stopped = h[5] ~= false, tat = tonumber(h[6] or 0), seen = tonumber(h[7] or 0),
    failures = tonumber(h[8] or 0), pause_ms = tonumber(h[9] or 0), p95 = tonumber(h[10]),
    down_since = tonumber(h[11] or 0), waiting = tonumber(h[12] or 0),
    leased = redis.call('ZCARD', key_of('leased', endpoint)),
  }
end

-- When the next token is there, and how many are there now (a bucket of a tenth of a second; GCRA: `tat` is
-- when the bucket would be empty).
local function look_at_rate(s)
  s.tokens, s.token_at = 1000000, 0
  if s.rate <= 0 then return end
  s.interval = 1000 / s.rate
  local depth = math.max(1, math.floor(s.rate * BUCKET_SECONDS)) * s.interval
  s.tat = math.max(s.tat, now)
  s.tokens = math.floor((now - s.tat + depth) / s.interval + 0.01) -- what a sum of fractions lacks is no missing token
  s.token_at = s.tokens > 0 and now or math.max(now + 1, math.ceil(s.tat + s.interval - depth))
end

-- Ready: something is due, the window has room, no pause holds, and a token is there.
local function look(s)
  look_at_rate(s)
  s.room = s.window - s.leased
  local first = s.lane_is_empty and {} or redis.call('ZRANGE', key_of('lane', s.id), '0', '0', 'WITHSCORES')
  s.from = first[2] and math.max(tonumber(first[2]), s.pause, s.token_at)
  local open = first[2] and s.room > 0 and not s.stopped and math.max(tonumber(first[2]), s.pause) <= now
  s.ready = open and s.token_at <= now
  s.short_of_token = open and not s.ready
  return s
end

local function set_hinted(s, at)
  if s.hinted_until == at then return end
  s.hinted_until = at
  if at == 0 then
    redis.call('HDEL', key_of('endpoint', s.id), 'hinted_until')
  else
    redis.call('HSET', key_of('endpoint', s.id), 'hinted_until', int(at))
  end
end

-- Whoever finds an endpoint ready and not hinted lately hints it; true if this caller has to.
local function take_hint(s, hint_ms)
  if not s.ready or s.hinted_until > now then return false end
  set_hinted(s, now + hint_ms)
  return true
end

-- The invariant: what has something in its lane or leased is in its workspace's schedule, unless the operator stopped it;
-- and a workspace is in `schedule` while its own has something, by when it is to be looked at next. So wake can go round
-- by workspace: one with many endpoints that are due holds up its own.
local NOBODY = '*' -- where no name is known any more
local function unschedule(workspace, endpoint)
  if redis.call('ZREM', key_of('schedule', workspace), endpoint) == 0 then return end
  if redis.call('EXISTS', key_of('schedule', workspace)) == 0 then redis.call('ZREM', key_of('schedule'), workspace) end
end

local function reschedule(s)
  local workspace = s.workspace or NOBODY
  local at = s.leased > 0 and (s.lease_end or tonumber(redis.call('ZRANGE', key_of('leased', s.id), '0', '0', 'WITHSCORES')[2]))
  if s.from and s.room > 0 and not s.stopped then
    local from = s.short_of_token and math.min(s.from, now + LOOK_AGAIN_MS) or s.from -- the rate may change meanwhile
    local open = math.max(from, s.hinted_until)
    at = at and math.min(at, open) or open
  end
  if not at then return unschedule(workspace, s.id) end
  redis.call('ZADD', key_of('schedule', workspace), int(at), s.id)
  redis.call('ZADD', key_of('schedule'), 'LT', int(math.max(at, now)), workspace) -- not before those that wait for longer
end
