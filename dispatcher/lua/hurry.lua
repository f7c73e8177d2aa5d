-- hurry: makes everything that waits in a lane due now, and ends the endpoint's pauses; what is in a worker's hands is
-- left alone. For a workspace that was removed: its callbacks are to end.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] endpoint
-- returns {'hurried', now, number of callbacks}
-- Works when Redis is full.
-- include keys
-- include clock
-- include endpoint
redis.call('DEL', P .. 'never')
redis.call('HDEL', endpoint_key(ARGV[3]), 'pause', 'pause_ms', 'failures', 'stopped')
local lane = lane_key(ARGV[3])
local later = redis.call('ZRANGEBYSCORE', lane, '(' .. now, '+inf')
for _, id in ipairs(later) do redis.call('ZADD', lane, now, id) end
reschedule(ARGV[3], look(ARGV[3]))
return { 'hurried', now, #later }
