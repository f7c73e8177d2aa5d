-- sweep: looks at some entries of the ledger for pending callbacks that are in no lane, lease or chain, and
-- for keys of their endpoints that were overwritten by hand with another type; and at some records of
-- endpoints and entries of ended callbacks for those that are not listed. Only damage from outside causes
-- these, and nothing else would find them.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   cursor: where the last sweep ended (SCAN's cursor; '0' = from the start)
--   number: about how many keys to look at
-- returns {'swept', now, where this one ended ('0' = all were looked at), number of callbacks that were put
--   back (lib/placing.lua), number of endpoints whose record is gone or names another workspace, workspace
--   and eventId of each of the first, endpoint and a callback's `workspace:eventId` of each of the second,
--   keys that were set aside or mended ...}
-- A callback without its body is left to intake; after an hour it is put back, and ends `body_missing`.
-- One without an attempt that was accepted, and is due, later than now is due now: Redis's clock went back.
-- include prologue
-- include guard
-- include aside
-- include types
-- include listing
-- include counts
-- include endpoint
-- include schedule
-- include entry
-- include chain
-- include placing
-- include set_back
local cursor, number = take(2)
local put_back_ids, nameless = {}, {}

-- For an entry that no script of ours wrote: its callback is lost, as if it had been removed by hand.
local function set_entry_aside(workspace, id)
  local key = key_of('event', workspace, id)
  if not set_aside(key) then return end
  aside_keys[#aside_keys + 1] = key
  redis.call('PEXPIRE', key_of('body', workspace, id), RETENTION_MS)
end

-- When something is to be looked at; nil if it is not there, or if somebody has written a time that does
-- not come.
local function time_of(key, member, latest)
  local at = tonumber(redis.call('ZSCORE', key, member) or nil)
  return at and at <= (latest or now + 2 * MAX_TTL) and at or nil
end

local function is_waiting(entry, id)
  local due = time_of(key_of('lane', entry.endpoint), id)
  if due then return set_due(entry, id, due) end
  local leased = key_of('leased', entry.endpoint)
  if redis.call('ZSCORE', leased, id) then
    if not time_of(leased, id, latest_time) then redis.call('ZADD', leased, NOW, id) end
    return true
  end
  local place = redis.call('LPOS', key_of('chain', entry.endpoint, entry.message), id)
  return place and place > 0
end

local function put_back(workspace, id, entry)
  entry.state = entry.attempts == '' and 'pending' or 'retrying'
  write_entry(workspace, id, entry)
  redis.call('PERSIST', key_of('body', workspace, id))
  redis.call('ZADD', key_of('expiries'), int(expires_of(entry)), workspace .. ':' .. id)
  place_again(workspace, id, entry)
  put_back_ids[#put_back_ids + 1], put_back_ids[#put_back_ids + 2] = workspace, id
end

local function look_at_schedule(workspace, id, entry)
  local endpoint = load_endpoint(entry.endpoint)
  if endpoint.workspace ~= workspace then nameless[endpoint.id] = workspace .. ':' .. id end
  local scheduled_by = endpoint.workspace or NO_WORKSPACE
  local is_scheduled = time_of(key_of('schedule', scheduled_by), endpoint.id)
    and time_of(key_of('schedule'), scheduled_by)
  if was_set_due(endpoint.id) or not is_scheduled then reschedule(assess(endpoint)) end
end

local function look_at(workspace, id)
  local entry = read_entry(workspace, id)
  if not entry then return set_entry_aside(workspace, id) end
  if entry.ended then return list_end_again(workspace, id, entry) end
  look_at_types(workspace, entry)
  if not entry.extra.left then heal_chain(workspace, entry.endpoint, entry.message) end
  local body, expiry = key_of('body', workspace, id), workspace .. ':' .. id
  if not is_waiting(entry, id) then
    if redis.call('EXISTS', body) == 0 and now - entry.accepted < HOUR then return end
    put_back(workspace, id, entry)
  elseif not time_of(key_of('expiries'), expiry) and redis.call('EXISTS', body) == 1 then
    redis.call('ZADD', key_of('expiries'), int(expires_of(entry)), expiry)
  end
  look_at_schedule(workspace, id, entry)
end

local EVENTS_AND_ENDPOINTS = PREFIX .. 'e[vn][ed]*' -- matches some others too
local next_cursor, keys = unpack(redis.call('SCAN', cursor, 'MATCH', EVENTS_AND_ENDPOINTS, 'COUNT', number))
for _, key in ipairs(keys) do
  local kind, of = string.match(string.sub(key, #PREFIX + 1), '^(%l+):(.+)$')
  if kind == 'endpoint' then guarded(list_endpoint, of) end
  local workspace, id = string.match(kind == 'event' and of or '', '^([^:]+):(.+)$')
  if workspace then guarded(look_at, workspace, id) end
end
if #put_back_ids > 0 then count('putBack', '*', nil, #put_back_ids / 2) end
if #aside_keys > 0 then count('setAside', '*', nil, #aside_keys) end
write_counts()
local reply = { 'swept', now, next_cursor, #put_back_ids / 2, 0 }
for _, one in ipairs(put_back_ids) do reply[#reply + 1] = one end
for endpoint_id, one in pairs(nameless) do
  reply[5], reply[#reply + 1], reply[#reply + 2] = reply[5] + 1, endpoint_id, one
end
for _, key in ipairs(aside_keys) do reply[#reply + 1] = key end
return reply
