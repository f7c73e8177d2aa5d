-- How a callback ends.

-- What accept will add to the expiries at its end (lib/batch.lua; nil in other scripts).
local expiries_to_add

-- Callbacks that ended in any state but delivered, for the caller's log: workspace, eventId, endpoint's name,
-- entry and answer ('' = none) of each. They come at the end of a reply.
local ends = {}

-- What leaves the expiries. It goes last: a callback that has ended and is in there was not ended completely;
-- expire.lua ends it again.
local ended_expiries = {}
local function leave_expiries()
  if #ended_expiries == 0 then return end
  guarded_call('ZREM', key_of('expiries'), unpack(ended_expiries))
  ended_expiries = {}
end

-- What a script that may end callbacks does at its end; returns the whole reply.
local function conclude(reply)
  leave_expiries()
  write_counts()
  for i = 1, #ends do reply[#reply + 1] = ends[i] end
  return reply
end

-- Notes a callback that has ended for the archive, if the installation has one.
local function note_end(workspace, id)
  if ARCHIVES then guarded(redis.call, 'XADD', key_of('ended'), '*', 'of', workspace .. ' ' .. id) end
end

-- Lists a callback that ended in any state but delivered. If that fails, it ends nevertheless.
local function list_end(workspace, id, entry)
  guarded(function()
    local listed = key_of('ended', workspace, entry.state)
    redis.call('ZADD', listed, NOW, id)
    redis.call('ZREMRANGEBYSCORE', listed, '-inf', now - RETENTION_MS)
    redis.call('PEXPIRE', listed, RETENTION_MS)
  end)
end

local function tell_end(workspace, id, entry)
  local _, name = guarded(redis.call, 'HGET', key_of('endpoint', entry.endpoint), 'name')
  local answer = redis.call('MGET', key_of('answer', workspace, id))[1]
  local n = #ends
  ends[n + 1], ends[n + 2], ends[n + 3] = workspace, id, name or ''
  ends[n + 4], ends[n + 5] = text_of(entry), answer or ''
end

-- Ends a callback. `body_ms` is how long the body stays (nil: the retention); `answered` is false if no
-- answer was kept; `counted_as` is the name it is counted by, if that is not its state; `in_hour`: in the
-- counters of the hour.
local function finish(workspace, id, entry, state, body_ms, answered, counted_as, in_hour)
  entry.state, entry.ended = state, int(now - entry.accepted)
  if state ~= 'delivered' then list_end(workspace, id, entry) end
  if body_ms ~= '0' then redis.call('PEXPIRE', key_of('body', workspace, id), body_ms or RETENTION_MS) end
  if answered ~= false then redis.call('PEXPIRE', key_of('answer', workspace, id), RETENTION_MS) end
  write_entry(workspace, id, entry, RETENTION_MS)
  if body_ms == '0' then redis.call('DEL', key_of('body', workspace, id)) end
  if not entry.is_chainless then leave_chain(entry.endpoint, entry.message, id) end
  note_end(workspace, id)
  local expiry = workspace .. ':' .. id
  if expiries_to_add then expiries_to_add[expiry] = nil end
  ended_expiries[#ended_expiries + 1] = expiry
  if state ~= 'delivered' then tell_end(workspace, id, entry) end
  count_waiting(entry.endpoint, -1)
  count(counted_as or state, workspace, entry.endpoint, 1, in_hour)
end

-- Reschedules an assessed endpoint after callbacks of it ended. If its lane is empty and nothing is leased,
-- nothing waits: corrects the count, which a run that broke off may have left wrong.
local function reschedule_after_ends(endpoint)
  local waiting = endpoint.waiting + (waiting_changes[endpoint.id] or 0)
  if endpoint.leased == 0 and not endpoint.due_at and waiting ~= 0 then
    waiting_changes[endpoint.id] = -endpoint.waiting
  end
  reschedule(endpoint)
end
