-- How a callback leaves its chain, and how it ends. ARGV[3] is the retention in ms.

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

-- `fields` are set with the state; `body_ms` is how long the body stays (nil: the retention); `answered` is false
-- where no answer was kept.
local function finish(workspace, id, endpoint, uuid, state, fields, body_ms, answered)
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
  redis.call('HINCRBY', endpoint_key(endpoint), 'waiting', -1)
  count(state)
end
