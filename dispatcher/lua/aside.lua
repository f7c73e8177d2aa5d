-- Sets a key aside that is not of the type it should be: somebody wrote over it by hand. It is kept for a week; what
-- should be there begins anew, and the sweep puts back into it what is pending.
local function set_aside(key, type_)
  local found = redis.call('TYPE', key).ok
  if found == type_ or found == 'none' then return false end
  local aside = P .. 'aside:' .. string.sub(key, #P + 1)
  redis.call('RENAME', key, aside)
  redis.call('PEXPIRE', aside, 604800000)
  return true
end
