-- stop: stops or resumes an endpoint for the operator. No settle or claim changes this; it is not a pause.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   endpoint_id
--   stops: 1 to stop it, 0 to resume it
-- returns {'stopped', now, changed} or {'resumed', now, changed} (changed: 0 if it was so already, else 1),
--   or {'unknown', now} if there is no such endpoint
-- Works when Redis is full.
-- include prologue
-- include endpoint
-- include schedule
redis.call('DEL', PREFIX .. 'never')
local endpoint_id, stops = take(2)
local key = key_of('endpoint', endpoint_id)
if redis.call('EXISTS', key) == 0 then return { 'unknown', now } end
local was_stopped = redis.call('HEXISTS', key, 'stopped')
if stops == '1' then
  redis.call('HSETNX', key, 'stopped', NOW)
  redis.call('PERSIST', key)
  redis.call('ZADD', key_of('endpoints'), 'inf', endpoint_id) -- stays listed
else
  redis.call('HDEL', key, 'stopped')
  redis.call('ZADD', key_of('endpoints'), NOW, endpoint_id)
  redis.call('PEXPIRE', key, MAX_TTL + RETENTION_MS)
end
local endpoint = assess(load_endpoint(endpoint_id))
if stops == '0' then set_hinted(endpoint, 0) end
reschedule(endpoint)
if stops == '1' then return { 'stopped', now, 1 - was_stopped } end
return { 'resumed', now, was_stopped }
