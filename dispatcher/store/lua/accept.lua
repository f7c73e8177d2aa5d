-- accept: puts a batch of callbacks into the ledger and their lanes, once per (workspace, eventId).
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] token of the intake lease
-- ARGV[5] how long a hint holds, ms
-- ARGV[6] most callbacks to give to the caller at once, as claim does, of endpoints that are ready
-- ARGV[7] lease of those, ms
-- ARGV[8] most endpoints of one workspace to hint; wake finds the others
-- ARGV[9] most callbacks that may wait for one endpoint; 0: no limit
-- ARGV[10] number of workspaces, then for each: workspace, the revision it was rendered with, most of its callbacks to give at once
-- then: number of entries that cause no callback, then for each: entry, its workspace
-- then: number of endpoints, then for each: endpoint, its name
-- then: number of callbacks, then for each: entry workspace eventId about (digest, type, letter of the status) endpoint message
--   timestamp (ns, 22 digits), ttl (ms), body, time from SUBMITTED to DELIVERED (ms; '' = unknown)
-- then what they and others say about their messages (record.lua), if anything
-- returns {'accepted', now, endpoint and its workspace of each to hint, a word for each callback, a word for each that said something (these
--   between blanks), why one of them failed, workspaces that have changed (between blanks), what broke on some endpoint ('' = nothing),
--   number of endpoints of which some were given, what was given (claiming.lua) ..., ends ...}
--   word: accepted|superseded|duplicate|conflict|full; or, with the entry left on the queue: changed (its workspace has, render it
--   again), broken (a key of its endpoint is)
--   or {'not_leader', now}; nothing was done then
-- A run that breaks off leaves its entries on the queue, and is completed when it is repeated: what makes a callback known, its entry, is
-- written first, and the expiries have it last; one that is pending and not among them is taken in once more.
-- Refused when Redis is full, unless nothing is to be taken in (the first write that takes something in needs memory).
-- include keys
-- include clock
-- include guard
-- include counts
-- include endpoint
-- include entry
-- include ending
-- include claiming
-- include rejecting
-- include record
if redis.call('GET', key_of('intake')) ~= ARGV[4] then return { 'not_leader', now } end

local at = 10
local function take()
  at = at + 1
  return ARGV[at]
end

-- Workspaces that changed since their entries were rendered. The others' are taken in. How many more callbacks of each
-- may be given.
local changed, changes, left_to_give, left_of = {}, {}, tonumber(ARGV[6]), {}
for _ = 1, tonumber(ARGV[10]) do
  local workspace, revision = take(), take()
  left_of[workspace] = tonumber(take())
  local known, of = guarded(workspace_of, workspace)
  if not known or of.revision ~= revision then
    changed[workspace], changes[#changes + 1] = true, workspace
  end
end

local done = {}
for _ = 1, tonumber(take()) do
  local entry, workspace = take(), take()
  if not changed[workspace] then done[#done + 1] = entry end
end
if #done > 0 then count('noCallback', '*', nil, #done) end
local names = {}
for _ = 1, tonumber(take()) do names[take()] = take() end

-- The endpoint's record outlives all it is named by; kept fresh once an hour.
local function keep(s, name)
  if now - s.seen < HOUR and s.workspace then return s end
  redis.call('HSET', key_of('endpoint', s.id), 'name', name)
  guarded(redis.call, 'ZADD', key_of('endpoints'), 'GT', NOW, s.id)
  if not s.stopped then redis.call('PEXPIRE', key_of('endpoint', s.id), MAX_TTL + HOUR + ARGV[3]) end
  redis.call('HSET', key_of('endpoint', s.id), 'seen', NOW) -- last: it says that all of this is done
  return s.workspace and s or load(s.id)
end

-- Endpoints that something was accepted for; `given` goes to the caller at once, `added` all that waits since.
local touched, order = {}, {}
local function touch(endpoint)
  local s = touched[endpoint]
  if not s then
    s = keep(load(endpoint), names[endpoint])
    s.given, s.handed, s.added, s.lane = {}, {}, 0, {}
    s.lane_is_empty = left_to_give > 0 and redis.call('EXISTS', key_of('lane', endpoint)) == 0
    touched[endpoint], order[#order + 1] = s, endpoint
  end
  return s
end

local function left_for(workspace) return math.min(left_to_give, left_of[workspace] or left_to_give) end
local function count_given(workspace, n)
  left_to_give, left_of[workspace] = left_to_give - n, left_of[workspace] and left_of[workspace] - n
end

-- Whether a callback that need not wait can be given to the caller without going through the lane: nothing is before
-- it, and nothing but the window limits the endpoint.
local function can_give(s)
  return left_for(s.workspace) > 0 and s.lane_is_empty and s.window > s.leased + #s.given and s.hinted_until <= now
    and s.pause == 0 and s.rate == 0 and not s.stopped
end

-- Whether as many wait for the endpoint as may, those in chains and in workers' hands counted.
local waiting, max_waiting = {}, tonumber(ARGV[9])
local function is_full(endpoint)
  if max_waiting == 0 then return false end
  waiting[endpoint] = waiting[endpoint] or tonumber(redis.call('HGET', key_of('endpoint', endpoint), 'waiting') or 0)
  return waiting[endpoint] + (touched[endpoint] and touched[endpoint].added or 0) >= max_waiting
end

-- What a batch adds to bodies, to lanes and to the expiries, written in one call each, in this order.
local bodies = {}
expiries_to_add = {}
local function add(to, first, second)
  local n = #to
  to[n + 1], to[n + 2] = first, second
end
local function write_bodies()
  if #bodies > 0 then redis.call('MSET', unpack(bodies)) end
  bodies = {}
end
local function write_lane(s)
  if #s.lane > 0 then redis.call('ZADD', key_of('lane', s.id), unpack(s.lane)) end
  s.lane = {}
end

-- For `latest`: what is older than this and in nobody's hands ends now.
local function supersede_older(s, uuid, stamp)
  write_bodies()
  write_lane(s)
  for _, id in ipairs(redis.call('LRANGE', key_of('chain', s.id, uuid), 0, -1)) do
    local other = read_entry(s.workspace, id)
    if other and not other.ended and (other.extra.stamp or stamp) < stamp and not redis.call('ZSCORE', key_of('leased', s.id), id) then
      redis.call('ZREM', key_of('lane', s.id), id)
      finish(s.workspace, id, other, 'superseded')
    end
  end
end

-- The eventIds of a message, between blanks; a string, because a list takes twice the memory. Returns those that were
-- there before this one.
local function remember_message(workspace, uuid, id, keep_ms)
  local key = key_of('message', workspace, uuid)
  if redis.call('SET', key, id, 'PX', keep_ms, 'NX') then return '' end
  local ids = redis.call('GET', key)
  local place = string.find(' ' .. ids .. ' ', ' ' .. id .. ' ', 1, true) -- by a run that broke off
  if place then return string.sub(ids, 1, math.max(place - 2, 0)) end
  redis.call('APPEND', key, ' ' .. id)
  if redis.call('PTTL', key) < tonumber(keep_ms) then redis.call('PEXPIRE', key, keep_ms) end
  return ids
end

-- The callback that another one of its message to this endpoint has to wait for, where no chain says it: the last of
-- those before it, if that is pending and has not left its place.
local function one_before(workspace, endpoint, ids)
  while ids ~= '' do
    local id = string.match(ids, '%S+$')
    local other = read_entry(workspace, id)
    if other and other.endpoint == endpoint and other.state ~= 'superseded' and not other.extra.replay_of then
      return not other.ended and not other.extra.left and id or nil
    end
    ids = string.sub(ids, 1, -#id - 2)
  end
end

-- Whether a callback that a run which broke off took in is in its lane, leased, or in its chain behind another one.
local function is_placed(endpoint, uuid, id)
  if redis.call('ZSCORE', key_of('lane', endpoint), id) or redis.call('ZSCORE', key_of('leased', endpoint), id) then return true end
  for place, one in ipairs(redis.call('LRANGE', key_of('chain', endpoint, uuid), 0, -1)) do
    if one == id then return place > 1 end
  end
end

-- Takes a callback that was rendered for another URL meanwhile out of where it was.
local function leave_endpoint(e, id)
  redis.call('ZREM', key_of('lane', e.endpoint), id)
  leave_chain(e.endpoint, e.message, id)
end

-- Into the ledger, and to the caller, its chain or its lane; or, for `latest`, to its end if a newer one was here before.
-- `begun` is its entry, where a run that broke off has written that.
local function take_in(workspace, id, about, endpoint, uuid, stamp, expires_at, body, begun)
  local ordering, s = workspace_of(workspace).ordering, touch(endpoint)
  local expires, keep_ms = int(expires_at), int(math.max(expires_at - now, 0) + ARGV[3])
  local e = begun or {
    about = about .. ' ' .. NOW, accepted = NOW, state = 'pending', claims = '0', message = uuid, life = int(expires_at - now),
    extra = {}, attempts = '',
  }
  if begun and begun.endpoint ~= endpoint then leave_endpoint(begun, id) end
  e.endpoint = endpoint
  if ordering == 'latest' then
    local newest_of = key_of('newest', endpoint, uuid)
    local newest = redis.call('GET', newest_of)
    e.extra.stamp = stamp
    if newest and stamp < newest and not begun then
      e.state, e.ended = 'superseded', '0'
      list_end(workspace, id, e)
      remember_message(workspace, uuid, id, keep_ms)
      write_entry(workspace, id, e, ARGV[3])
      return 'superseded'
    end
    if not newest or newest < stamp then redis.call('SET', newest_of, stamp, 'PX', keep_ms) end
    s.lane_is_empty = false -- for those that it supersedes may let others into the lane
  elseif ordering == 'strict' then
    e.extra.strict = '1'
  end
  local earlier = remember_message(workspace, uuid, id, keep_ms)
  local head = earlier ~= '' and heal_chain(workspace, endpoint, uuid)
  local before = earlier ~= '' and not head and one_before(workspace, endpoint, earlier)
  if head then s.lane_is_empty = false end -- healing may have put it there
  local waits = before or head and head ~= id -- the chain is written when the second one waits
  local placed = begun and is_placed(endpoint, uuid, id)
  local at_once = not waits and not begun and expires_at > now and can_give(s)
  if at_once then e.state, e.claims = 'sending', '1' end
  write_entry(workspace, id, e)
  if at_once then
    hand_over(s, id, '1', '1', expires, uuid, e.about, body)
    count_given(workspace, 1)
  elseif waits and not placed then
    redis.call('RPUSH', key_of('chain', endpoint, uuid), unpack(before and { before, id } or { id }))
  elseif not placed then
    s.lane_is_empty = false
    add(s.lane, NOW, id)
  end
  s.added = s.added + 1
  add(bodies, key_of('body', workspace, id), body)
  expiries_to_add[workspace .. ':' .. id] = expires
  if ordering == 'latest' then supersede_older(s, uuid, stamp) end
  return 'accepted'
end

-- What is known under an eventId: the same, another one, or the same of which a run has taken in only part.
local function look_at_known(workspace, id, text, about, expiry)
  local digest, known = digest_of(about), digest_of(text)
  if known ~= string.sub(digest, 1, #known) then return 'conflict' end -- the ones of format 1 are shorter
  local e = read_entry(workspace, id)
  if not e then return 'conflict' end
  if e.ended or redis.call('ZSCORE', key_of('expiries'), expiry) or expiries_to_add[expiry] then return 'duplicate' end
  return 'begun', e
end

local function accept_one(entry, workspace, id, about, endpoint, uuid, stamp, ttl, body)
  local known, word, begun = redis.call('GET', key_of('event', workspace, id)), nil, nil
  if known then word, begun = look_at_known(workspace, id, known, about, workspace .. ':' .. id) end
  if word == 'conflict' then
    keep_rejected(entry, 'conflict', 'eventId ' .. id .. ' was accepted before for another status change; that one stands',
      workspace, id)
  elseif not known and is_full(endpoint) then
    word = 'full'
    keep_rejected(entry, 'endpoint_full', max_waiting .. ' callbacks wait for ' .. names[endpoint] ..
      ' (MAX_WAITING_PER_ENDPOINT); enqueue again when some have gone', workspace, id)
  elseif not known or begun then
    local timestamp = tonumber(string.sub(stamp, 1, 16))
    word = take_in(workspace, id, about, endpoint, uuid, stamp, math.min(timestamp, now) + ttl, body, begun)
  end
  return word
end

-- First all that is written of single callbacks, ...
local words, count_of_callbacks, broken = {}, tonumber(take()), {}
local said_at, n = at + 1 + 10 * count_of_callbacks, 0
for i = at + 1, said_at - 1, 10 do
  local entry, workspace, id, about, endpoint, uuid, stamp, ttl, body = unpack(ARGV, i, i + 8)
  n = n + 1
  if changed[workspace] then
    words[n] = 'changed'
  elseif not broken[endpoint] then
    local ok, word = guarded(accept_one, entry, workspace, id, about, endpoint, uuid, stamp, ttl, body)
    words[n], broken[endpoint] = word, not ok or nil
  end
end
write_bodies()

-- ... then what is done once for an endpoint, ...
local hints, hinted_of, most_hints, reply = {}, {}, tonumber(ARGV[8]), { 'accepted', now, '', '', '', '', '', '', 0 }
local function serve(s)
  write_lane(s)
  if s.added > 0 then redis.call('HINCRBY', key_of('endpoint', s.id), 'waiting', s.added) end
  local left = left_for(s.workspace)
  if #s.given > 0 or left > 0 and s.hinted_until <= now then
    local given = #s.given
    claim(reply, s, left, tonumber(ARGV[7]), ARGV[5])
    count_given(s.workspace, #s.given - given)
    reply[9] = reply[9] + 1
  else
    look(s)
    local hinted = hinted_of[s.workspace] or 0
    if hinted < most_hints and take_hint(s, ARGV[5]) then
      add(hints, s.id, s.workspace)
      hinted_of[s.workspace] = hinted + 1
    end
    reschedule(s)
  end
end
for _, endpoint in ipairs(order) do
  local length, count_of_given = #reply, reply[9]
  if not broken[endpoint] and not guarded(serve, touched[endpoint]) then
    broken[endpoint], reply[9] = true, count_of_given
    while #reply > length do reply[#reply] = nil end
  end
end

-- ... and only then what says that it is done.
local expiries = {}
n = 0
for i = at + 1, said_at - 1, 10 do
  local entry, workspace, id, endpoint, took = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4], ARGV[i + 9]
  n = n + 1
  if broken[endpoint] and words[n] ~= 'changed' then words[n] = 'broken' end
  local word, expiry = words[n], workspace .. ':' .. id
  if word == 'accepted' and expiries_to_add[expiry] then add(expiries, expiries_to_add[expiry], expiry) end
  if word == 'superseded' then count('accepted', workspace) end
  if (word == 'accepted' or word == 'superseded') and took ~= '' then
    count_in('hour', workspace .. ' toDelivered', 1)
    count_in('hour', workspace .. ' toDeliveredMs', tonumber(took))
  end
  if word ~= 'changed' and word ~= 'broken' then
    done[#done + 1] = entry
    if word ~= 'full' then count(word, workspace) end
  end
end
if #expiries > 0 then redis.call('ZADD', key_of('expiries'), unpack(expiries)) end
for first = 1, #done, 500 do
  local last = math.min(first + 499, #done)
  redis.call('XACK', key_of('events'), GROUP, unpack(done, first, last))
  redis.call('XDEL', key_of('events'), unpack(done, first, last))
end
reply[3], reply[4], reply[7], reply[8] = table.concat(hints, ' '), table.concat(words, ' '), table.concat(changes, ' '), problem
reply[5], reply[6] = record_all(said_at, words)
write_counts()
return with_ends(reply)
