-- move: gives waiting callbacks another callback URL. Leased ones, and those that wait behind one of their
-- message that is leased, are left alone.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   workspace
--   url, endpoint_id, name: the new callback URL, its endpoint, and the endpoint's name
--   url_now: their present URL; callbacks with another one are left alone
--   endpoint_id_now: its endpoint
--   for each callback, in order of acceptance: id expires
--     expires: as for cancel
-- returns {'moved', now, number of callbacks, ends (lib/ending.lua) ...}
-- Each keeps its due time, its attempts, and its place in the order of its message, behind what waits at the
-- new endpoint already. In the order `latest`, it ends superseded if a newer status already went there.
-- Refused when Redis is full (the first write is an HSET).
-- include prologue
-- include guard
-- include counts
-- include endpoint
-- include schedule
-- include entry
-- include chain
-- include archives
-- include ending
local workspace, url, endpoint_id, name, url_now, endpoint_id_now = take(6)
local moved, touched, is_known = 0, { [endpoint_id_now] = true }, false

-- The one callback of the same message that waits at the new endpoint without a chain.
local function lone(message, id)
  for other_id in string.gmatch(redis.call('GET', key_of('message', workspace, message)) or '', '%S+') do
    local other = other_id ~= id and read_entry(workspace, other_id)
    local is_here = other and other.endpoint == endpoint_id
    if is_here and not other.ended and not other.extra.left then return other_id end
  end
end

local function place(id, message, due, has_left)
  if has_left then return redis.call('ZADD', key_of('lane', endpoint_id), due, id) end
  local chain = key_of('chain', endpoint_id, message)
  local head = redis.call('LINDEX', chain, 0)
  local before = not head and lone(message, id)
  if before then return redis.call('RPUSH', chain, before, id) end
  if not head or not redis.call('LPOS', chain, id) then redis.call('RPUSH', chain, id) end
  if not head or head == id then redis.call('ZADD', key_of('lane', endpoint_id), due, id) end
end

local function is_superseded(message, stamp)
  local newest = stamp and redis.call('GET', key_of('newest', endpoint_id, message))
  return newest and stamp < newest
end

-- Writes the new endpoint's record before anything is put there.
local function know()
  if is_known then return end
  local record = key_of('endpoint', endpoint_id)
  redis.call('HSET', record, 'name', name, 'seen', NOW)
  guarded(redis.call, 'ZADD', key_of('endpoints'), 'GT', NOW, endpoint_id)
  if redis.call('HEXISTS', record, 'stopped') == 0 then
    redis.call('PEXPIRE', record, MAX_TTL + HOUR + RETENTION_MS)
  end
  is_known = true
end

-- Copies the newest timestamp of a message to the new endpoint.
local function take_newest_along(old_id, message)
  local old_key, new_key = key_of('newest', old_id, message), key_of('newest', endpoint_id, message)
  local newest, known = redis.call('GET', old_key), redis.call('GET', new_key)
  if newest and (not known or known < newest) then
    redis.call('SET', new_key, newest, 'PX', math.max(redis.call('PTTL', old_key), 1))
  end
end

-- Writes its URL, adds it to the new endpoint, removes it from the old one, writes its entry: run again, it
-- completes that.
local function move(id, entry, body)
  local old_id, message = entry.endpoint, entry.message
  local stays_there = old_id == endpoint_id
  if not stays_there and is_superseded(message, entry.extra.stamp) then
    redis.call('ZREM', key_of('lane', old_id), id)
    finish(workspace, id, entry, 'superseded')
    return false
  end
  redis.call('SET', key_of('body', workspace, id), url .. string.match(body, '[\t\n].*$'), 'KEEPTTL')
  if stays_there then return true end
  local due = redis.call('ZSCORE', key_of('lane', old_id), id) or NOW
  take_newest_along(old_id, message)
  place(id, message, due, entry.extra.left)
  redis.call('ZREM', key_of('lane', old_id), id)
  leave_chain(old_id, message, id)
  entry.endpoint = endpoint_id
  write_entry(workspace, id, entry)
  count_waiting(old_id, -1)
  count_waiting(endpoint_id, 1)
  return true
end

-- Whether it is leased, or waits behind one of its message that is: that one may come back.
local function is_held(entry, id)
  local leased = key_of('leased', entry.endpoint)
  if redis.call('ZSCORE', leased, id) then return true end
  if entry.extra.left then return false end
  local head = redis.call('LINDEX', key_of('chain', entry.endpoint, entry.message), 0)
  return head and redis.call('ZSCORE', leased, head)
end

for id, expires in each(2) do
  local entry = read_entry(workspace, id)
  local waits = entry and not entry.ended and is_as_chosen(entry, expires) and not is_held(entry, id)
  local body = waits and redis.call('GET', key_of('body', workspace, id))
  local present = body and string.match(body, '^[^\t\n]*')
  -- a run that broke off may have written its URL alone
  if present == url_now or present == url and entry.endpoint ~= endpoint_id then
    know()
    touched[entry.endpoint] = true
    if move(id, entry, body) then moved = moved + 1 end
  end
end
for touched_id in pairs(touched) do
  if touched_id ~= endpoint_id then reschedule_after_ends(assess(load_endpoint(touched_id))) end
end
reschedule(assess(load_endpoint(endpoint_id)))
return conclude({ 'moved', now, moved })
