-- Chains: the callbacks of one message to one endpoint, of which only the first may be in the lane. How one
-- leaves its chain, and how a chain is healed.

-- The head of a chain, or nil. Removes spent heads; the first one that is not spent then goes to the lane,
-- unless it is there or leased.
local function heal_chain(workspace, endpoint_id, message)
  -- Whether a head blocks the others for nothing: it has ended, has left, moved to another endpoint, or is
  -- gone. This may happen if Redis lost its last writes.
  local function is_spent(id)
    local entry = read_entry(workspace, id)
    return not entry or entry.ended or entry.extra.left ~= nil or entry.endpoint ~= endpoint_id
  end
  local chain, healed = key_of('chain', endpoint_id, message), false
  local head = redis.call('LINDEX', chain, 0)
  while head and is_spent(head) do
    redis.call('LREM', chain, 1, head)
    head, healed = redis.call('LINDEX', chain, 0), true
  end
  if head and healed and not redis.call('ZSCORE', key_of('leased', endpoint_id), head) then
    redis.call('ZADD', key_of('lane', endpoint_id), 'NX', NOW, head)
  end
  return head
end

-- Removes a callback from its chain by id; if it was the head, puts the next one into the lane first.
local function leave_chain(endpoint_id, message, id)
  local chain = key_of('chain', endpoint_id, message)
  local head = redis.call('LINDEX', chain, 0)
  if not head then return end
  if head == id then
    local following = redis.call('LINDEX', chain, 1)
    if following then redis.call('ZADD', key_of('lane', endpoint_id), 'NX', NOW, following) end
  end
  redis.call('LREM', chain, 1, id)
end
