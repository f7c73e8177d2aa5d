-- lead: takes or renews the intake lease; creates the queue's group if it is missing.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   token: of this worker
--   lease_ms: 0 gives it up
--   is_full: 1 while accept is refused for memory, else 0
--   renews: 1: renew only, as another worker may have led since the lease ran out; else 0
--   with_archive: the number of the data's format in which callbacks may be retired
-- returns {'leading', now, entries read but not accepted, entries on the queue, when the next endpoint needs
--   attention or a callback expires ('' = nothing waits)}, or {'following', now} if another worker leads, or
--   the lease was given up or ran out
-- include prologue
-- include archives
redis.call('DEL', PREFIX .. 'never') -- works when Redis is full: the first write decides
local token, lease_ms, is_full, renews, with_archive = take(5)
-- what was retired is not known to a worker without an archive: it would be accepted again
local format = string.match(redis.call('GET', key_of('format')) or '', '^%d+')
if not ARCHIVES and (tonumber(format) or 0) >= with_archive + 0 then return { 'following', now } end
local holder = redis.call('GET', key_of('intake'))
if holder and holder ~= token or not holder and renews == '1' then return { 'following', now } end
if lease_ms == '0' then
  redis.call('DEL', key_of('intake'))
  return { 'following', now }
end
redis.call('SET', key_of('intake'), token, 'PX', lease_ms)
if is_full == '1' then redis.call('SET', key_of('full'), '1', 'PX', lease_ms) end
local function pending() return redis.pcall('XPENDING', key_of('events'), GROUP) end
local read = pending()
if read.err then
  redis.pcall('XGROUP', 'CREATE', key_of('events'), GROUP, '0', 'MKSTREAM')
  read = pending()
end
local function first_of(key) return redis.pcall('ZRANGE', key, '0', '0', 'WITHSCORES')[2] end
local due, expires = first_of(key_of('schedule')), first_of(key_of('expiries'))
if not due or expires and tonumber(expires) < tonumber(due) then due = expires end
return read.err and read or { 'leading', now, read[1], redis.call('XLEN', key_of('events')), due or '' }
