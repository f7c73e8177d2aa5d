-- What every script starts with: keys, arguments, the clock. No other file reads KEYS or ARGV.
-- ARGV begins with these three, which the ledger gives to every script:
--   now                ms since 1970 ('' = Redis TIME)
--   max_concurrency    of a workspace that sets none
--   retention_ms       how long what has ended is kept
-- What follows is named in the script's header; the script takes it in that order.

-- Keys, as dispatcher/store/keys.py builds them (a test compares). One function, because each run of a script
-- defines its functions anew.
local PREFIX, GROUP = KEYS[1], 'workers' -- the prefix ends with a colon
local function key_of(kind, of, id)
  if id then return PREFIX .. kind .. ':' .. of .. ':' .. id end
  return of and PREFIX .. kind .. ':' .. of or PREFIX .. kind
end

local MAX_CONCURRENCY, RETENTION_MS = ARGV[2] + 0, ARGV[3] -- the second is text, for commands
local arguments_taken = 3

-- The next `n` arguments.
local function take(n)
  local first = arguments_taken + 1
  arguments_taken = arguments_taken + n
  return unpack(ARGV, first, arguments_taken)
end

-- Takes `number` groups of `n` arguments each (no number: all groups that are left), for a loop over them.
-- After the end of that loop, another one may go over the same groups.
local function each(n, number)
  local first = arguments_taken
  local last, i = number and first + n * number or #ARGV, first
  arguments_taken = last
  return function()
    if i >= last then
      i = first
      return nil
    end
    i = i + n
    return unpack(ARGV, i - n + 1, i)
  end
end

-- Whether there are arguments left.
local function has_more() return arguments_taken < #ARGV end

-- The one clock: Redis's, unless the caller gives a time (tests do). Milliseconds since 1970.
local now = ARGV[1]
if now == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
else
  now = now + 0 -- Lua's `tonumber` would parse the text twice
end
-- A whole number as text for a command: Redis itself would format it as a float, which takes longer. Most are
-- small.
local DIGITS = { [0] = '0', '1', '2', '3', '4', '5', '6', '7', '8', '9' }
local function int(n) return DIGITS[n] or string.format('%d', n) end
local NOW = int(now)
local HOUR, DAY, MAX_TTL = 3600000, 86400000, 604800000 -- ms; the last is the longest ttlSeconds

-- The latest time that a script of ours writes: the longest setting is 1e9 seconds.
local latest_time = now + 1e12

-- A number of a record; `otherwise` for one that is missing, or that no script of ours can have written
-- (`nan` is neither less nor more than any other). What is no number at all is an error: lib/aside.lua.
local function number_in(text, least, most, otherwise)
  if not text then return otherwise end
  local value = text + 0
  return value >= least and value <= most and value or otherwise
end
