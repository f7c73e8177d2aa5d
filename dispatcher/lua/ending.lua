-- How a callback leaves its chain, and how it ends. ARGV[3] is the retention in ms.

-- What ended otherwise than delivered, for the caller's log: {workspace, eventId, state, endpoint's name, type,
-- last attempt ('' = none), answer}
local ends = {}

-- Removes a callback from its chain by id; if it was the head, the next one goes to the lane. No chain is written where
-- a message never had two callbacks waiting.
local function leave_chain(endpoint, uuid, id)
  local chain = chain_key(endpoint, uuid)
  local head = redis.call('LPOP', chain)
  if not head then return end
  if head ~= id then
    redis.call('LPUSH', chain, head)
    redis.call('LREM', chain, 1, id)
    return
  end
  local following = redis.call('LINDEX', chain, 0)
  if following then redis.call('ZADD', lane_key(endpoint), NOW, following) end
end

-- Lists what ended otherwise than delivered, for people and for the log.
local function list_end(workspace, id, endpoint, state)
  local key, listed = event_key(workspace, id), ended_key(workspace, state)
  redis.call('ZADD', listed, NOW, id)
  redis.call('ZREMRANGEBYSCORE', listed, '-inf', now - ARGV[3])
  redis.call('PEXPIRE', listed, ARGV[3])
  local h = redis.call('HMGET', key, 'type', 'attempts')
  ends[#ends + 1] = { workspace, id, state, redis.call('HGET', endpoint_key(endpoint), 'name') or '', h[1],
    h[2] and redis.call('HGET', key, 'a' .. h[2]) or '', redis.call('GET', answer_key(workspace, id)) or '' }
end

-- `fields` are set with the state; `body_ms` is how long the body stays (nil: the retention); `answered` is false
-- where no answer was kept; `counted` is the name it is counted by, where that is not its state.
local function finish(workspace, id, endpoint, uuid, state, fields, body_ms, answered, counted)
  local key, retention = event_key(workspace, id), tonumber(ARGV[3])
  redis.call('HSET', key, 'state', state, 'ended', NOW, unpack(fields or {}))
  redis.call('PEXPIRE', key, retention)
  if body_ms == 0 then
    redis.call('DEL', body_key(workspace, id))
  else
    redis.call('PEXPIRE', body_key(workspace, id), body_ms or retention)
  end
  if answered ~= false then redis.call('PEXPIRE', answer_key(workspace, id), retention) end
  redis.call('ZREM', EXPIRIES, workspace .. ':' .. id)
  leave_chain(endpoint, uuid, id)
  count_waiting(endpoint, -1)
  if state ~= 'delivered' then list_end(workspace, id, endpoint, state) end
  count(counted or state, workspace, endpoint)
end
