-- How a callback leaves its chain, and how it ends. ARGV[3] is the retention in ms.

-- Removes a callback from its chain by id; if it was the head, the next one goes to the lane.
local function leave_chain(endpoint, uuid, id)
  local chain = chain_key(endpoint, uuid)
  local head = redis.call('LINDEX', chain, 0)
  if not head then return end
  redis.call('LREM', chain, 1, id)
  if head ~= id then return end
  local following = redis.call('LINDEX', chain, 0)
  if following then redis.call('ZADD', lane_key(endpoint), now, following) end
end

local function finish(workspace, id, endpoint, uuid, state, body_ms)
  local retention = tonumber(ARGV[3])
  redis.call('HSET', event_key(workspace, id), 'state', state, 'ended', now)
  redis.call('PEXPIRE', event_key(workspace, id), retention)
  if body_ms == 0 then
    redis.call('DEL', body_key(workspace, id))
  else
    redis.call('PEXPIRE', body_key(workspace, id), body_ms or retention)
  end
  redis.call('PEXPIRE', answer_key(workspace, id), retention)
  redis.call('ZREM', EXPIRIES, workspace .. ':' .. id)
  leave_chain(endpoint, uuid, id)
  if redis.call('HINCRBY', endpoint_key(endpoint), 'waiting', -1) <= 0 then
    local stopped = redis.call('HEXISTS', endpoint_key(endpoint), 'stopped') == 1
    if not stopped then redis.call('PEXPIRE', endpoint_key(endpoint), retention) end -- events show it by name
  end
  count(state)
end
