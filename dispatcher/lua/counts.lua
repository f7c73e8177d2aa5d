-- Counters of this minute, gathered during a script and written once at its end.
local counts = {}
local function count(name, n) counts[name] = (counts[name] or 0) + (n or 1) end
local function write_counts()
  local key = stats_key(math.floor(now / 60000))
  for name, n in pairs(counts) do
    if redis.call('HINCRBY', key, name, n) == n then redis.call('PEXPIRE', key, DAY) end
  end
end
