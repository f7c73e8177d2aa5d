-- lead: takes or renews the lease of intake, makes the queue's group where it is missing.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] token of this worker
-- ARGV[3] lease, ms; 0 gives it up
-- ARGV[4] 1 while accept is refused for memory, else 0
-- ARGV[5] 1: only renews it, for another may have led since it ran out; else 0
-- returns {'leading', now, entries read but not accepted}, or {'following', now} if another leads, it was given up or ran out
-- include keys
-- include clock
redis.call('DEL', P .. 'never') -- works when Redis is full: the first write decides
local holder = redis.call('GET', key_of('intake'))
if holder and holder ~= ARGV[2] or not holder and ARGV[5] == '1' then return { 'following', now } end
if ARGV[3] == '0' then
  redis.call('DEL', key_of('intake'))
  return { 'following', now }
end
redis.call('SET', key_of('intake'), ARGV[2], 'PX', ARGV[3])
if ARGV[4] == '1' then redis.call('SET', key_of('full'), '1', 'PX', ARGV[3]) end
redis.pcall('XGROUP', 'CREATE', key_of('events'), GROUP, '0', 'MKSTREAM')
return { 'leading', now, redis.call('XPENDING', key_of('events'), GROUP)[1] }
