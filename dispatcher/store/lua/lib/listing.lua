-- Lists that nothing but people, commands and metrics read: puts back what is missing there.
local LISTED_STATES = { failed = true, expired = true, superseded = true }

local function add_to(list, member, score)
  if redis.call('ZSCORE', list, member) then return false end -- a write is refused when Redis is full
  redis.call('ZADD', list, score, member)
  return true
end

-- An endpoint that the operator stopped, for which something waits, or that was used within the retention:
-- expire removes those that were not.
local function list_endpoint(endpoint_id)
  local h = redis.call('HMGET', key_of('endpoint', endpoint_id), 'name', 'stopped', 'waiting', 'seen')
  local seen = math.min(tonumber(h[4]) or 0, now)
  local is_waiting_for = (tonumber(h[3]) or 0) > 0
  local was_used = seen >= now - RETENTION_MS - HOUR
  if h[1] and (h[2] or is_waiting_for or was_used) then
    add_to(key_of('endpoints'), endpoint_id, h[2] and 'inf' or is_waiting_for and NOW or int(seen))
  end
end

-- A callback that has ended within the retention, in any state but delivered.
local function list_end_again(workspace, id, entry)
  local ended = entry.accepted + entry.ended
  if not LISTED_STATES[entry.state] or ended < now - RETENTION_MS then return end
  local list = key_of('ended', workspace, entry.state)
  look_at_type(list, 'zset')
  if add_to(list, id, int(ended)) then redis.call('PEXPIRE', list, RETENTION_MS) end
end
