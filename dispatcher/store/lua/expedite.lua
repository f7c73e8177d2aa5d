-- expedite: makes everything in an endpoint's lane due now, and ends its pause and the operator's stop.
-- Leased callbacks are left alone. Used after a workspace was removed, so that its callbacks end.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   endpoint_id
-- returns {'expedited', now, number of callbacks}
-- Works when Redis is full.
-- include prologue
-- include endpoint
-- include schedule
redis.call('DEL', PREFIX .. 'never')
local endpoint_id = take(1)
local key, lane = key_of('endpoint', endpoint_id), key_of('lane', endpoint_id)
if redis.call('HDEL', key, 'stopped') == 1 then
  redis.call('ZADD', key_of('endpoints'), NOW, endpoint_id)
  redis.call('PEXPIRE', key, MAX_TTL + RETENTION_MS)
end
redis.call('HDEL', key, 'pause', 'pause_ms', 'failures', 'down_since')
local later = redis.call('ZRANGEBYSCORE', lane, '(' .. now, '+inf')
for _, id in ipairs(later) do redis.call('ZADD', lane, NOW, id) end
reschedule(assess(load_endpoint(endpoint_id)))
return { 'expedited', now, #later }
