-- settle: records what became of claimed callbacks, of several endpoints at once.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] how long a hint holds, ms
-- ARGV[5] how long a delivered body is kept, ms (0 = not at all; so it is while Redis is full)
-- ARGV[6] failures in a row after which an endpoint pauses
-- ARGV[7] first pause, ms; doubles with each probe that fails
-- ARGV[8] longest pause, ms
-- ARGV[9] lease of what is claimed, ms
-- then for each endpoint: endpoint, most callbacks to give to the caller at once, as claim does, if it is ready and
--   nobody was hinted, and how many callbacks of it follow; then for each of them:
--   eventId, claim number, delivered|failed|expired|retry|lost|suspect|released, delay (ms),
--   when the attempt was started (ms; '' = none was made), the rest of its record, first bytes of the answer,
--   news of the endpoint: up|answered|down|none, how long it asks to be left alone (Retry-After, ms; 0 = it does not)
-- returns {'settled', now, for each endpoint: `more|rest|claimed same|opened|closed pause down ok|stale ...` and, if it was
--   claimed, what was given (claiming.lua) ...; or `broken problem`; ends ...}
--   more: the endpoint is ready, claim or hint; pause: when it ends; down: since when it does not answer (both ms since
--   1970; 0: it is not); stale: the lease is another worker's or gone; nothing was recorded
--   lost: its worker died; suspect: not for the first time, so claim gives it alone
-- A callback that would be due at its expiry or later ends `expired`; one that would wait behind a newer one of its
-- message, in the order `latest`, ends `superseded`. Works when Redis is full.
-- include keys
-- include clock
-- include guard
-- include counts
-- include endpoint
-- include entry
-- include ending
-- include claiming
redis.call('DEL', P .. 'never')
local body_ms = redis.call('EXISTS', key_of('full')) == 1 and 0 or tonumber(ARGV[5])
local ENDS = { delivered = body_ms, failed = false, expired = false, superseded = false }

-- Puts a callback back into the lane; after its first recorded attempt it no longer holds up its chain,
-- unless the order is `strict` or `latest`.
local function put_back(s, id, e, delay, leaves)
  if leaves then e.extra.left = '1' end
  e.state = e.attempts == '' and 'pending' or 'retrying'
  write_entry(s.workspace, id, e)
  redis.call('ZADD', key_of('lane', s.id), int(now + delay), id)
  if leaves then leave_chain(s.id, e.message, id) end
end

-- For `latest`: whether a newer one of its message was accepted meanwhile.
local function is_superseded(e)
  local newest = e.extra.stamp and redis.call('GET', key_of('newest', e.endpoint, e.message))
  return newest and e.extra.stamp < newest
end

-- Does the rest of what a run began that broke off: it wrote the entry, which is not `sending` any more, and the lease is
-- left, which goes last.
local function complete(s, id, e, delay, word)
  if e.ended then
    finish(s.workspace, id, e, e.state, ENDS[word] or nil)
  else
    redis.call('ZADD', key_of('lane', s.id), 'NX', int(now + delay), id)
    if e.extra.left then leave_chain(s.id, e.message, id) end
  end
end

local function record(s, id, e, word, delay, started, record, answer)
  local answered = answer ~= '' or e.attempts ~= '' or started == ''
  if started ~= '' then e.attempts = e.attempts .. '\n' .. int(started - e.accepted) .. ' ' .. record end
  if word == 'suspect' then e.extra.suspect = '1' end
  if answer ~= '' then redis.call('SET', key_of('answer', s.workspace, id), answer) end
  if ENDS[word] == nil and now + delay >= expires_of(e) then word = 'expired' end
  if ENDS[word] == nil and is_superseded(e) then word = 'superseded' end
  if word == 'delivered' and not e.extra.base then count_duration(s.workspace, now - e.accepted) end
  if ENDS[word] ~= nil then
    finish(s.workspace, id, e, word, ENDS[word] or nil, answered)
  else
    put_back(s, id, e, delay, word == 'retry' and not e.extra.stamp and not e.extra.strict)
  end
end

local function settle(s, id, claim, word, delay, started, attempt, answer)
  local e, leased = read_entry(s.workspace, id), key_of('leased', s.id)
  if not e or e.claims ~= claim then return 'stale' end
  if e.state == 'sending' then
    record(s, id, e, word, delay, started, attempt, answer)
  elseif redis.call('ZSCORE', leased, id) then
    complete(s, id, e, delay, word)
  end
  if redis.call('ZREM', leased, id) == 0 then return 'stale' end
  s.leased = s.leased - 1
  return 'ok'
end

-- The breaker. Only the probe (its lease's end is the pause's end) ends a pause or makes it longer.
local function open(s, length, pace)
  s.pause_ms = math.min(length, tonumber(ARGV[8]))
  s.pause, s.change = now + math.max(s.pause_ms, pace), 'opened'
  if s.down_since == 0 then s.down_since = now end
end

-- The duration that 95 of 100 attempts stay below, followed in steps: up by 19 % where one took longer, down by 1 %
-- where it did not. Forgets what lies some 100 attempts back.
local function time(s, record)
  local took = tonumber(string.match(record, '^%d+'))
  if took then s.p95 = s.p95 and math.max(s.p95 * (took > s.p95 and 1.19 or 0.99), 0.5) or took end
end

-- Why the endpoint's last attempt failed, for people: when, the error, 1 if an answer was kept, eventId. A worker's death says
-- nothing about the endpoint.
local function note_failure(s, id, record, answer)
  local problem = string.match(record, '^%d+ %S+ (%S+)$')
  if not problem or problem == 'worker_lost' then return end
  s.last_failure = table.concat({ NOW, problem, answer ~= '' and '1' or '0', id }, ' ')
end

local function learn(s, news, pace, probe)
  if news == 'up' then s.window = math.min(s.window + 1, s.max) end
  if news == 'down' then s.window = math.max(math.floor(s.window / 2), 1) end
  if news == 'up' or news == 'answered' then
    s.failures = 0
    if probe then s.pause, s.pause_ms, s.down_since, s.change = 0, 0, 0, 'closed' end
  elseif news == 'none' then
    if probe then s.pause = now end
  elseif probe then
    s.failures = s.failures + 1
    open(s, s.pause_ms > 0 and s.pause_ms * 2 or tonumber(ARGV[7]), pace)
  elseif s.pause == 0 then
    s.failures = s.failures + 1
    if s.failures >= tonumber(ARGV[6]) then
      open(s, tonumber(ARGV[7]), pace)
    elseif pace > 0 then
      s.pause = now + pace
    end
  end
end

-- Writes what was learned of an endpoint.
local LEARNED = { 'window', 'failures', 'pause', 'pause_ms', 'down_since' }
local function write_learned(s, before)
  local fields, ended = s.p95 and { 'p95', string.format('%.1f', s.p95) } or {}, take_waiting(s.id)
  if ended ~= 0 then
    s.waiting = s.waiting + ended
    fields[#fields + 1] = 'waiting'
    fields[#fields + 1] = int(s.waiting)
  end
  if s.last_failure then
    fields[#fields + 1] = 'last_failure'
    fields[#fields + 1] = s.last_failure
  end
  for _, name in ipairs(LEARNED) do
    if s[name] ~= before[name] then
      fields[#fields + 1] = name
      fields[#fields + 1] = int(s[name])
    end
  end
  if #fields > 0 then redis.call('HSET', key_of('endpoint', s.id), unpack(fields)) end
  if s.change ~= 'same' then count(s.change, s.workspace, s.id) end
end

local function settle_all(s, first, last)
  local words, before = {}, {}
  for _, name in ipairs(LEARNED) do before[name] = s[name] end
  for i = first, last, 9 do
    local lease_end = s.pause > 0 and tonumber(redis.call('ZSCORE', key_of('leased', s.id), ARGV[i]) or 0)
    local word = s.workspace and settle(s, unpack(ARGV, i, i + 6)) or 'stale'
    words[#words + 1] = word
    if word == 'ok' then
      learn(s, ARGV[i + 7], tonumber(ARGV[i + 8]), s.pause > 0 and lease_end == s.pause)
      time(s, ARGV[i + 5])
      if ARGV[i + 2] ~= 'delivered' then note_failure(s, ARGV[i], ARGV[i + 5], ARGV[i + 6]) end
    end
  end
  if s.workspace then write_learned(s, before) end
  return words
end

local function settle_endpoint(reply, endpoint, wanted, first, last)
  local s = load(endpoint)
  s.change = 'same'
  local words = settle_all(s, first, last)
  local what = { s.change, int(s.pause), int(s.down_since), unpack(words) }
  look(s)
  if wanted > 0 and s.ready and s.hinted_until <= now then
    reply[#reply + 1] = 'claimed ' .. table.concat(what, ' ')
    claim(reply, s, wanted, tonumber(ARGV[9]), ARGV[4])
  else
    reply[#reply + 1] = (take_hint(s, ARGV[4]) and 'more ' or 'rest ') .. table.concat(what, ' ')
    reschedule_after_ends(s)
  end
end

local reply, i = { 'settled', now }, 10
while i <= #ARGV do
  local length, last = #reply, i + 2 + 9 * ARGV[i + 2]
  local ok, problem = pcall(settle_endpoint, reply, ARGV[i], tonumber(ARGV[i + 1]), i + 3, last)
  if not ok then -- the others go on
    while #reply > length do reply[#reply] = nil end
    reply[length + 1] = 'broken ' .. tostring(type(problem) == 'table' and problem.err or problem)
    take_waiting(ARGV[i]) -- what is done again is counted then
  end
  i = last + 1
end
write_counts()
return with_ends(reply)
