-- accept: puts a batch of callbacks into the ledger and their lanes, once per (workspace, eventId).
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] token of the intake lease
-- ARGV[5] how long a hint holds, ms
-- ARGV[6] number of workspaces, then for each: workspace, the revision it was rendered with
-- then: number of entries that cause no callback, then for each: entry
-- then for each callback: entry workspace eventId digest endpoint endpointName message status type timestamp ttl body
-- returns {'accepted', now, {endpoints to hint}, {accepted|duplicate|conflict, ...}}
--      or {'not_leader', now} or {'workspace_changed', now, {workspaces}}; nothing was done then
-- Refused when Redis is full (the first write is an HSET).
-- include keys
-- include clock
-- include counts
-- include endpoint
-- include ending
-- include rejecting
if redis.call('GET', INTAKE) ~= ARGV[4] then return { 'not_leader', now } end

local at = 6
local function take()
  at = at + 1
  return ARGV[at]
end

local changed = {}
for _ = 1, tonumber(ARGV[6]) do
  local workspace, revision = take(), take()
  if redis.call('HGET', workspace_key(workspace), 'revision') ~= revision then changed[#changed + 1] = workspace end
end
if #changed > 0 then return { 'workspace_changed', now, changed } end

local done = {}
for i = 1, tonumber(take()) do done[i] = take() end
if #done > 0 then count('noCallback', #done) end

local touched, order = {}, {}
local function touch(endpoint, name)
  local n = touched[endpoint]
  if not n then
    order[#order + 1] = endpoint
    redis.call('HSET', endpoint_key(endpoint), 'name', name)
    redis.call('PERSIST', endpoint_key(endpoint))
    redis.call('ZADD', ENDPOINTS, 'GT', now, endpoint)
  end
  touched[endpoint] = (n or 0) + 1
end

local function remember_message(workspace, uuid, id, keep_ms)
  local key = message_key(workspace, uuid)
  redis.call('RPUSH', key, id)
  if redis.call('PTTL', key) < keep_ms then redis.call('PEXPIRE', key, keep_ms) end
end

local words = {}
while at < #ARGV do
  local entry, workspace, id, digest, endpoint, name = take(), take(), take(), take(), take(), take()
  local uuid, status, event_type, timestamp, ttl, body = take(), take(), take(), take(), take(), take()
  local known = redis.call('HGET', event_key(workspace, id), 'digest')
  local word = not known and 'accepted' or known == digest and 'duplicate' or 'conflict'
  if word == 'accepted' then
    local expires = math.min(tonumber(timestamp), now) + tonumber(ttl)
    redis.call('HSET', event_key(workspace, id), 'state', 'pending', 'endpoint', endpoint, 'message', uuid, 'status',
      status, 'type', event_type, 'digest', digest, 'accepted', now, 'expires', expires)
    redis.call('SET', body_key(workspace, id), body)
    redis.call('ZADD', EXPIRIES, expires, workspace .. ':' .. id)
    remember_message(workspace, uuid, id, math.max(expires - now, 0) + tonumber(ARGV[3]))
    touch(endpoint, name)
    if redis.call('RPUSH', chain_key(endpoint, uuid), id) == 1 then
      redis.call('ZADD', lane_key(endpoint), now, id)
    end
  elseif word == 'conflict' then
    keep_rejected(entry, 'conflict', 'eventId ' .. id .. ' was accepted before for another status change; that one stands',
      workspace, id)
  end
  words[#words + 1], done[#done + 1] = word, entry
  count(word)
end

for first = 1, #done, 500 do
  local last = math.min(first + 499, #done)
  redis.call('XACK', EVENTS, GROUP, unpack(done, first, last))
  redis.call('XDEL', EVENTS, unpack(done, first, last))
end

local hints = {}
for _, endpoint in ipairs(order) do
  redis.call('HINCRBY', endpoint_key(endpoint), 'waiting', touched[endpoint])
  local s = look(endpoint)
  if take_hint(endpoint, s, ARGV[5]) then hints[#hints + 1] = endpoint end
  reschedule(endpoint, s)
end
write_counts()
return { 'accepted', now, hints, words }
