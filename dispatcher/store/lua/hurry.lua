-- hurry: makes everything that waits in a lane due now, and ends the endpoint's pauses; what is in a worker's hands is
-- left alone. For a workspace that was removed: its callbacks are to end.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] endpoint
-- returns {'hurried', now, number of callbacks}
-- Works when Redis is full.
-- include keys
-- include clock
-- include guard
-- include endpoint
redis.call('DEL', P .. 'never')
local key = key_of('endpoint', ARGV[4])
if redis.call('HDEL', key, 'stopped') == 1 then redis.call('PEXPIRE', key, MAX_TTL + ARGV[3]) end
redis.call('HDEL', key, 'pause', 'pause_ms', 'failures', 'down_since')
local lane = key_of('lane', ARGV[4])
local later = redis.call('ZRANGEBYSCORE', lane, '(' .. now, '+inf')
for _, id in ipairs(later) do redis.call('ZADD', lane, NOW, id) end
reschedule(look(load(ARGV[4])))
return { 'hurried', now, #later }
