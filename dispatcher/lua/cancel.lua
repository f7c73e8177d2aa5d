-- cancel: ends callbacks of one endpoint that wait, as failed. What is in a worker's hands is left alone.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] endpoint
-- then for each: eventId
-- returns {'cancelled', now, number of callbacks, ends ...}
-- Works when Redis is full.
-- include keys
-- include clock
-- include counts
-- include endpoint
-- include ending
redis.call('DEL', P .. 'never')
local endpoint, cancelled = ARGV[4], 0
local s = load(endpoint)
for i = 5, #ARGV do
  local id = ARGV[i]
  local h = redis.call('HMGET', key_of('event', s.workspace or '', id), 'endpoint', 'message', 'ended')
  if h[1] == endpoint and not h[3] and not redis.call('ZSCORE', key_of('leased', endpoint), id) then
    redis.call('ZREM', key_of('lane', endpoint), id)
    finish(s.workspace, id, endpoint, h[2], 'failed', { 'cancelled', 1 }, nil, nil, 'cancelled')
    cancelled = cancelled + 1
  end
end
reschedule(look(s))
write_counts()
return with_ends({ 'cancelled', now, cancelled })
