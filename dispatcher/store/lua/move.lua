-- move: gives waiting callbacks another callback URL. What is in a worker's hands is left alone.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] workspace
-- ARGV[5] callback URL
-- ARGV[6] its endpoint
-- ARGV[7] the endpoint's name
-- ARGV[8] the URL that they have now; others are left alone
-- ARGV[9] its endpoint
-- then for each, in order of acceptance: eventId
-- returns {'moved', now, number of callbacks, ends ...}
-- Each keeps its due time, its attempts, and its place in the order of its message; where that is `latest` and a newer
-- status went to the new endpoint already, it ends superseded.
-- Refused when Redis is full (the first write is a SET).
-- include keys
-- include clock
-- include guard
-- include counts
-- include endpoint
-- include entry
-- include ending
local workspace, url, new, moved, touched, is_known = ARGV[4], ARGV[5], ARGV[6], 0, { [ARGV[9]] = true }, false

-- The one callback of a message that waits at the new endpoint where no chain says so.
local function lone(uuid, id)
  for other in string.gmatch(redis.call('GET', key_of('message', workspace, uuid)) or '', '%S+') do
    local o = other ~= id and read_entry(workspace, other)
    if o and o.endpoint == new and not o.ended and not o.extra.left then return other end
  end
end

local function is_in_chain(chain, id)
  for _, one in ipairs(redis.call('LRANGE', chain, 0, -1)) do
    if one == id then return true end
  end
end

local function place(id, uuid, due)
  local chain = key_of('chain', new, uuid)
  local head = redis.call('LINDEX', chain, 0)
  local before = not head and lone(uuid, id)
  if before then return redis.call('RPUSH', chain, before, id) end
  if not head or not is_in_chain(chain, id) then redis.call('RPUSH', chain, id) end
  if not head or head == id then redis.call('ZADD', key_of('lane', new), due, id) end
end

local function is_superseded(uuid, stamp)
  local newest = stamp and redis.call('GET', key_of('newest', new, uuid))
  return newest and stamp < newest
end

-- The new endpoint's record is there before anything is at it.
local function know()
  if is_known then return end
  redis.call('HSET', key_of('endpoint', new), 'name', ARGV[7], 'seen', NOW)
  guarded(redis.call, 'ZADD', key_of('endpoints'), 'GT', NOW, new)
  if redis.call('HEXISTS', key_of('endpoint', new), 'stopped') == 0 then
    redis.call('PEXPIRE', key_of('endpoint', new), MAX_TTL + HOUR + ARGV[3])
  end
  is_known = true
end

-- First it is put where it goes, then it leaves where it was, and then its entry says so: wherever that breaks off, the
-- next one does it again.
local function move(id, e)
  local old, uuid = e.endpoint, e.message
  if is_superseded(uuid, e.extra.stamp) then
    redis.call('ZREM', key_of('lane', old), id)
    return finish(workspace, id, e, 'superseded')
  end
  local due = redis.call('ZSCORE', key_of('lane', old), id) or NOW
  local newest, known = redis.call('GET', key_of('newest', old, uuid)), redis.call('GET', key_of('newest', new, uuid))
  if newest and (not known or known < newest) then
    redis.call('SET', key_of('newest', new, uuid), newest, 'PX', math.max(redis.call('PTTL', key_of('newest', old, uuid)), 1))
  end
  if e.extra.left then redis.call('ZADD', key_of('lane', new), due, id) else place(id, uuid, due) end
  redis.call('ZREM', key_of('lane', old), id)
  leave_chain(old, uuid, id)
  e.endpoint = new
  write_entry(workspace, id, e)
  count_waiting(old, -1)
  count_waiting(new, 1)
end

for i = 10, #ARGV do
  local id = ARGV[i]
  local e = read_entry(workspace, id)
  local body = e and not e.ended and not redis.call('ZSCORE', key_of('leased', e.endpoint), id) and redis.call('GET', key_of('body', workspace, id))
  if body and string.match(body, '^[^\n]*') == ARGV[8] then
    know()
    touched[e.endpoint] = true
    if e.endpoint ~= new then move(id, e) end
    redis.call('SET', key_of('body', workspace, id), url .. string.match(body, '\n.*$'), 'KEEPTTL')
    moved = moved + 1
  end
end
for endpoint in pairs(touched) do
  if endpoint ~= new then reschedule_after_ends(look(load(endpoint))) end
end
reschedule(look(load(new)))
write_counts()
return with_ends({ 'moved', now, moved })
