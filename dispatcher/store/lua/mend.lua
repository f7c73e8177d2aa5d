-- mend: sets aside keys of the wrong type, so that they start anew: among those that all endpoints share,
-- and those of some endpoints. Also removes fields of their records that should be numbers and are not.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   for each endpoint: endpoint_id
-- returns {'mended', now, keys that were set aside or mended ...}
-- include prologue
-- include guard
-- include counts
-- include aside
local endpoint_ids = each(1)
local TYPES = {
  [key_of('expiries')] = 'zset', [key_of('schedule')] = 'zset', [key_of('endpoints')] = 'zset',
  [key_of('workers')] = 'zset', [key_of('rejected')] = 'stream', [key_of('rejected-counts')] = 'hash',
  [key_of('events')] = 'stream', [key_of('intake')] = 'string', [key_of('format')] = 'string',
  [key_of('forwarded')] = 'zset', [key_of('ended')] = 'stream', [key_of('fingerprints')] = 'hash',
}
for unit, ms in pairs({ minute = 60000, hour = HOUR, day = DAY }) do
  TYPES[key_of('stats', unit, math.floor(now / ms))] = 'hash'
end
for endpoint_id in endpoint_ids do
  for kind, type_ in pairs({ lane = 'zset', leased = 'zset', endpoint = 'hash' }) do
    TYPES[key_of(kind, endpoint_id)] = type_
  end
  local _, name = guarded(redis.call, 'HGET', key_of('endpoint', endpoint_id), 'name')
  local workspace = name and string.match(name, '^%S+')
  if workspace then TYPES[key_of('schedule', workspace)] = 'zset' end
end

local reply = { 'mended', now }
for key, type_ in pairs(TYPES) do
  if set_aside(key, type_) then reply[#reply + 1] = key end
end
for endpoint_id in endpoint_ids do
  if mend_record(endpoint_id) then reply[#reply + 1] = key_of('endpoint', endpoint_id) end
end
if #reply > 2 then count('setAside', '*', nil, #reply - 2) end
write_counts()
return reply
