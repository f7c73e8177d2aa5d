-- settle: records what became of claimed callbacks, of several endpoints at once.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   hint_ms: how long a hint holds
--   delivered_body_ms: how long a delivered body is kept (0 = not at all, as while Redis is full)
--   breaker_failures: failures in a row after which an endpoint pauses
--   first_pause_ms: the first pause; doubles with each probe that fails
--   max_pause_ms: the longest pause
--   lease_ms: how long the caller has what is claimed
--   for each endpoint: endpoint_id wanted number
--     wanted: most callbacks to give to the caller at once, as claim does, if it is ready and no hint holds
--     number: how many of its callbacks follow
--   then for each callback: id claim_number outcome delay_ms started attempt answer health retry_after_ms
--     outcome: delivered|failed|expired|retry|lost|suspect|released (lib/outcome.lua)
--     started: when the attempt was started, ms since 1970 ('' = none was made)
--     attempt: the rest of its record; answer: first bytes of the answer
--     health: what it says about the endpoint: up|answered|down|none
--     retry_after_ms: how long the endpoint asks to be left alone (0 = it does not ask)
-- returns {'settled', now, for each endpoint:
--   `more|rest|claimed same|opened|closed pause down ok|known|stale ...`
--   and, if claimed, what was given (lib/lease.lua) ...; or `broken problem`; ends (lib/ending.lua) ...}
--   more: the endpoint is ready, claim or hint it; pause: when its pause ends; down: since when it is down
--   (both ms since 1970; 0: it is not), and where the last attempt failed `/failing/gone`: since when every
--   one did, and since when every one was answered 410 (0: the last was not); known: this very attempt was
--   recorded before, by a call whose reply was lost; stale: the lease is another worker's or gone; nothing
--   was recorded
-- A callback whose next attempt would be due at its expiry or later ends `expired`. In the order `latest`,
-- one that would wait behind a newer one of its message ends `superseded`. Works when Redis is full.
-- include prologue
-- include guard
-- include counts
-- include endpoint
-- include schedule
-- include entry
-- include chain
-- include archives
-- include ending
-- include lease
-- include claiming
-- include outcome
-- include breaker
redis.call('DEL', PREFIX .. 'never')
local hint_ms, delivered_body_ms, breaker_failures, first_pause_ms, max_pause_ms, lease_ms = take(6)
DELIVERED_BODY_MS = delivered_body_ms
FAILURES, FIRST_PAUSE_MS, MAX_PAUSE_MS = breaker_failures, first_pause_ms, max_pause_ms -- few runs use them

-- Adds a word for each callback of one endpoint, and the ids of those that were recorded.
local function settle_each(endpoint, callbacks, entries, words, done)
  for id, claim_number, outcome, delay_ms, started, attempt, answer, health, retry_after_ms in callbacks do
    local entry = entries[id]
    local is_probe = entry and endpoint.pause > 0 and entry.lease_end == endpoint.pause
    local word = settle_one(endpoint, id, entry, claim_number, outcome, delay_ms, started, attempt, answer)
    words[#words + 1] = word
    if word == 'ok' then
      entries[id] = nil -- if it is there twice, the other one is stale
      done[#done + 1] = id
      learn(endpoint, health, retry_after_ms + 0, is_probe)
      follow_failing(endpoint, health, attempt)
      follow_duration(endpoint, attempt)
      if outcome ~= 'delivered' then note_failure(endpoint, id, attempt, answer) end
    end
  end
end

-- Returns a word for each callback of one endpoint. The probe's lease ends when the pause does.
local function settle_callbacks(endpoint, number)
  local words, before, ids, done = {}, learned_of(endpoint), {}, {}
  local callbacks = each(9, number)
  for id in callbacks do ids[#ids + 1] = id end
  if not endpoint.workspace or #ids == 0 then
    for i = 1, number do words[i] = 'stale' end
    return words
  end
  local ok, found = pcall(settle_each, endpoint, callbacks, read_claimed(endpoint, ids), words, done)
  leave_expiries() -- those that were settled before an error are done: their settle is not repeated
  if #done > 0 then -- last
    redis.call('ZREM', endpoint.leased_key, unpack(done))
  end
  write_learned(endpoint, before)
  if not ok then error(found, 0) end
  return words
end

-- Whether it has more. Where none waits by the record, one command makes sure.
local function look_for_more(endpoint)
  local leased, lane = endpoint.leased_key, key_of('lane', endpoint.id)
  endpoint.lane_is_empty = endpoint.waiting <= 0 and redis.call('EXISTS', leased, lane) == 0
  if not endpoint.lane_is_empty then endpoint.leased = redis.call('ZCARD', leased) end
end

local function settle_endpoint(reply, endpoint_id, wanted, number)
  local endpoint = load_learned(endpoint_id)
  local words = settle_callbacks(endpoint, number)
  look_for_more(endpoint)
  local down = int(endpoint.down_since)
  if endpoint.failing > 0 then down = down .. '/' .. int(endpoint.failing) .. '/' .. int(endpoint.gone) end
  local what = endpoint.breaker .. ' ' .. int(endpoint.pause) .. ' ' .. down
  if #words > 0 then what = what .. ' ' .. table.concat(words, ' ') end
  assess(endpoint)
  if wanted > 0 and endpoint.ready and endpoint.hinted_until <= now then
    reply[#reply + 1] = 'claimed ' .. what
    claim(reply, endpoint, wanted, tonumber(lease_ms), hint_ms)
  else
    reply[#reply + 1] = (take_hint(endpoint, hint_ms) and 'more ' or 'rest ') .. what
    reschedule_after_ends(endpoint)
  end
end

local reply = { 'settled', now }
while has_more() do
  local endpoint_id, wanted, number = take(3)
  number = number + 0 -- parsed once
  local length, next_endpoint = #reply, arguments_taken + 9 * number
  local ok, found = pcall(settle_endpoint, reply, endpoint_id, wanted + 0, number)
  if not ok then -- the other endpoints are settled nevertheless
    while #reply > length do reply[#reply] = nil end
    reply[length + 1] = 'broken ' .. error_of(found)
    arguments_taken = next_endpoint
  end
end
return conclude(reply)
