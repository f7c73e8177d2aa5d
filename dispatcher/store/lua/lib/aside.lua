-- Sets a key aside that is not of the type it should be (nil: whatever it is), because somebody wrote over it
-- by hand. It is kept for a week; what should be there begins anew, and the sweep puts back into it what is
-- pending.
local function set_aside(key, type_)
  local found = redis.call('TYPE', key).ok
  if found == type_ or found == 'none' then return false end
  local aside = PREFIX .. 'aside:' .. string.sub(key, #PREFIX + 1)
  redis.call('RENAME', key, aside)
  redis.call('PEXPIRE', aside, 7 * DAY)
  return true
end

-- Takes those fields out of an endpoint's record that should be numbers and are none; whether there were any.
-- What each is without stands in `load_endpoint`; what the operator set stays.
local NUMBERS = {
  'window', 'hinted_until', 'pause', 'tat', 'seen', 'failures', 'pause_ms', 'p95', 'down_since', 'waiting',
}
local function mend_record(endpoint_id)
  local key, found = key_of('endpoint', endpoint_id), false
  for i, value in ipairs(redis.call('HMGET', key, unpack(NUMBERS))) do
    if value and not string.match(value, '^-?%d+%.?%d*$') then
      redis.call('HDEL', key, NUMBERS[i])
      found = true
    end
  end
  return found
end
