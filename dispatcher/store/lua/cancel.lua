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
-- include guard
-- include counts
-- include endpoint
-- include entry
-- include ending
redis.call('DEL', P .. 'never')
local endpoint, cancelled = ARGV[4], 0
local s = load(endpoint)
for i = 5, #ARGV do
  local id = ARGV[i]
  local e = read_entry(s.workspace or '', id)
  local waits = e and e.endpoint == endpoint and not e.ended and not redis.call('ZSCORE', key_of('leased', endpoint), id)
  local is_begun = e and e.ended and e.extra.cancelled and redis.call('ZSCORE', key_of('expiries'), s.workspace .. ':' .. id)
  if waits or is_begun then
    e.extra.cancelled = '1'
    redis.call('ZREM', key_of('lane', endpoint), id)
    finish(s.workspace, id, e, 'failed', nil, nil, 'cancelled')
    cancelled = cancelled + 1
  end
end
reschedule_after_ends(look(load(endpoint)))
write_counts()
return with_ends({ 'cancelled', now, cancelled })
