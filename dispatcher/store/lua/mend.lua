-- mend: sets those keys aside that are not of the type they should be, so that they begin anew: those that all endpoints share, and
-- those of some endpoints; and takes out of their records what should be a number and is none.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- then for each: endpoint
-- returns {'mended', now, keys that were set aside, or mended ...}
-- include keys
-- include clock
-- include guard
-- include counts
-- include aside
local TYPES = { [key_of('expiries')] = 'zset', [key_of('schedule')] = 'zset', [key_of('endpoints')] = 'zset', [key_of('workers')] = 'zset',
  [key_of('rejected')] = 'stream', [key_of('rejected-counts')] = 'hash', [key_of('events')] = 'stream', [key_of('intake')] = 'string' }
for unit, ms in pairs({ minute = 60000, hour = 3600000, day = 86400000 }) do TYPES[key_of('stats', unit, math.floor(now / ms))] = 'hash' end
for i = 2, #ARGV do
  for kind, type_ in pairs({ lane = 'zset', leased = 'zset', endpoint = 'hash' }) do TYPES[key_of(kind, ARGV[i])] = type_ end
  local _, name = guarded(redis.call, 'HGET', key_of('endpoint', ARGV[i]), 'name')
  local workspace = name and string.match(name, '^%S+')
  if workspace then TYPES[key_of('schedule', workspace)] = 'zset' end
end

local reply = { 'mended', now }
local function look_at(key, type_)
  if set_aside(key, type_) then reply[#reply + 1] = key end
end
for key, type_ in pairs(TYPES) do look_at(key, type_) end

for i = 2, #ARGV do
  if mend_record(ARGV[i]) then reply[#reply + 1] = key_of('endpoint', ARGV[i]) end
end
if #reply > 2 then count('setAside', '*', nil, #reply - 2) end
write_counts()
return reply
