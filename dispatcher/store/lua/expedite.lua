-- expedite: makes everything that waits in an endpoint's lane due now, and lets the endpoint go on, whether
-- it pauses or the operator stopped it; what is in a worker's hands is left alone. For a workspace that was
-- removed: its callbacks are to end.
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
if redis.call('HDEL', key, 'stopped') == 1 then redis.call('PEXPIRE', key, MAX_TTL + RETENTION_MS) end
redis.call('HDEL', key, 'pause', 'pause_ms', 'failures', 'down_since')
local later = redis.call('ZRANGEBYSCORE', lane, '(' .. now, '+inf')
for _, id in ipairs(later) do redis.call('ZADD', lane, NOW, id) end
reschedule(assess(load_endpoint(endpoint_id)))
return { 'expedited', now, #later }
