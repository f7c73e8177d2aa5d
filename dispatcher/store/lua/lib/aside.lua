-- Sets a key aside that is not of type `type_` (nil: of any type), because it was overwritten by hand. It is
-- kept for a week; a new key starts in its place, and the sweep puts pending callbacks back.
local function set_aside(key, type_)
  local found = redis.call('TYPE', key).ok
  if found == type_ or found == 'none' then return false end
  local aside = PREFIX .. 'aside:' .. string.sub(key, #PREFIX + 1)
  redis.call('RENAME', key, aside)
  redis.call('PEXPIRE', aside, 7 * DAY)
  return true
end

-- Removes fields of an endpoint's record that should be numbers and are not; returns whether there were any.
-- `load_endpoint` has their defaults; the operator's stop stays.
local NUMBERS = {
  'window', 'hinted_until', 'pause', 'tat', 'seen', 'failures', 'pause_ms', 'p95', 'down_since', 'waiting',
  'failing', 'gone',
}

-- At least this many wait; those in chains are counted when they come to the lane's end.
local function count_again(endpoint_id)
  local waiting = 0
  for _, kind in ipairs({ 'lane', 'leased' }) do
    local ok, found = guarded(redis.call, 'ZCARD', key_of(kind, endpoint_id))
    if ok then waiting = waiting + found end
  end
  redis.call('HSET', key_of('endpoint', endpoint_id), 'waiting', waiting)
end

local function mend_record(endpoint_id)
  local key, found = key_of('endpoint', endpoint_id), false
  for i, value in ipairs(redis.call('HMGET', key, unpack(NUMBERS))) do
    if value and not string.match(value, '^-?%d+%.?%d*$') then
      redis.call('HDEL', key, NUMBERS[i])
      if NUMBERS[i] == 'waiting' then count_again(endpoint_id) end
      found = true
    end
  end
  return found
end
