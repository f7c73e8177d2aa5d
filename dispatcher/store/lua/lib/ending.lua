-- How a callback ends.

-- What accept is going to add to the expiries at its end (lib/batch.lua; nil in other scripts).
local expiries_to_add

-- What ended in any state but delivered, for the caller's log: for each of them workspace, eventId,
-- endpoint's name, entry, answer ('' = none). They are the last of a reply.
local ends = {}
local function with_ends(reply)
  for _, value in ipairs(ends) do reply[#reply + 1] = value end
  return reply
end

-- Lists what ended in any state but delivered, for people and for the log. No end waits for that.
local function add_to_list(workspace, id, state)
  local listed = key_of('ended', workspace, state)
  redis.call('ZADD', listed, NOW, id)
  redis.call('ZREMRANGEBYSCORE', listed, '-inf', now - RETENTION_MS)
  redis.call('PEXPIRE', listed, RETENTION_MS)
end

local function list_end(workspace, id, entry)
  guarded(add_to_list, workspace, id, entry.state)
  local _, name = guarded(redis.call, 'HGET', key_of('endpoint', entry.endpoint), 'name')
  local answer = redis.call('GET', key_of('answer', workspace, id))
  local n = #ends
  ends[n + 1], ends[n + 2], ends[n + 3] = workspace, id, name or ''
  ends[n + 4], ends[n + 5] = text_of(entry), answer or ''
end

-- `body_ms` is how long the body stays (nil: the retention); `answered` is false where no answer was kept;
-- `counted_as` is the name it is counted by, where that is not its state. It leaves the expiries last: what
-- is in there and has ended was not ended whole, and is done again (expire.lua).
local function finish(workspace, id, entry, state, body_ms, answered, counted_as)
  entry.state, entry.ended = state, int(now - entry.accepted)
  if state ~= 'delivered' then list_end(workspace, id, entry) end
  if body_ms ~= 0 then redis.call('PEXPIRE', key_of('body', workspace, id), body_ms or RETENTION_MS) end
  if answered ~= false then redis.call('PEXPIRE', key_of('answer', workspace, id), RETENTION_MS) end
  write_entry(workspace, id, entry, RETENTION_MS)
  if body_ms == 0 then redis.call('DEL', key_of('body', workspace, id)) end
  leave_chain(entry.endpoint, entry.message, id)
  if expiries_to_add then expiries_to_add[workspace .. ':' .. id] = nil end
  guarded(redis.call, 'ZREM', key_of('expiries'), workspace .. ':' .. id)
  count_waiting(entry.endpoint, -1)
  count(counted_as or state, workspace, entry.endpoint)
end

-- When an assessed endpoint of which callbacks have ended needs attention next. One with nothing left has
-- nothing waiting, whatever a run that broke off has counted.
local function reschedule_after_ends(endpoint)
  local waiting = endpoint.waiting + (waiting_changes[endpoint.id] or 0)
  if endpoint.leased == 0 and not endpoint.due_at and waiting ~= 0 then
    waiting_changes[endpoint.id] = -endpoint.waiting
  end
  reschedule(endpoint)
end
