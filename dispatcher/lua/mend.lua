-- mend: sets those keys aside that all endpoints share, and that are not of the type they should be, so that they begin anew.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- returns {'mended', now, keys that were set aside ...}
-- include keys
-- include clock
-- include aside
local TYPES = { [key_of('expiries')] = 'zset', [key_of('schedule')] = 'zset', [key_of('endpoints')] = 'zset', [key_of('workers')] = 'zset',
  [key_of('rejected')] = 'stream', [key_of('rejected-counts')] = 'hash', [key_of('events')] = 'stream', [key_of('intake')] = 'string' }
for unit, ms in pairs({ minute = 60000, hour = 3600000, day = 86400000 }) do TYPES[key_of('stats', unit, math.floor(now / ms))] = 'hash' end

local reply = { 'mended', now }
for key, type_ in pairs(TYPES) do
  if set_aside(key, type_) then reply[#reply + 1] = key end
end
return reply
