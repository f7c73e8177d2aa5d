-- Confines errors to the endpoint or workspace whose key was overwritten by hand, with another type or with
-- text in place of a number. Any other error (out of memory, a forbidden command) concerns all: the script
-- breaks off, and is run again.
local problem = ''
-- Error texts for such keys: the last two are Lua's, the others Redis's.
local OF_DATA = { 'WRONGTYPE', 'not an integer', 'not a valid float', 'attempt to ', 'bad argument' }
local function is_of_data(text)
  for _, words in ipairs(OF_DATA) do
    if string.find(text, words, 1, true) then return true end
  end
end
local function error_of(found) return tostring(type(found) == 'table' and found.err or found) end
local function guarded(f, ...)
  local ok, found = pcall(f, ...)
  if ok then return true, found end
  local text = error_of(found)
  if not is_of_data(text) then error(text, 0) end
  problem = text
  return false
end

-- `redis.call`, guarded: costs less than Lua's `pcall`. For commands whose reply is a number.
local function guarded_call(...)
  local found = redis.pcall(...)
  if type(found) == 'table' then return guarded(error, found) end
  return true, found
end
