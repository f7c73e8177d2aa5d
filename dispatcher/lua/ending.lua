-- How a callback leaves its chain, and how it ends. ARGV[3] is the retention in ms.

-- What ended otherwise than delivered, for the caller's log: for each of them workspace, eventId, endpoint's name, entry,
-- answer ('' = none). They are the last of a reply.
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
local function list_end(workspace, id, e)
  local listed, name = key_of('ended', workspace, e.state), redis.call('HGET', key_of('endpoint', e.endpoint), 'name')
  redis.call('ZADD', listed, NOW, id)
  redis.call('ZREMRANGEBYSCORE', listed, '-inf', now - ARGV[3])
  redis.call('PEXPIRE', listed, ARGV[3])
  local answer = redis.call('GET', key_of('answer', workspace, id))
  for _, value in ipairs({ workspace, id, name or '', text_of(e), answer or '' }) do ends[#ends + 1] = value end
end

-- `body_ms` is how long the body stays (nil: the retention); `answered` is false where no answer was kept; `counted` is
-- the name it is counted by, where that is not its state.
local function finish(workspace, id, e, state, body_ms, answered, counted)
  local retention = ARGV[3]
  e.state, e.ended = state, int(now - e.accepted)
  write_entry(workspace, id, e, retention)
  if body_ms == 0 then
    redis.call('DEL', key_of('body', workspace, id))
  else
    redis.call('PEXPIRE', key_of('body', workspace, id), body_ms or retention)
  end
  if answered ~= false then redis.call('PEXPIRE', key_of('answer', workspace, id), retention) end
  redis.call('ZREM', key_of('expiries'), workspace .. ':' .. id)
  leave_chain(e.endpoint, e.message, id)
  count_waiting(e.endpoint, -1)
  if state ~= 'delivered' then list_end(workspace, id, e) end
  count(counted or state, workspace, e.endpoint)
end
