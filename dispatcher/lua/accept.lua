-- accept: puts a batch of callbacks into the ledger and their lanes, once per (workspace, eventId).
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] token of the intake lease
-- ARGV[5] how long a hint holds, ms
-- ARGV[6] most callbacks to give to the caller at once, as claim does, of endpoints that are ready
-- ARGV[7] lease of those, ms
-- ARGV[8] most callbacks that may wait for one endpoint; 0: no limit
-- ARGV[9] number of workspaces, then for each: workspace, the revision it was rendered with
-- then: number of entries that cause no callback, then for each: entry
-- then: number of endpoints, then for each: endpoint, its name
-- then: number of callbacks, then for each: entry workspace eventId about (digest, type, letter of the status) endpoint message
--   timestamp (ns, 22 digits), ttl (ms), body, time from SUBMITTED to DELIVERED (ms; '' = unknown)
-- then what they and others say about their messages (record.lua), if anything
-- returns {'accepted', now, endpoints to hint, accepted|superseded|duplicate|conflict|full for each callback, a word for
--   each that said something (these between blanks), why one of them failed, number of endpoints of which some were given,
--   what was given (claiming.lua) ..., ends ...}
--   or {'not_leader', now} or {'workspace_changed', now, workspace, ...}; nothing was done then
-- Refused when Redis is full, unless nothing is to be taken in (the first write that takes something in needs memory).
-- include keys
-- include clock
-- include counts
-- include endpoint
-- include entry
-- include ending
-- include claiming
-- include rejecting
-- include record
if redis.call('GET', key_of('intake')) ~= ARGV[4] then return { 'not_leader', now } end

local at = 9
local function take()
  at = at + 1
  return ARGV[at]
end

local changed = {}
for _ = 1, tonumber(ARGV[9]) do
  local workspace, revision = take(), take()
  if workspace_of(workspace).revision ~= revision then changed[#changed + 1] = workspace end
end
if #changed > 0 then return { 'workspace_changed', now, unpack(changed) } end

local done = {}
for i = 1, tonumber(take()) do done[i] = take() end
if #done > 0 then count('noCallback', '*', nil, #done) end
local names = {}
for _ = 1, tonumber(take()) do names[take()] = take() end

-- The endpoint's record outlives all it is named by; kept fresh once an hour.
local function keep(s, name)
  if now - s.seen < HOUR and s.workspace then return s end
  redis.call('HSET', key_of('endpoint', s.id), 'name', name, 'seen', NOW)
  redis.call('ZADD', key_of('endpoints'), 'GT', NOW, s.id)
  if not s.stopped then redis.call('PEXPIRE', key_of('endpoint', s.id), MAX_TTL + HOUR + ARGV[3]) end
  return s.workspace and s or load(s.id)
end

-- Endpoints that something was accepted for; `given` goes to the caller at once, `added` all that waits since.
local touched, order, left_to_give = {}, {}, tonumber(ARGV[6])
local function touch(endpoint)
  local s = touched[endpoint]
  if not s then
    s = keep(load(endpoint), names[endpoint])
    s.given, s.handed, s.added = {}, {}, 0
    s.lane_is_empty = left_to_give > 0 and redis.call('EXISTS', key_of('lane', endpoint)) == 0
    touched[endpoint], order[#order + 1] = s, endpoint
  end
  return s
end

-- Whether a callback that need not wait can be given to the caller without going through the lane: nothing is before
-- it, and nothing but the window limits the endpoint.
local function can_give(s)
  return left_to_give > 0 and s.lane_is_empty and s.window > s.leased + #s.given and s.hinted_until <= now
    and s.pause == 0 and s.rate == 0 and not s.stopped
end

-- Whether as many wait for the endpoint as may, those in chains and in workers' hands counted.
local waiting, max_waiting = {}, tonumber(ARGV[8])
local function is_full(endpoint)
  if max_waiting == 0 then return false end
  waiting[endpoint] = waiting[endpoint] or tonumber(redis.call('HGET', key_of('endpoint', endpoint), 'waiting') or 0)
  return waiting[endpoint] + (touched[endpoint] and touched[endpoint].added or 0) >= max_waiting
end

-- What a batch adds to bodies, the expiries and to lanes, written in one call each.
local bodies, expiries, lanes = {}, {}, {}
local function add(to, first, second)
  local n = #to
  to[n + 1], to[n + 2] = first, second
end
local function write_added()
  if #expiries > 0 then
    redis.call('MSET', unpack(bodies))
    redis.call('ZADD', key_of('expiries'), unpack(expiries))
  end
  for endpoint, added in pairs(lanes) do redis.call('ZADD', key_of('lane', endpoint), unpack(added)) end
  bodies, expiries, lanes = {}, {}, {}
end

-- For `latest`: what is older than this and in nobody's hands ends now.
local function supersede_older(workspace, endpoint, uuid, stamp)
  write_added()
  for _, id in ipairs(redis.call('LRANGE', key_of('chain', endpoint, uuid), 0, -1)) do
    local other = read_entry(workspace, id)
    if other and (other.extra.stamp or stamp) < stamp and not redis.call('ZSCORE', key_of('leased', endpoint), id) then
      redis.call('ZREM', key_of('lane', endpoint), id)
      finish(workspace, id, other, 'superseded')
    end
  end
end

-- The eventIds of a message, between blanks; a string, because a list takes twice the memory. Returns the length of
-- what was there before.
local function remember_message(workspace, uuid, id, keep_ms)
  local key = key_of('message', workspace, uuid)
  if redis.call('SET', key, id, 'PX', keep_ms, 'NX') then return 0 end
  local length = redis.call('APPEND', key, ' ' .. id)
  if redis.call('PTTL', key) < tonumber(keep_ms) then redis.call('PEXPIRE', key, keep_ms) end
  return length - #id - 1
end

-- The callback that another one of its message to this endpoint has to wait for, where no chain says it: the one before
-- it, if that is pending and has not left its place. `length` as above.
local function one_before(workspace, own, endpoint, uuid, length)
  while length > 0 do
    local id = string.match(redis.call('GETRANGE', key_of('message', workspace, uuid), math.max(0, length - 128), length - 1), '%S+$')
    local other = id ~= own and read_entry(workspace, id)
    if other and other.endpoint == endpoint and other.state ~= 'superseded' and not other.extra.replay_of then
      return not other.ended and not other.extra.left and id
    end
    length = length - #id - 1
  end
end

-- Whether it has to wait for another one of its message. The chain is written when the second one waits.
local function wait_in_chain(workspace, id, endpoint, uuid, length)
  if length == 0 then return false end
  local chain = key_of('chain', endpoint, uuid)
  if redis.call('RPUSHX', chain, id) > 0 then return true end
  local before = one_before(workspace, id, endpoint, uuid, length)
  if not before then return false end
  redis.call('RPUSH', chain, before, id)
  return true
end

-- Into the ledger, and to the caller, its chain or its lane; or, for `latest`, to its end if a newer one was here before.
local function take_in(workspace, id, about, endpoint, uuid, stamp, expires_at, body)
  local ordering, s = workspace_of(workspace).ordering, touch(endpoint)
  local expires, keep_ms = int(expires_at), int(math.max(expires_at - now, 0) + ARGV[3])
  local e = {
    about = about .. ' ' .. NOW, accepted = NOW, state = 'pending', claims = '0', endpoint = endpoint, message = uuid,
    life = int(expires_at - now), extra = {}, attempts = '',
  }
  local length = remember_message(workspace, uuid, id, keep_ms)
  if ordering == 'latest' then
    local newest_of = key_of('newest', endpoint, uuid)
    local newest = redis.call('GET', newest_of)
    e.extra.stamp = stamp
    if newest and stamp < newest then
      e.state, e.ended = 'superseded', '0'
      write_entry(workspace, id, e, ARGV[3])
      list_end(workspace, id, e)
      return 'superseded'
    end
    redis.call('SET', newest_of, stamp, 'PX', keep_ms)
    s.lane_is_empty = false -- for those that it supersedes may let others into the lane
  elseif ordering == 'strict' then
    e.extra.strict = '1'
  end
  local waits = wait_in_chain(workspace, id, endpoint, uuid, length)
  local at_once = not waits and expires_at > now and can_give(s)
  if at_once then
    e.state, e.claims = 'sending', '1'
    hand_over(s, id, '1', '1', expires, uuid, e.about, body)
    left_to_give = left_to_give - 1
  elseif not waits then
    s.lane_is_empty = false
    lanes[endpoint] = lanes[endpoint] or {}
    add(lanes[endpoint], NOW, id)
  end
  write_entry(workspace, id, e)
  s.added = s.added + 1
  add(bodies, key_of('body', workspace, id), body)
  add(expiries, expires, workspace .. ':' .. id)
  if ordering == 'latest' then supersede_older(workspace, endpoint, uuid, stamp) end
  return 'accepted'
end

local words, count_of_callbacks = {}, take()
local said_at = at + 1 + 10 * count_of_callbacks
for i = at + 1, said_at - 1, 10 do
  local entry, workspace, id, about, endpoint, uuid, stamp, ttl, body, took = unpack(ARGV, i, i + 9)
  local known = redis.call('GET', key_of('event', workspace, id))
  local word = known and digest_of(known) == digest_of(about) and 'duplicate' or 'conflict'
  if not known and is_full(endpoint) then
    word = 'full'
    keep_rejected(entry, 'endpoint_full', max_waiting .. ' callbacks wait for ' .. names[endpoint] ..
      ' (MAX_WAITING_PER_ENDPOINT); enqueue again when some have gone', workspace, id)
  elseif not known then
    local timestamp = tonumber(string.sub(stamp, 1, 16))
    word = take_in(workspace, id, about, endpoint, uuid, stamp, math.min(timestamp, now) + ttl, body)
    count('accepted', workspace)
    if took ~= '' then
      count_in('hour', workspace .. ' toDelivered', 1)
      count_in('hour', workspace .. ' toDeliveredMs', tonumber(took))
    end
  elseif word == 'conflict' then
    keep_rejected(entry, 'conflict', 'eventId ' .. id .. ' was accepted before for another status change; that one stands',
      workspace, id)
  end
  words[#words + 1], done[#done + 1] = word, entry
  if word ~= 'accepted' and word ~= 'full' then count(word, workspace) end
end

for first = 1, #done, 500 do
  local last = math.min(first + 499, #done)
  redis.call('XACK', key_of('events'), GROUP, unpack(done, first, last))
  redis.call('XDEL', key_of('events'), unpack(done, first, last))
end

write_added()
local hints, reply = {}, { 'accepted', now, '', '', '', '', 0 }
for _, endpoint in ipairs(order) do
  local s = touched[endpoint]
  count_waiting(endpoint, s.added)
  if #s.given > 0 or left_to_give > 0 and s.hinted_until <= now then
    local given = #s.given
    claim(reply, s, left_to_give, tonumber(ARGV[7]), ARGV[5])
    left_to_give, reply[7] = left_to_give - (#s.given - given), reply[7] + 1
  else
    if take_hint(look(s), ARGV[5]) then hints[#hints + 1] = endpoint end
    reschedule(s)
  end
end
reply[3], reply[4] = table.concat(hints, ' '), table.concat(words, ' ')
reply[5], reply[6] = record_all(said_at, words)
write_counts()
return with_ends(reply)
