-- Counters, collected during a script and written once at its end: of this minute overall, of this hour for
-- each workspace (`*`: for none), of this day for each endpoint.
local of_minute, of_hour, of_day = {}, {}, {}
local function count_in(fields, field, n) fields[field] = (fields[field] or 0) + n end
local function count(name, workspace, endpoint_id, n, name_in_hour)
  n = n or 1
  count_in(of_minute, name, n)
  if workspace then count_in(of_hour, workspace .. ' ' .. (name_in_hour or name), n) end
  if endpoint_id then count_in(of_day, endpoint_id .. ' ' .. name, n) end
end

-- Changes in how many callbacks wait for each endpoint, those in chains and leased ones included.
local waiting_changes = {}
local function count_waiting(endpoint_id, n)
  waiting_changes[endpoint_id] = (waiting_changes[endpoint_id] or 0) + n
end

-- The hour's counter of what was delivered within `ms`: one of a row of counters, each 19 % (a quarter of an
-- octave) wider than the one before.
local function delivered_within(ms)
  local TO_QUARTERS = 5.770780163555853 -- 4 / math.log(2)
  return 'd' .. int(ms > 1 and math.log(ms) * TO_QUARTERS + 0.000001 or 0)
end

-- Takes the change for one endpoint, for a caller that writes it itself.
local function take_waiting(endpoint_id)
  local n = waiting_changes[endpoint_id] or 0
  waiting_changes[endpoint_id] = nil
  return n
end

local write_counts
do -- the rest is private to this file
  -- Forces a new hash out of listpack encoding, whose look-ups are linear: up to 512 comparisons for each
  -- counter.
  local function use_table(key)
    local LONG = string.rep('-', 65)
    if redis.call('HLEN', key) > 1 then return end
    redis.call('HSET', key, LONG, '')
    redis.call('HDEL', key, LONG)
  end

  local function write_counter(key, field, n, life)
    local ok, found = guarded_call('HINCRBY', key, field, int(n))
    if found ~= n then return ok end
    if life > DAY then use_table(key) end -- of an hour or a day; those of a minute are few
    redis.call('PEXPIRE', key, int(life))
    return true
  end

  -- Below zero, the record was gone, and nothing would remove one that has only this field.
  local function write_waiting(endpoint_id, n)
    local key = key_of('endpoint', endpoint_id)
    if redis.call('HINCRBY', key, 'waiting', int(n)) < 0 then redis.call('HDEL', key, 'waiting') end
  end

  -- The key of this minute, hour or day: a memo, as most runs have the same as the one before.
  local memo_began, memo_keys, memo_prefix = {}, {}, nil
  local function key_now(unit, length)
    local began = now - now % length
    if memo_prefix ~= PREFIX then memo_began, memo_prefix = {}, PREFIX end
    if memo_began[unit] ~= began then
      memo_began[unit], memo_keys[unit] = began, key_of('stats', unit, int(began / length))
    end
    return memo_keys[unit]
  end

  local function write_unit(unit, fields, length, life)
    local key
    for field, n in pairs(fields) do
      key = key or key_now(unit, length)
      local ok = write_counter(key, field, n, life)
      if not ok and string.find(problem, 'WRONGTYPE', 1, true) then return end -- the whole key
    end
  end

  -- A counter that cannot be written is lost: no callback may fail because of it.
  function write_counts()
    for endpoint_id, n in pairs(waiting_changes) do
      if n ~= 0 then guarded(write_waiting, endpoint_id, n) end
    end
    write_unit('minute', of_minute, 60000, DAY)
    write_unit('hour', of_hour, HOUR, 8 * DAY)
    write_unit('day', of_day, DAY, 8 * DAY)
  end
end
