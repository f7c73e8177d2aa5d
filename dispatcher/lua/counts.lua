-- Counters, gathered during a script and written once at its end: of this minute for all, of this hour for each
-- workspace (`*`: nobody's), of this day for each endpoint.
local COUNTED = { minute = { 60000, DAY }, hour = { 3600000, 8 * DAY }, day = { DAY, 8 * DAY } } -- length, life; ms
local counts = { minute = {}, hour = {}, day = {} }
local function count_in(unit, field, n) counts[unit][field] = (counts[unit][field] or 0) + n end
local function count(name, workspace, endpoint, n)
  count_in('minute', name, n or 1)
  if workspace then count_in('hour', workspace .. ' ' .. name, n or 1) end
  if endpoint then count_in('day', endpoint .. ' ' .. name, n or 1) end
end

-- How many wait for each endpoint, those in chains and in workers' hands counted: what changes in that.
local waiting_changes = {}
local function count_waiting(endpoint, n) waiting_changes[endpoint] = (waiting_changes[endpoint] or 0) + n end

-- How long something took, in ms: one of a row of counters, each 19 % (a fourth of an octave) wider than the one before.
local function count_duration(workspace, ms)
  count_in('hour', workspace .. ' t' .. math.floor(4 * math.log(math.max(ms, 1)) / math.log(2) + 0.000001), 1)
end

local function write_counts()
  for endpoint, n in pairs(waiting_changes) do
    if n ~= 0 then redis.call('HINCRBY', endpoint_key(endpoint), 'waiting', n) end
  end
  for unit, fields in pairs(counts) do
    local length, life = unpack(COUNTED[unit])
    local key = stats_key(unit, math.floor(now / length))
    for field, n in pairs(fields) do
      if redis.call('HINCRBY', key, field, n) == n then redis.call('PEXPIRE', key, life) end
    end
  end
end
