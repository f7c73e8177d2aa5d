-- settle: records what became of claimed callbacks of one endpoint.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] endpoint
-- ARGV[5] how long a hint holds, ms
-- ARGV[6] how long a delivered body is kept, ms (0 = not at all; so it is while Redis is full)
-- ARGV[7] failures in a row after which the endpoint pauses
-- ARGV[8] first pause, ms; doubles with each probe that fails
-- ARGV[9] longest pause, ms
-- ARGV[10] most callbacks to give to the caller at once, as claim does, if the endpoint is ready and nobody was hinted
-- ARGV[11] lease of those, ms
-- then for each: eventId, claim number, delivered|failed|expired|retry|lost|suspect|released, delay (ms),
--   record of the attempt ('' = none was made), first bytes of the answer,
--   news of the endpoint: up|answered|down|none, how long it asks to be left alone (Retry-After, ms; 0 = it does not)
-- returns {'settled', now, 'more'|'rest', {ok|stale, ...}, same|opened|closed, end of pause,
--   since when it does not answer (ms since 1970; 0: it does), ends, claimed}
--   claimed: what claim returns for an endpoint; empty if nothing was given
--   'more': the endpoint is ready, claim or hint; stale: the lease is another worker's or gone; nothing was recorded
--   lost: its worker died; suspect: not for the first time, so claim gives it alone
-- A callback that would be due at its expiry or later ends `expired`; one that would wait behind a newer one of its
-- message, in the order `latest`, ends `superseded`. Works when Redis is full.
-- include keys
-- include clock
-- include counts
-- include endpoint
-- include ending
-- include claiming
redis.call('DEL', P .. 'never')
local endpoint, leased = ARGV[4], leased_key(ARGV[4])
local s = load(endpoint)
local window = s.window
local body_ms = redis.call('EXISTS', FULL) == 1 and 0 or tonumber(ARGV[6])
local ENDS = { delivered = body_ms, failed = false, expired = false, superseded = false }

-- Puts a callback back into the lane; after its first recorded attempt it no longer holds up its chain,
-- unless the order is `strict` or `latest`.
local function put_back(key, id, uuid, delay, attempts, fields, leaves)
  if leaves then
    fields[#fields + 1] = 'left'
    fields[#fields + 1] = 1
  end
  redis.call('HSET', key, 'state', attempts > 0 and 'retrying' or 'pending', unpack(fields))
  redis.call('ZADD', lane_key(endpoint), now + delay, id)
  if leaves then leave_chain(endpoint, uuid, id) end
end

-- For `latest`: whether a newer one of its message was accepted meanwhile.
local function is_superseded(stamp, uuid)
  local newest = stamp and redis.call('GET', newest_key(endpoint, uuid))
  return newest and stamp < newest
end

local function settle(id, claim, word, delay, record, answer)
  local key = event_key(s.workspace, id)
  local h = redis.call('HMGET', key, 'claims', 'attempts', 'message', 'expires', 'stamp', 'strict', 'accepted', 'base')
  if h[1] ~= claim or redis.call('ZREM', leased, id) == 0 then return 'stale' end
  s.leased = s.leased - 1
  local attempts, fields = tonumber(h[2] or 0), {}
  if record ~= '' then
    attempts = attempts + 1
    fields = { 'attempts', attempts, 'a' .. attempts, record }
  end
  if word == 'suspect' then
    fields[#fields + 1] = 'suspect'
    fields[#fields + 1] = 1
  end
  if answer ~= '' then redis.call('SET', answer_key(s.workspace, id), answer) end
  if ENDS[word] == nil and now + delay >= tonumber(h[4]) then word = 'expired' end
  if ENDS[word] == nil and is_superseded(h[5], h[3]) then word = 'superseded' end
  if word == 'delivered' and h[7] and not h[8] then count_duration(s.workspace, now - h[7]) end
  if ENDS[word] ~= nil then
    finish(s.workspace, id, endpoint, h[3], word, fields, ENDS[word] or nil, answer ~= '' or attempts > 1 or record == '')
  else
    put_back(key, id, h[3], tonumber(delay), attempts, fields, word == 'retry' and not h[5] and not h[6])
  end
  return 'ok'
end

-- The breaker. Only the probe (its lease's end is the pause's end) ends a pause or makes it longer.
local failures, pause, pause_ms, p95, down_since, change = s.failures, s.pause, s.pause_ms, s.p95, s.down_since, 'same'

local function open(length, pace)
  pause_ms = math.min(length, tonumber(ARGV[9]))
  pause, change = now + math.max(pause_ms, pace), 'opened'
  if down_since == 0 then down_since = now end
end

-- The duration that 95 of 100 attempts stay below, followed in steps: up by 19 % where one took longer, down by 1 %
-- where it did not. Forgets what lies some 100 attempts back.
local function time(record)
  local took = tonumber(string.match(record, '^%d+ (%d+)'))
  if took then p95 = p95 and math.max(p95 * (took > p95 and 1.19 or 0.99), 0.5) or took end
end

local function learn(news, pace, probe)
  if news == 'up' then window = math.min(window + 1, s.max) end
  if news == 'down' then window = math.max(math.floor(window / 2), 1) end
  if news == 'up' or news == 'answered' then
    failures = 0
    if probe then pause, pause_ms, down_since, change = 0, 0, 0, 'closed' end
  elseif news == 'none' then
    if probe then pause = now end
  elseif probe then
    failures = failures + 1
    open(pause_ms > 0 and pause_ms * 2 or tonumber(ARGV[8]), pace)
  elseif pause == 0 then
    failures = failures + 1
    if failures >= tonumber(ARGV[7]) then
      open(tonumber(ARGV[8]), pace)
    elseif pace > 0 then
      pause = now + pace
    end
  end
end

local words = {}
for i = 12, #ARGV, 8 do
  local lease_end = pause > 0 and tonumber(redis.call('ZSCORE', leased, ARGV[i]) or 0)
  local word = s.workspace and settle(unpack(ARGV, i, i + 5)) or 'stale'
  words[#words + 1] = word
  if word == 'ok' then
    learn(ARGV[i + 6], tonumber(ARGV[i + 7]), pause > 0 and lease_end == pause)
    time(ARGV[i + 4])
  end
end
local fields = p95 and { 'p95', string.format('%.1f', p95) } or {}
local function set(name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end
if window ~= s.window then set('window', window) end
if failures ~= s.failures then set('failures', failures) end
if pause ~= s.pause then set('pause', pause) end
if pause_ms ~= s.pause_ms then set('pause_ms', pause_ms) end
if down_since ~= s.down_since then set('down_since', down_since) end
if #fields > 0 and s.workspace then redis.call('HSET', endpoint_key(endpoint), unpack(fields)) end
s.window, s.pause = window, pause
if change ~= 'same' then count(change, s.workspace, endpoint) end

local more, claimed, wanted = false, {}, tonumber(ARGV[10])
look(s)
if wanted > 0 and s.ready and s.hinted_until <= now then
  claimed = claim(s, wanted, tonumber(ARGV[11]), ARGV[5], {})
else
  more = take_hint(s, ARGV[5])
  reschedule(s)
end
write_counts()
return { 'settled', now, more and 'more' or 'rest', words, change, pause, down_since, ends, claimed }
