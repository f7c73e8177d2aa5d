-- The callbacks of one message to one endpoint, of which only the first is in the lane: how one leaves, and
-- how a chain is healed.

-- Whether the head of a chain holds the others up for nothing: it has ended, has left, is another endpoint's
-- by now, or is gone. Redis that lost its last writes may leave such a one.
local function is_spent(workspace, endpoint_id, id)
  local entry = read_entry(workspace, id)
  return not entry or entry.ended or entry.extra.left ~= nil or entry.endpoint ~= endpoint_id
end

-- The head of a chain, or nil. What is spent is taken off it; the first one that is not goes to the lane, if
-- it is nowhere.
local function heal_chain(workspace, endpoint_id, message)
  local chain, healed = key_of('chain', endpoint_id, message), false
  local head = redis.call('LINDEX', chain, 0)
  while head and is_spent(workspace, endpoint_id, head) do
    redis.call('LREM', chain, 1, head)
    head, healed = redis.call('LINDEX', chain, 0), true
  end
  if head and healed and not redis.call('ZSCORE', key_of('leased', endpoint_id), head) then
    redis.call('ZADD', key_of('lane', endpoint_id), 'NX', NOW, head)
  end
  return head
end

-- Removes a callback from its chain by id; if it was the head, the next one goes to the lane, before that one
-- leaves. No chain is written where a message never had two callbacks waiting.
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
