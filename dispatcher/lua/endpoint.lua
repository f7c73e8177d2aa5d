-- What an endpoint is doing, and when it next needs attention. ARGV[2] is the default max_concurrency.
local START_WINDOW = 2

local function max_concurrency(workspace)
  local own = workspace and redis.call('HGET', workspace_key(workspace), 'max_concurrency')
  return tonumber(own or ARGV[2])
end

-- Ready: something is due and the window has room. A pause or a rate would raise `from`.
local function look(endpoint)
  local h = redis.call('HMGET', endpoint_key(endpoint), 'name', 'window', 'hinted_until')
  local workspace = h[1] and string.match(h[1], '^%S+')
  local s = { name = h[1] or '', workspace = workspace, hinted_until = tonumber(h[3] or 0) }
  s.max = max_concurrency(workspace)
  s.window = math.min(tonumber(h[2] or START_WINDOW), s.max)
  s.room = s.window - redis.call('ZCARD', leased_key(endpoint))
  local first = redis.call('ZRANGE', lane_key(endpoint), 0, 0, 'WITHSCORES')
  s.from = first[2] and tonumber(first[2])
  s.ready = s.from ~= nil and s.room > 0 and s.from <= now
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

-- The invariant: what has something in its lane or leased is in `schedule`.
local function reschedule(endpoint, s)
  local first = redis.call('ZRANGE', leased_key(endpoint), 0, 0, 'WITHSCORES')
  local at = first[2] and tonumber(first[2])
  if s.from and s.room > 0 then
    local open = math.max(s.from, s.hinted_until)
    at = at and math.min(at, open) or open
  end
  if at then
    redis.call('ZADD', SCHEDULE, at, endpoint)
  else
    redis.call('ZREM', SCHEDULE, endpoint)
  end
end
