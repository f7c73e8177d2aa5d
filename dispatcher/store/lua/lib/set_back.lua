-- What waits from before Redis's clock was set back.

local earlier = {}
-- Makes a callback without an attempt due now if it was accepted, and is due, more than a minute later than
-- now. One that is replayed later on purpose was accepted before. Returns true.
local function set_due(entry, id, due)
  local latest = now + 60000
  if due > latest and entry.accepted > latest and entry.attempts == '' then
    redis.call('ZADD', key_of('lane', entry.endpoint), NOW, id)
    earlier[entry.endpoint] = true
  end
  return true
end

-- Whether something of the endpoint was made due since this was asked last.
local function was_set_due(endpoint_id)
  local was = earlier[endpoint_id]
  earlier[endpoint_id] = nil
  return was
end
