-- What attempts say about their endpoint: window, breaker, duration, last failure.

local FIRST_PAUSE_MS, MAX_PAUSE_MS, FAILURES -- texts, set by settle from its arguments

-- A time of an endpoint's record: Redis's clock may have gone back.
local function time_in(ms) return ms and number_in(ms, 0, now + HOUR, 0) or 0 end

-- An endpoint with what is known of its attempts, for a caller that counts its leases itself.
local function load_learned(endpoint_id)
  local endpoint, h =
    load_endpoint(endpoint_id, 'all', 'failures', 'pause_ms', 'down_since', 'failing', 'gone', 'p95')
  endpoint.failures, endpoint.pause_ms = number_in(h[9], 0, 1e15, 0), number_in(h[10], 0, 1e12, 0)
  endpoint.down_since, endpoint.failing, endpoint.gone = time_in(h[11]), time_in(h[12]), time_in(h[13])
  endpoint.p95 = number_in(tonumber(h[14]), 0, 1e9, nil)
  endpoint.breaker = 'same'
  return endpoint
end

-- Pauses the endpoint for `length_ms`, or for Retry-After (`retry_after_ms`) if that is longer.
local function open_breaker(endpoint, length_ms, retry_after_ms)
  endpoint.pause_ms = math.min(length_ms, MAX_PAUSE_MS + 0)
  endpoint.pause, endpoint.breaker = now + math.max(endpoint.pause_ms, retry_after_ms), 'opened'
  if endpoint.down_since == 0 then endpoint.down_since = now end
end

-- Learns from one attempt. During a pause, only the probe ends or extends it.
local function learn(endpoint, health, retry_after_ms, is_probe)
  if health == 'up' then endpoint.window = math.min(endpoint.window + 1, endpoint.max) end
  if health == 'down' then endpoint.window = math.max(math.floor(endpoint.window / 2), 1) end
  if health == 'up' or health == 'answered' then
    endpoint.failures = 0
    if is_probe then
      if endpoint.down_since > 0 then endpoint.breaker = 'closed' end -- else a Retry-After paused it
      endpoint.pause, endpoint.pause_ms, endpoint.down_since = 0, 0, 0
    end
  elseif health == 'none' then
    if is_probe then endpoint.pause = now end
  elseif is_probe or endpoint.pause == 0 then
    endpoint.failures = endpoint.failures + 1
    if is_probe and endpoint.pause_ms > 0 then
      open_breaker(endpoint, endpoint.pause_ms * 2, retry_after_ms)
    elseif endpoint.failures >= FAILURES + 0 then
      open_breaker(endpoint, FIRST_PAUSE_MS + 0, retry_after_ms)
    else
      endpoint.pause = retry_after_ms > 0 and now + retry_after_ms or 0
    end
  end
end

-- Estimates the duration that 95 of 100 attempts stay below: an attempt that took longer raises it by 19 %,
-- any other lowers it by 1 %. Forgets what lies some 100 attempts back.
local function follow_duration(endpoint, attempt)
  local took = tonumber(string.match(attempt, '^%d+'))
  if not took then return end
  local p95 = endpoint.p95
  endpoint.p95 = p95 and math.max(p95 * (took > p95 and 1.19 or 0.99), 0.5) or took
end

-- Notes why the endpoint's last attempt failed, for display: when, the error, 1 if an answer was kept,
-- eventId. A worker's death says nothing about the endpoint.
local function note_failure(endpoint, id, attempt, answer)
  local error_word = string.match(attempt, '^%d+ %S+ (%S+)$')
  if not error_word or error_word == 'worker_lost' then return end
  endpoint.last_failure = table.concat({ NOW, error_word, answer ~= '' and '1' or '0', id }, ' ')
end

-- Since when every attempt failed, and since when every one was answered 410: is the receiver gone for good?
-- What says nothing about the endpoint changes nothing, nor what our own proxy does, nor proof that we could
-- not send.
local function follow_failing(endpoint, health, attempt)
  if health == 'up' then
    endpoint.failing, endpoint.gone = 0, 0
  elseif health ~= 'none' and not string.find(attempt, ' proxy$') and not string.find(attempt, ' auth$') then
    local function since(ms) return ms > 0 and ms or now end
    endpoint.failing = since(endpoint.failing)
    endpoint.gone = string.find(attempt, '^%d+ 410 ') and since(endpoint.gone) or 0
  end
end

local LEARNED = { 'window', 'failures', 'pause', 'pause_ms', 'down_since', 'failing', 'gone' }
local function learned_of(endpoint)
  return {
    window = endpoint.window, failures = endpoint.failures, pause = endpoint.pause,
    pause_ms = endpoint.pause_ms, down_since = endpoint.down_since, failing = endpoint.failing,
    gone = endpoint.gone,
  }
end

-- Has a new pause end when no lease does: by its lease, which ends with the pause, the probe is told from
-- callbacks that were claimed before it.
local function keep_apart(endpoint, before)
  if endpoint.pause <= now or endpoint.pause == before.pause then return end
  while redis.call('ZCOUNT', endpoint.leased_key, int(endpoint.pause), int(endpoint.pause)) > 0 do
    endpoint.pause = endpoint.pause + 1
  end
end

-- Writes what was learned about an endpoint since `before`.
local function write_learned(endpoint, before)
  keep_apart(endpoint, before)
  local fields = endpoint.p95 and { 'p95', string.format('%.1f', endpoint.p95) } or {}
  local ended = take_waiting(endpoint.id)
  if ended ~= 0 then
    endpoint.waiting = endpoint.waiting + ended
    fields[#fields + 1], fields[#fields + 2] = 'waiting', int(endpoint.waiting)
  end
  if endpoint.last_failure then
    fields[#fields + 1], fields[#fields + 2] = 'last_failure', endpoint.last_failure
  end
  for i = 1, #LEARNED do
    local name = LEARNED[i]
    if endpoint[name] ~= before[name] then
      fields[#fields + 1], fields[#fields + 2] = name, int(endpoint[name])
    end
  end
  if #fields > 0 then redis.call('HSET', endpoint.record_key, unpack(fields)) end
  if endpoint.breaker ~= 'same' then count(endpoint.breaker, endpoint.workspace, endpoint.id) end
end
