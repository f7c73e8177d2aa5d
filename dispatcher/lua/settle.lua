-- settle: records what became of claimed callbacks of one endpoint.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] endpoint
-- ARGV[5] how long a hint holds, ms
-- ARGV[6] how long a delivered body is kept, ms (0 = not at all; so it is while Redis is full)
-- then for each: eventId, claim number, delivered|failed|expired|retry|lost|released, delay (ms),
--   record of the attempt ('' = none was made), first bytes of the answer, window: grow|shrink|keep
-- returns {'settled', now, 'more'|'rest', {ok|stale, ...}}; 'more': the endpoint is ready, claim or hint
--   stale: the lease is another worker's or gone; nothing was recorded
-- A callback that would be due at its expiry or later ends `expired`. Works when Redis is full.
-- include keys
-- include clock
-- include counts
-- include endpoint
-- include ending
redis.call('DEL', P .. 'never')
local endpoint, leased = ARGV[4], leased_key(ARGV[4])
local s = look(endpoint)
local window = s.window
local body_ms = redis.call('EXISTS', FULL) == 1 and 0 or tonumber(ARGV[6])
local ENDS = { delivered = body_ms, failed = false, expired = false }

-- Puts a callback back into the lane; after its first recorded attempt it no longer holds up its chain.
local function put_back(key, id, uuid, word, delay, attempts)
  redis.call('HSET', key, 'state', attempts > 0 and 'retrying' or 'pending')
  redis.call('ZADD', lane_key(endpoint), now + delay, id)
  if word == 'retry' then leave_chain(endpoint, uuid, id) end
end

local function settle(id, claim, word, delay, record, answer)
  local key = event_key(s.workspace, id)
  local h = redis.call('HMGET', key, 'claims', 'attempts', 'message', 'expires')
  if h[1] ~= claim or not redis.call('ZSCORE', leased, id) then return 'stale' end
  redis.call('ZREM', leased, id)
  local attempts = tonumber(h[2] or 0)
  if record ~= '' then
    attempts = attempts + 1
    redis.call('HSET', key, 'attempts', attempts, 'a' .. attempts, record)
  end
  if answer ~= '' then redis.call('SET', answer_key(s.workspace, id), answer) end
  if ENDS[word] == nil and now + delay >= tonumber(h[4]) then word = 'expired' end
  if ENDS[word] ~= nil then
    finish(s.workspace, id, endpoint, h[3], word, ENDS[word] or nil)
  else
    put_back(key, id, h[3], word, tonumber(delay), attempts)
  end
  return 'ok'
end

local words = {}
for i = 7, #ARGV, 7 do
  local word = s.workspace and settle(unpack(ARGV, i, i + 5)) or 'stale'
  words[#words + 1] = word
  if word == 'ok' and ARGV[i + 6] == 'grow' then window = math.min(window + 1, s.max) end
  if word == 'ok' and ARGV[i + 6] == 'shrink' then window = math.max(math.floor(window / 2), 1) end
end
if window ~= s.window then redis.call('HSET', endpoint_key(endpoint), 'window', window) end

s = look(endpoint)
local more = take_hint(endpoint, s, ARGV[5])
reschedule(endpoint, s)
write_counts()
return { 'settled', now, more and 'more' or 'rest', words }
