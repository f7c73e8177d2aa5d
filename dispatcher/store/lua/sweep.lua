-- sweep: looks at some entries of the ledger for callbacks that are pending and nowhere, and for keys of their endpoints that were written
-- over by hand with another type. Nothing makes such ones but damage from outside; nothing else would ever find them.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] where the last one ended (SCAN's cursor; '0' = from the start)
-- ARGV[5] how many keys to look at, give or take
-- returns {'swept', now, where this one ended ('0' = all were looked at), number of callbacks that were put back into their lanes, of
--   endpoints whose record is gone, workspace and eventId of each of the first, endpoint and a callback's key of each of the second,
--   keys that were set aside ...}
-- One without its body is left to intake, which completes what accept has begun; after an hour it is put back, and ends `body_missing`.
-- include keys
-- include clock
-- include guard
-- include aside
-- include counts
-- include endpoint
-- include entry
-- include ending
local HOLD_MS = 3600000
local found, aside, nameless, looked = {}, {}, {}, {}

local function look_at_type(key, type_)
  if looked[key] then return end
  looked[key] = true
  if set_aside(key, type_) then aside[#aside + 1] = key end
end

local function look_at_types(workspace, e)
  local record = key_of('endpoint', e.endpoint)
  local is_first = not looked[record]
  for kind, type_ in pairs({ lane = 'zset', leased = 'zset', endpoint = 'hash' }) do look_at_type(key_of(kind, e.endpoint), type_) end
  if is_first and mend_record(e.endpoint) then aside[#aside + 1] = record end
  look_at_type(key_of('schedule', workspace), 'zset')
  look_at_type(key_of('chain', e.endpoint, e.message), 'list')
  look_at_type(key_of('newest', e.endpoint, e.message), 'string')
  look_at_type(key_of('message', workspace, e.message), 'string')
end

-- One that nobody here wrote: what it was is lost, and others go on as if it had been removed.
local function set_entry_aside(workspace, id)
  local key = key_of('event', workspace, id)
  if not set_aside(key) then return end
  aside[#aside + 1] = key
  redis.call('PEXPIRE', key_of('body', workspace, id), ARGV[3])
end

local function is_waiting(e, id)
  if redis.call('ZSCORE', key_of('lane', e.endpoint), id) or redis.call('ZSCORE', key_of('leased', e.endpoint), id) then return true end
  local place = redis.call('LPOS', key_of('chain', e.endpoint, e.message), id)
  return place and place > 0
end

local function put_back(workspace, id, e)
  e.state = e.attempts == '' and 'pending' or 'retrying'
  write_entry(workspace, id, e)
  redis.call('PERSIST', key_of('body', workspace, id))
  redis.call('ZADD', key_of('expiries'), int(expires_of(e)), workspace .. ':' .. id)
  redis.call('ZADD', key_of('lane', e.endpoint), NOW, id)
  found[#found + 1], found[#found + 2] = workspace, id
end

local function look_at(workspace, id)
  local e = read_entry(workspace, id)
  if not e then return set_entry_aside(workspace, id) end
  if e.ended then return end
  look_at_types(workspace, e)
  if not e.extra.left then heal_chain(workspace, e.endpoint, e.message) end
  if not is_waiting(e, id) then
    if redis.call('EXISTS', key_of('body', workspace, id)) == 0 and now - e.accepted < HOLD_MS then return end
    put_back(workspace, id, e)
  elseif not redis.call('ZSCORE', key_of('expiries'), workspace .. ':' .. id) and redis.call('EXISTS', key_of('body', workspace, id)) == 1 then
    redis.call('ZADD', key_of('expiries'), int(expires_of(e)), workspace .. ':' .. id)
  end
  local s = load(e.endpoint)
  if not s.workspace then nameless[e.endpoint] = workspace .. ':' .. id end
  local of = s.workspace or NOBODY
  local is_scheduled = redis.call('ZSCORE', key_of('schedule', of), e.endpoint) and redis.call('ZSCORE', key_of('schedule'), of)
  if not is_scheduled then reschedule(look(s)) end
end

local EVENT = P .. 'event:'
local cursor, keys = unpack(redis.call('SCAN', ARGV[4], 'MATCH', EVENT .. '*', 'COUNT', ARGV[5]))
for _, key in ipairs(keys) do
  local workspace, id = string.match(string.sub(key, #EVENT + 1), '^([^:]+):(.+)$')
  if workspace then guarded(look_at, workspace, id) end
end
if #found > 0 then count('putBack', '*', nil, #found / 2) end
if #aside > 0 then count('setAside', '*', nil, #aside) end
write_counts()
local reply = { 'swept', now, cursor, #found / 2, 0 }
for _, one in ipairs(found) do reply[#reply + 1] = one end
for endpoint, one in pairs(nameless) do
  reply[5], reply[#reply + 1], reply[#reply + 2] = reply[5] + 1, endpoint, one
end
for _, key in ipairs(aside) do reply[#reply + 1] = key end
return reply
