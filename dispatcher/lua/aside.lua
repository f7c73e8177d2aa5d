-- Sets a key aside that is not of the type it should be (nil: whatever it is): somebody wrote over it by hand. It is kept for
-- a week; what should be there begins anew, and the sweep puts back into it what is pending.
local function set_aside(key, type_)
  local found = redis.call('TYPE', key).ok
  if found == type_ or found == 'none' then return false end
  local aside = P .. 'aside:' .. string.sub(key, #P + 1)
  redis.call('RENAME', key, aside)
  redis.call('PEXPIRE', aside, 604800000)
  return true
end

-- Whether the fields of an endpoint's record that should be numbers are.
local NUMBERS = { 'window', 'hinted_until', 'pause', 'tat', 'seen', 'failures', 'pause_ms', 'p95', 'down_since', 'waiting' }
local function is_record_of_numbers(endpoint)
  for _, value in ipairs(redis.call('HMGET', key_of('endpoint', endpoint), unpack(NUMBERS))) do
    if value and not tonumber(value) then return false end
  end
  return true
end
