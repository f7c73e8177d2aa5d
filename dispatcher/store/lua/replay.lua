-- replay: sends a callback that has ended once more: itself, with fresh attempts after those it had, or a copy of it.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] workspace
-- ARGV[5] eventId
-- ARGV[6] eventId of the copy ('' = the callback itself)
-- ARGV[7] when it is due, ms from now
-- ARGV[8] how long it has from then to its expiry, ms
-- ARGV[9] most callbacks that may wait for one endpoint; 0: no limit
-- returns {'replayed', now, due} or, with nothing done, {'unknown', now}, {'not_ended', now} (or the copy's eventId is
--   taken), {'no_body', now} where the body is gone, {'superseded', now} where a newer status of its message went
--   out and the workspace's order is `latest`, {'busy', now} where another callback of its message is under way then,
--   {'full', now} where half as many wait for the endpoint as may: the rest is for what is new
-- Where the order is another one it has no place in it: it waits for none of its message, and none waits for it.
-- Refused when Redis is full (the first write is a SET).
-- include keys
-- include clock
-- include guard
-- include counts
-- include endpoint
-- include entry
local workspace, id, copy = ARGV[4], ARGV[5], ARGV[6]
local e = read_entry(workspace, id)
if not e then return { 'unknown', now } end
local endpoint, uuid, stamp = e.endpoint, e.message, e.extra.stamp
if not e.ended or (copy ~= '' and redis.call('EXISTS', key_of('event', workspace, copy)) == 1) then return { 'not_ended', now } end
local body = redis.call('GET', key_of('body', workspace, id))
if not body then return { 'no_body', now } end
local newest = stamp and redis.call('GET', key_of('newest', endpoint, uuid))
if newest and stamp < newest then return { 'superseded', now } end
for other in string.gmatch(stamp and redis.call('GET', key_of('message', workspace, uuid)) or '', '%S+') do
  local o = read_entry(workspace, other)
  if o and o.endpoint == endpoint and not o.ended then return { 'busy', now } end
end
local waiting, max_waiting = tonumber(redis.call('HGET', key_of('endpoint', endpoint), 'waiting') or 0), tonumber(ARGV[9])
if max_waiting > 0 and waiting >= max_waiting / 2 then return { 'full', now } end

local due = int(now + ARGV[7])
local expires = int(due + ARGV[8])
local keep_ms = int(expires - now + ARGV[3])
local state = e.state
if copy == '' then
  e.extra.base, e.extra.suspect, e.extra.cancelled = int(count_attempts(e)), nil, nil
else
  e.extra.replayed_as = copy
  redis.call('SET', key_of('event', workspace, id), text_of(e), 'KEEPTTL')
  e.about, e.accepted, e.attempts = string.gsub(e.about, '%d+$', NOW), NOW, ''
  e.claims, e.extra, id = '0', { stamp = stamp, base = '0', replay_of = id }, copy
end
e.state, e.ended, e.life = 'pending', nil, int(expires - e.accepted)
if not stamp then e.extra.left = '1' end
if copy == '' then
  for _, kind in ipairs({ 'body', 'answer' }) do redis.call('PEXPIRE', key_of(kind, workspace, id), keep_ms) end
  guarded(redis.call, 'ZREM', key_of('ended', workspace, state), id)
else
  local ids = redis.call('GET', key_of('message', workspace, uuid)) or ''
  redis.call('SET', key_of('body', workspace, id), body, 'PX', keep_ms)
  if not string.find(' ' .. ids .. ' ', ' ' .. id .. ' ', 1, true) then redis.call('APPEND', key_of('message', workspace, uuid), ' ' .. id) end
end
if redis.call('PTTL', key_of('message', workspace, uuid)) < tonumber(keep_ms) then
  redis.call('PEXPIRE', key_of('message', workspace, uuid), keep_ms)
end
if stamp and redis.call('LINDEX', key_of('chain', endpoint, uuid), 0) ~= id then redis.call('RPUSH', key_of('chain', endpoint, uuid), id) end
guarded(redis.call, 'ZADD', key_of('endpoints'), 'GT', NOW, endpoint)
redis.call('ZADD', key_of('expiries'), expires, workspace .. ':' .. id)
redis.call('ZADD', key_of('lane', endpoint), due, id)
write_entry(workspace, id, e) -- last: until then it has ended, and a run that breaks off is repeated
count_waiting(endpoint, 1)
local s = load(endpoint)
if not s.stopped then redis.call('PEXPIRE', key_of('endpoint', endpoint), MAX_TTL + HOUR + ARGV[3]) end
reschedule(look(s))
count('replayed', workspace)
write_counts()
return { 'replayed', now, tonumber(due) }
