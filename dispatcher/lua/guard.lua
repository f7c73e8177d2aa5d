-- What breaks on a key of one endpoint or workspace, written over by hand with another type, is kept to it. Any other
-- fault (no memory, a command that is forbidden) is everybody's: the script breaks, and is run again.
local problem = ''
local function guarded(f, ...)
  local ok, found = pcall(f, ...)
  if ok then return true, found end
  local text = tostring(type(found) == 'table' and found.err or found)
  if not string.find(text, 'WRONGTYPE', 1, true) then error(text, 0) end
  problem = text
  return false
end
