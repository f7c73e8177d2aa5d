-- stop: the operator stops an endpoint, or lets it go on. No settle or claim touches this.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] endpoint
-- ARGV[5] 1 to stop it, 0 to let it go on
-- returns {'stopped', now, changed} or {'going', now, changed} (changed: 1, or 0 where it was so already), or {'unknown', now} for an
--   endpoint that is not there
-- Works when Redis is full.
-- include keys
-- include clock
-- include guard
-- include endpoint
redis.call('DEL', P .. 'never')
local endpoint, key = ARGV[4], key_of('endpoint', ARGV[4])
if redis.call('EXISTS', key) == 0 then return { 'unknown', now } end
local was_stopped = redis.call('HEXISTS', key, 'stopped')
if ARGV[5] == '1' then
  redis.call('HSETNX', key, 'stopped', NOW)
  redis.call('PERSIST', key)
  redis.call('ZADD', key_of('endpoints'), 'inf', endpoint) -- stays listed
else
  redis.call('HDEL', key, 'stopped')
  redis.call('ZADD', key_of('endpoints'), NOW, endpoint)
  redis.call('PEXPIRE', key, MAX_TTL + ARGV[3])
end
local s = look(load(endpoint))
if ARGV[5] == '0' then set_hinted(s, 0) end
reschedule(s)
if ARGV[5] == '1' then return { 'stopped', now, 1 - was_stopped } end
return { 'going', now, was_stopped }
