-- How a callback leaves its chain, and how it ends. ARGV[3] is the retention in ms.

-- What ended otherwise than delivered, for the caller's log: for each of them workspace, eventId, state, endpoint's name,
-- type, last attempt ('' = none), answer. They are the last of a reply.
local ends = {}
local function with_ends(reply)
  for _, value in ipairs(ends) do reply[#reply + 1] = value end
  return reply
end

-- Removes a callback from its chain by id; if it was the head, the next one goes to the lane. No chain is written where
-- a message never had two callbacks waiting.
local function leave_chain(endpoint, uuid, id)
  local chain = key_of('chain', endpoint, uuid)
  local head = redis.call('LPOP', chain)
  if not head then return end
  if head ~= id then
    redis.call('LPUSH', chain, head)
    redis.call('LREM', chain, 1, id)
    return
  end
  local following = redis.call('LINDEX', chain, 0)
  if following then redis.call('ZADD', key_of('lane', endpoint), NOW, following) end
end

-- Lists what ended otherwise than delivered, for people and for the log.
local function list_end(workspace, id, endpoint, state)
  local key, listed = key_of('event', workspace, id), key_of('ended', workspace, state)
  redis.call('ZADD', listed, NOW, id)
  redis.call('ZREMRANGEBYSCORE', listed, '-inf', now - ARGV[3])
  redis.call('PEXPIRE', listed, ARGV[3])
  local h = redis.call('HMGET', key, 'about', 'attempts')
  local name, last = redis.call('HGET', key_of('endpoint', endpoint), 'name'), h[2] and redis.call('HGET', key, 'a' .. h[2])
  local told = { workspace, id, state, name or '', string.match(h[1], ' (%S+)'), last or '', redis.call('GET', key_of('answer', workspace, id)) or '' }
  for _, value in ipairs(told) do ends[#ends + 1] = value end
end

-- `fields` are set with the state; `body_ms` is how long the body stays (nil: the retention); `answered` is false
-- where no answer was kept; `counted` is the name it is counted by, where that is not its state.
local function finish(workspace, id, endpoint, uuid, state, fields, body_ms, answered, counted)
  local key, retention = key_of('event', workspace, id), tonumber(ARGV[3])
  redis.call('HSET', key, 'state', state, 'ended', NOW, unpack(fields or {}))
  redis.call('PEXPIRE', key, retention)
  if body_ms == 0 then
    redis.call('DEL', key_of('body', workspace, id))
  else
    redis.call('PEXPIRE', key_of('body', workspace, id), body_ms or retention)
  end
  if answered ~= false then redis.call('PEXPIRE', key_of('answer', workspace, id), retention) end
  redis.call('ZREM', key_of('expiries'), workspace .. ':' .. id)
  leave_chain(endpoint, uuid, id)
  count_waiting(endpoint, -1)
  if state ~= 'delivered' then list_end(workspace, id, endpoint, state) end
  count(counted or state, workspace, endpoint)
end
