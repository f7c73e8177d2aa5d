-- The one clock: Redis's, unless the caller gives a time (tests do). Milliseconds since 1970.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
-- A number as an argument: Redis itself would print it as a fraction, which takes longer.
local function int(n) return string.format('%d', n) end
local NOW = int(now)
local DAY, MAX_TTL = 86400000, 604800000 -- the longest ttlSeconds
