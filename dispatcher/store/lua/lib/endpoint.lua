-- What an endpoint is doing. In all scripts `endpoint` is a table with these fields, `endpoint_id` the id
-- alone:
--   as read by `load_endpoint`, from its record (a hash) and its workspace's
--     id                 the 12 characters that stand in keys
--     record_key, leased_key  the keys of its record and of its leases
--     name               `workspace origin`, or `workspace.subscription origin`; '' where the record is gone
--     workspace          nil where the record is gone
--     revision           of the workspace; '' where it is gone
--     ordering, max, rate  the subscription's ordering, max_concurrency and rate_per_second (0: no limit)
--     window             how many callbacks may be leased
--     leased, waiting    how many are leased; how many have not ended, leased ones included
--     hinted_until       no hint is given before (ms since 1970; 0: there was none)
--     is_kept            true: the operator stopped it (`endpoint stop`), and its record has no time to live
--     stopped            true: that, or its subscription is paused
--     held               true: its record has it that its subscription is paused (lib/schedule.lua)
--     pause              end of its pause by the breaker or a Retry-After (ms since 1970; 0: none)
--     tat                when the bucket of tokens would be empty (GCRA), ms since 1970
--   as computed by `assess`
--     tokens, token_at   how many tokens it has now; when the next one comes
--     interval           ms from one token to the next; nil: no limit
--     room               how many more callbacks its window allows
--     due_at             when the first of its lane may go, window aside; nil or false: its lane is empty
--     ready              something is due, the window has room, no pause holds, it is not stopped, and a
--                        token is there
--     short_of_token     only the token is missing
--   while callbacks are given to a worker (lib/claiming.lua)
--     given, handed      their eventIds; what the worker gets for them, two values each
--     leased_of_given    how many of those have their lease
--     lease_end          when the first lease ends, if that is known
--     new_lease_end      when the leases of this run end
--     alone              a suspect is there, which is given alone
--   in accept (lib/batch.lua)
--     added, lane        how many callbacks were accepted; what is still to be written to its lane
--     counted            how many of those its record counts as waiting
--   in accept and settle
--     lane_is_empty      nothing is in its lane, or still to be written to it
--   in settle (lib/breaker.lua)
--     pause_ms           length of the breaker's last pause
--     failures           in a row
--     down_since         ms since 1970; 0: it is not down
--     failing, gone      since when every attempt failed; was answered 410 (ms since 1970; 0: not the last)
--     p95                duration that 95 of 100 attempts stay below, ms; nil: not known
--     breaker            what became of the breaker: same, opened or closed
--     last_failure       the field of the record, if an attempt failed

-- A workspace's revision and limits, or those of a subscription: `of` is `workspace`, or
-- `workspace.subscription`, whose fields have its name after a colon. Read once a script.
-- Of a workspace in several partitions each has its share of the limits.
local workspaces = {}
local function workspace_of(of)
  if not workspaces[of] then
    local id, name, dot = of, '', string.find(of, '.', 1, true)
    if dot then id, name = string.sub(of, 1, dot - 1), ':' .. string.sub(of, dot + 1) end
    local h = redis.call('HMGET', key_of('workspace', id), 'revision', 'ordering' .. name,
      'max_concurrency' .. name, 'rate_per_second' .. name, 'state' .. name, 'width')
    local width = number_in(h[6], 1, 1000000, 1)
    workspaces[of] = {
      id = id, revision = h[1], ordering = h[2] or 'first_attempt', width = width,
      max = math.ceil(number_in(h[3], 1, 1000000, MAX_CONCURRENCY) / width),
      rate = number_in(h[4], 0, 1000000, 0) / width,
      is_paused = h[5] == 'paused',
    }
  end
  return workspaces[of]
end

-- `skips`: whose leases are not counted: those of `idle` endpoints, where nothing waits by the record; or of
-- `all`, for a caller that counts them itself.
-- `...`: more fields to read. Returns the endpoint, and the fields of its record; those of `...` begin at 9.
local function load_endpoint(endpoint_id, skips, ...)
  local START_WINDOW, MAX_HINT_MS, LARGE = 2, 60000, 1e15
  local record_key, leased_key = key_of('endpoint', endpoint_id), key_of('leased', endpoint_id)
  local h = redis.call('HMGET', record_key, 'name', 'window', 'hinted_until', 'pause',
    'stopped', 'tat', 'waiting', 'held', ...)
  local of = h[1] and string.match(h[1], '^%S+')
  local limits = of and workspace_of(of) or { max = MAX_CONCURRENCY, rate = 0 }
  return {
    id = endpoint_id, name = h[1] or '', workspace = limits.id, revision = limits.revision or '',
    ordering = limits.ordering, max = limits.max, rate = limits.rate,
    window = math.min(number_in(h[2], 1, LARGE, START_WINDOW), limits.max),
    hinted_until = number_in(h[3], 0, now + MAX_HINT_MS, 0), -- later ones: Redis's clock went back
    pause = number_in(h[4], 0, latest_time, 0), is_kept = h[5] ~= false,
    stopped = h[5] ~= false or limits.is_paused or false, tat = number_in(h[6], 0, math.huge, 0),
    waiting = number_in(h[7], -LARGE, LARGE, 0), held = h[8] ~= false, lane_is_empty = false,
    leased = (skips == 'all' or skips == 'idle' and h[7] == '0') and 0
      or redis.call('ZCARD', leased_key),
    record_key = record_key, leased_key = leased_key,
  }, h
end

-- How many tokens there are now, and when the next one comes (the bucket holds those of a tenth of a second).
local function assess_rate(endpoint)
  endpoint.tokens, endpoint.token_at = 1000000, 0
  if endpoint.rate <= 0 then return end
  local BUCKET_SECONDS = 0.1
  local interval = 1000 / endpoint.rate
  local depth = math.max(1, math.floor(endpoint.rate * BUCKET_SECONDS)) * interval
  endpoint.interval, endpoint.tat = interval, math.max(endpoint.tat, now)
  if endpoint.tat > now + depth + interval then -- the rate was raised
    endpoint.tat = now + depth
    redis.call('HSET', endpoint.record_key, 'tat', string.format('%.3f', endpoint.tat))
  end
  -- the 0.01 keeps rounding errors from costing a token
  endpoint.tokens = math.floor((now - endpoint.tat + depth) / interval + 0.01)
  endpoint.token_at = endpoint.tokens > 0 and now
    or math.max(now + 1, math.ceil(endpoint.tat + interval - depth))
end

local function assess(endpoint)
  assess_rate(endpoint)
  endpoint.room = endpoint.window - endpoint.leased
  local first = not endpoint.lane_is_empty
    and tonumber(redis.call('ZRANGE', key_of('lane', endpoint.id), '0', '0', 'WITHSCORES')[2])
  endpoint.due_at = first and math.max(first, endpoint.pause, endpoint.token_at)
  local is_due = first and math.max(first, endpoint.pause) <= now
  local is_open = is_due and endpoint.room > 0 and not endpoint.stopped
  endpoint.ready = is_open and endpoint.token_at <= now
  endpoint.short_of_token = is_open and not endpoint.ready
  return endpoint
end
