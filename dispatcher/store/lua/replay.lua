-- replay: sends an ended callback again: itself, with fresh attempts after those it had, or a copy of it.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   workspace
--   event_id
--   copy: eventId of the copy ('' = the callback itself)
--   in_ms: when it is due, from now
--   ttl_ms: time from then to its expiry
--   max_waiting: most callbacks that may wait for one endpoint; 0: no limit
--   ended_ms: when it had ended as it was chosen; 0: whenever it ended
-- returns {'replayed', now, due} or, with nothing done, {'unknown', now}, {'not_ended', now} (or the copy's
--   eventId is taken), {'fanned_out', now} if the default subscription did not want it, {'ended_again', now}
--   if it has another end than `ended_ms` (it was replayed since), {'no_body', now} if the body is gone,
--   {'superseded', now} if the order was `latest` and a newer status of its message came, {'busy', now} if
--   the order was `latest` and another callback of its message is pending, {'full', now} if half of
--   max_waiting wait for the endpoint: the rest is for new ones
-- In any other order it has no place: it waits for none of its message, and none waits for it.
-- When Redis is full, a copy is refused (its first write is a SET); the callback itself is not.
-- include prologue
-- include guard
-- include counts
-- include endpoint
-- include schedule
-- include entry
local workspace, event_id, copy, in_ms, ttl_ms, max_waiting, ended_ms = take(7)
local entry, is_copy = read_entry(workspace, event_id), copy ~= ''
if not entry then return { 'unknown', now } end
local endpoint_id, message, stamp = entry.endpoint, entry.message, entry.extra.stamp
local pending = not entry.ended and entry or is_copy and read_entry(workspace, copy)
if pending then
  -- a run that broke off may have left this undone
  local expiry = workspace .. ':' .. (entry.ended and copy or event_id)
  if not pending.ended and pending.extra.base then
    redis.call('ZADD', key_of('expiries'), 'NX', int(expires_of(pending)), expiry)
  end
  return { 'not_ended', now }
end
if entry.state == 'fanned_out' then return { 'fanned_out', now } end
if tonumber(ended_ms) > 0 and entry.accepted + entry.ended ~= tonumber(ended_ms) then
  return { 'ended_again', now }
end
local body = redis.call('GET', key_of('body', workspace, event_id))
if not body then return { 'no_body', now } end
local siblings = key_of('message', workspace, message)
if stamp then
  local newest = redis.call('GET', key_of('newest', endpoint_id, message))
  if newest and stamp < newest then return { 'superseded', now } end
  for other_id in string.gmatch(redis.call('GET', siblings) or '', '%S+') do
    local other = read_entry(workspace, other_id)
    if other and other.endpoint == endpoint_id and not other.ended then return { 'busy', now } end
  end
end
local record = key_of('endpoint', endpoint_id)
local waiting = tonumber(redis.call('HGET', record, 'waiting') or 0)
if tonumber(max_waiting) > 0 and waiting >= max_waiting / workspace_of(workspace).width / 2 then
  return { 'full', now }
end

local due = int(now + in_ms)
local expires = int(due + ttl_ms)
local keep_ms = int(expires - now + RETENTION_MS)

-- The entry of the callback itself, or of its copy; written at the end. Returns the eventId that it has.
local function make_entry()
  local id = event_id
  if is_copy then
    entry.extra.replayed_as = copy
    redis.call('SET', key_of('event', workspace, event_id), text_of(entry), 'KEEPTTL')
    entry.about, entry.accepted, entry.attempts = string.gsub(entry.about, '%d+$', NOW), now, ''
    entry.claims, entry.extra, id = '0', { stamp = stamp, base = '0', replay_of = event_id }, copy
  else
    entry.extra.base, entry.extra.suspect, entry.extra.cancelled = int(count_attempts(entry)), nil, nil
  end
  entry.state, entry.ended, entry.life = 'pending', nil, int(expires - entry.accepted)
  if not stamp then entry.extra.left = '1' end
  return id
end

-- What is kept with the callback is kept as long as it is.
local function keep_the_rest(id, state_before)
  if is_copy then
    local ids = redis.call('GET', siblings) or ''
    redis.call('SET', key_of('body', workspace, id), body, 'PX', keep_ms)
    local is_there = string.find(' ' .. ids .. ' ', ' ' .. id .. ' ', 1, true)
    if not is_there then redis.call('APPEND', siblings, ' ' .. id) end
  else
    redis.call('PEXPIRE', key_of('body', workspace, id), keep_ms)
    redis.call('PEXPIRE', key_of('answer', workspace, id), keep_ms)
    guarded(redis.call, 'ZREM', key_of('ended', workspace, state_before), id)
  end
  if redis.call('PTTL', siblings) < tonumber(keep_ms) then redis.call('PEXPIRE', siblings, keep_ms) end
end

local state_before = entry.state
local id = make_entry()
keep_the_rest(id, state_before)
local chain = key_of('chain', endpoint_id, message)
if stamp and redis.call('LINDEX', chain, 0) ~= id then redis.call('RPUSH', chain, id) end
guarded(redis.call, 'ZADD', key_of('endpoints'), 'GT', NOW, endpoint_id)
redis.call('ZADD', key_of('lane', endpoint_id), due, id)
write_entry(workspace, id, entry) -- until then it has ended, and a run that breaks off is repeated
-- not before: expire ends what it finds
redis.call('ZADD', key_of('expiries'), expires, workspace .. ':' .. id)
count_waiting(endpoint_id, 1)
local endpoint = load_endpoint(endpoint_id)
if not endpoint.is_kept then redis.call('PEXPIRE', record, MAX_TTL + HOUR + RETENTION_MS) end
reschedule(assess(endpoint))
count('replayed', workspace)
write_counts()
return { 'replayed', now, tonumber(due) }
