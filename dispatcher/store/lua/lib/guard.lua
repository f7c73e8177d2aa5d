-- What breaks on a key of one endpoint or workspace, written over by hand with another type or with what is
-- no number, is kept to it. Any other fault (no memory, a command that is forbidden) concerns all: the script
-- breaks, and is run again.
local problem = ''
-- What Redis says of these, and Lua, whose the last two are.
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
