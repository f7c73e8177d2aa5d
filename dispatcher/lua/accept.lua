-- accept: puts a batch of callbacks into the ledger and their lanes, once per (workspace, eventId).
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] token of the intake lease
-- ARGV[5] how long a hint holds, ms
-- ARGV[6] number of workspaces, then for each: workspace, the revision it was rendered with
-- then: number of entries that cause no callback, then for each: entry
-- then for each callback: entry workspace eventId digest endpoint endpointName message status type
--   timestamp (ms), timestamp (ns, 22 digits), ttl (ms), body
-- returns {'accepted', now, {endpoints to hint}, {accepted|superseded|duplicate|conflict, ...}}
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
  if workspace_of(workspace).revision ~= revision then changed[#changed + 1] = workspace end
end
if #changed > 0 then return { 'workspace_changed', now, changed } end

local done = {}
for i = 1, tonumber(take()) do done[i] = take() end
if #done > 0 then count('noCallback', #done) end

local touched, order = {}, {}
local function touch(endpoint, name, added)
  if not touched[endpoint] then
    touched[endpoint] = { name = name, added = 0 }
    order[#order + 1] = endpoint
  end
  touched[endpoint].added = touched[endpoint].added + added
end

-- The endpoint's record outlives all it is named by; kept fresh once an hour.
local function keep(s)
  if now - s.seen < HOUR and s.workspace then return s end
  local name = touched[s.id].name
  redis.call('HSET', endpoint_key(s.id), 'name', name, 'seen', now)
  redis.call('ZADD', ENDPOINTS, 'GT', now, s.id)
  if not s.stopped then redis.call('PEXPIRE', endpoint_key(s.id), MAX_TTL + HOUR + ARGV[3]) end
  return s.workspace and s or load(s.id)
end

-- What a batch adds to the expiries and to lanes, written in one call each.
local expiries, lanes = {}, {}
local function add(to, score, member)
  to[#to + 1] = score
  to[#to + 1] = member
end
local function write_added()
  if #expiries > 0 then redis.call('ZADD', EXPIRIES, unpack(expiries)) end
  for endpoint, added in pairs(lanes) do redis.call('ZADD', lane_key(endpoint), unpack(added)) end
  expiries, lanes = {}, {}
end

-- For `latest`: what is older than this and in nobody's hands ends now.
local function supersede_older(workspace, endpoint, uuid, stamp)
  write_added()
  for _, id in ipairs(redis.call('LRANGE', chain_key(endpoint, uuid), 0, -1)) do
    local other = redis.call('HGET', event_key(workspace, id), 'stamp')
    if other and other < stamp and not redis.call('ZSCORE', leased_key(endpoint), id) then
      redis.call('ZREM', lane_key(endpoint), id)
      finish(workspace, id, endpoint, uuid, 'superseded')
    end
  end
end

-- The eventIds of a message, between blanks; a string, because a list takes twice the memory.
local function remember_message(workspace, uuid, id, keep_ms)
  local key = message_key(workspace, uuid)
  if redis.call('SET', key, id, 'PX', keep_ms, 'NX') then return end
  redis.call('APPEND', key, ' ' .. id)
  if redis.call('PTTL', key) < keep_ms then redis.call('PEXPIRE', key, keep_ms) end
end

-- Into the ledger, its chain and its lane; or, for `latest`, to its end if a newer one was here before.
local function take_in(workspace, id, endpoint, name, uuid, stamp, expires, fields, body)
  local key, ordering = event_key(workspace, id), workspace_of(workspace).ordering
  redis.call('HSET', key, 'state', 'pending', 'endpoint', endpoint, 'message', uuid, 'accepted', now, 'expires', expires,
    unpack(fields))
  remember_message(workspace, uuid, id, math.max(expires - now, 0) + tonumber(ARGV[3]))
  if ordering == 'latest' then
    local newest_of = newest_key(endpoint, uuid)
    local newest = redis.call('GET', newest_of)
    redis.call('HSET', key, 'stamp', stamp)
    if newest and stamp < newest then
      touch(endpoint, name, 0)
      redis.call('HSET', key, 'state', 'superseded', 'ended', now)
      redis.call('PEXPIRE', key, ARGV[3])
      return 'superseded'
    end
    redis.call('SET', newest_of, stamp, 'PX', math.max(expires - now, 0) + tonumber(ARGV[3]))
  elseif ordering == 'strict' then
    redis.call('HSET', key, 'strict', 1)
  end
  touch(endpoint, name, 1)
  redis.call('SET', body_key(workspace, id), body)
  add(expiries, expires, workspace .. ':' .. id)
  if redis.call('RPUSH', chain_key(endpoint, uuid), id) == 1 then
    lanes[endpoint] = lanes[endpoint] or {}
    add(lanes[endpoint], now, id)
  end
  if ordering == 'latest' then supersede_older(workspace, endpoint, uuid, stamp) end
  return 'accepted'
end

local words = {}
while at < #ARGV do
  local entry, workspace, id, digest, endpoint, name = take(), take(), take(), take(), take(), take()
  local uuid, status, event_type, timestamp, stamp, ttl, body = take(), take(), take(), take(), take(), take(), take()
  local known = redis.call('HGET', event_key(workspace, id), 'digest')
  local word = known == digest and 'duplicate' or 'conflict'
  if not known then
    local expires = math.min(tonumber(timestamp), now) + tonumber(ttl)
    local fields = { 'status', status, 'type', event_type, 'digest', digest }
    word = take_in(workspace, id, endpoint, name, uuid, stamp, expires, fields, body)
    count('accepted')
  elseif word == 'conflict' then
    keep_rejected(entry, 'conflict', 'eventId ' .. id .. ' was accepted before for another status change; that one stands',
      workspace, id)
  end
  words[#words + 1], done[#done + 1] = word, entry
  if word ~= 'accepted' then count(word) end
end

for first = 1, #done, 500 do
  local last = math.min(first + 499, #done)
  redis.call('XACK', EVENTS, GROUP, unpack(done, first, last))
  redis.call('XDEL', EVENTS, unpack(done, first, last))
end

write_added()
local hints = {}
for _, endpoint in ipairs(order) do
  local s = keep(load(endpoint))
  redis.call('HINCRBY', endpoint_key(endpoint), 'waiting', touched[endpoint].added)
  if take_hint(look(s), ARGV[5]) then hints[#hints + 1] = endpoint end
  reschedule(s)
end
write_counts()
return { 'accepted', now, hints, words }
