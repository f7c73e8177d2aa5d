-- What an endpoint is doing, and when it next needs attention. ARGV[2] is the default max_concurrency.
local START_WINDOW, BUCKET_SECONDS = 2, 0.1

local function limits(workspace)
  local own = workspace and redis.call('HMGET', workspace_key(workspace), 'max_concurrency', 'rate_per_second') or {}
  return tonumber(own[1] or ARGV[2]), tonumber(own[2] or 0)
end

-- When the next token is there, and how many are there now (a bucket of a tenth of a second; GCRA: `tat` is
-- when the bucket would be empty).
local function look_at_rate(s, rate, tat)
  s.tokens, s.token_at = 1000000, 0
  if rate <= 0 then return end
  s.interval = 1000 / rate
  local depth = math.max(1, math.floor(rate * BUCKET_SECONDS)) * s.interval
  s.tat = math.max(tat, now)
  s.token_at = math.ceil(s.tat + s.interval - depth)
  s.tokens = math.floor((now + depth - s.tat) / s.interval)
end

-- Ready: something is due, the window has room, no pause holds, and a token is there.
local function look(endpoint)
  local h = redis.call('HMGET', endpoint_key(endpoint), 'name', 'window', 'hinted_until', 'pause', 'stopped', 'tat')
  local workspace = h[1] and string.match(h[1], '^%S+')
  local s = { name = h[1] or '', workspace = workspace, hinted_until = tonumber(h[3] or 0) }
  local max, rate = limits(workspace)
  s.max, s.window = max, math.min(tonumber(h[2] or START_WINDOW), max)
  s.pause, s.stopped = tonumber(h[4] or 0), h[5] ~= false
  look_at_rate(s, rate, tonumber(h[6] or 0))
  s.room = s.window - redis.call('ZCARD', leased_key(endpoint))
  local first = redis.call('ZRANGE', lane_key(endpoint), 0, 0, 'WITHSCORES')
  s.from = first[2] and math.max(tonumber(first[2]), s.pause, s.token_at)
  local open = first[2] and s.room > 0 and not s.stopped and math.max(tonumber(first[2]), s.pause) <= now
  s.ready = open and s.token_at <= now
  s.short_of_token = open and not s.ready
  return s
end

local function set_hinted(endpoint, s, at)
  if s.hinted_until == at then return end
  s.hinted_until = at
  if at == 0 then
    redis.call('HDEL', endpoint_key(endpoint), 'hinted_until')
  else
    redis.call('HSET', endpoint_key(endpoint), 'hinted_until', at)
  end
end

-- Whoever finds an endpoint ready and not hinted lately hints it; true if this caller has to.
local function take_hint(endpoint, s, hint_ms)
  if not s.ready or s.hinted_until > now then return false end
  set_hinted(endpoint, s, now + hint_ms)
  return true
end

-- The invariant: what has something in its lane or leased is in `schedule`, unless the operator stopped it.
local function reschedule(endpoint, s)
  local first = redis.call('ZRANGE', leased_key(endpoint), 0, 0, 'WITHSCORES')
  local at = first[2] and tonumber(first[2])
  if s.from and s.room > 0 and not s.stopped then
    local open = math.max(s.from, s.hinted_until)
    at = at and math.min(at, open) or open
  end
  if at then
    redis.call('ZADD', SCHEDULE, at, endpoint)
  else
    redis.call('ZREM', SCHEDULE, endpoint)
  end
end
