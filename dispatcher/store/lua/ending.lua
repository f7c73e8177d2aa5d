-- How a callback leaves its chain, and how it ends. ARGV[3] is the retention in ms.

-- What accept is going to add to the expiries at its end (nil in other scripts).
local expiries_to_add

-- What ended otherwise than delivered, for the caller's log: for each of them workspace, eventId, endpoint's name, entry,
-- answer ('' = none). They are the last of a reply.
local ends = {}
local function with_ends(reply)
  for _, value in ipairs(ends) do reply[#reply + 1] = value end
  return reply
end

-- Whether the head of a chain holds the others up for nothing: it has ended, has left, is another endpoint's by now, or is gone. Redis that
-- lost its last writes may leave such a one.
local function is_spent(workspace, endpoint, id)
  local e = read_entry(workspace, id)
  return not e or e.ended or e.extra.left ~= nil or e.endpoint ~= endpoint
end

-- The head of a chain, or nil. What is spent is taken off it; the first one that is not goes to the lane, if it is nowhere.
local function heal_chain(workspace, endpoint, uuid)
  local chain, healed = key_of('chain', endpoint, uuid), false
  local head = redis.call('LINDEX', chain, 0)
  while head and is_spent(workspace, endpoint, head) do
    redis.call('LREM', chain, 1, head)
    head, healed = redis.call('LINDEX', chain, 0), true
  end
  if head and healed and not redis.call('ZSCORE', key_of('leased', endpoint), head) then
    redis.call('ZADD', key_of('lane', endpoint), 'NX', NOW, head)
  end
  return head
end

-- Removes a callback from its chain by id; if it was the head, the next one goes to the lane, before that one leaves. No
-- chain is written where a message never had two callbacks waiting.
local function leave_chain(endpoint, uuid, id)
  local chain = key_of('chain', endpoint, uuid)
  local head = redis.call('LINDEX', chain, 0)
  if not head then return end
  if head == id then
    local following = redis.call('LINDEX', chain, 1)
    if following then redis.call('ZADD', key_of('lane', endpoint), 'NX', NOW, following) end
  end
  redis.call('LREM', chain, 1, id)
end

-- Lists what ended otherwise than delivered, for people and for the log. No end waits for that.
local function add_to_list(workspace, id, state)
  local listed = key_of('ended', workspace, state)
  redis.call('ZADD', listed, NOW, id)
  redis.call('ZREMRANGEBYSCORE', listed, '-inf', now - ARGV[3])
  redis.call('PEXPIRE', listed, ARGV[3])
end

local function list_end(workspace, id, e)
  guarded(add_to_list, workspace, id, e.state)
  local _, name = guarded(redis.call, 'HGET', key_of('endpoint', e.endpoint), 'name')
  local answer = redis.call('GET', key_of('answer', workspace, id))
  for _, value in ipairs({ workspace, id, name or '', text_of(e), answer or '' }) do ends[#ends + 1] = value end
end

-- `body_ms` is how long the body stays (nil: the retention); `answered` is false where no answer was kept; `counted` is
-- the name it is counted by, where that is not its state. It leaves the expiries last: what is in there and has ended
-- was not ended whole, and is done again (expire.lua).
local function finish(workspace, id, e, state, body_ms, answered, counted)
  local retention = ARGV[3]
  e.state, e.ended = state, int(now - e.accepted)
  if state ~= 'delivered' then list_end(workspace, id, e) end
  if body_ms ~= 0 then redis.call('PEXPIRE', key_of('body', workspace, id), body_ms or retention) end
  if answered ~= false then redis.call('PEXPIRE', key_of('answer', workspace, id), retention) end
  write_entry(workspace, id, e, retention)
  if body_ms == 0 then redis.call('DEL', key_of('body', workspace, id)) end
  leave_chain(e.endpoint, e.message, id)
  if expiries_to_add then expiries_to_add[workspace .. ':' .. id] = nil end
  guarded(redis.call, 'ZREM', key_of('expiries'), workspace .. ':' .. id)
  count_waiting(e.endpoint, -1)
  count(counted or state, workspace, e.endpoint)
end

-- When an endpoint (looked at) of which callbacks have ended needs attention next. One with nothing left has nothing waiting,
-- whatever a run that broke off has counted.
local function reschedule_after_ends(s)
  if s.leased == 0 and not s.from and s.waiting + (waiting_changes[s.id] or 0) ~= 0 then waiting_changes[s.id] = -s.waiting end
  reschedule(s)
end
