-- What accept does with the other callbacks of an incoming callback's message.

-- For `latest`: ends those that are older than this one and not leased.
local function supersede_older(endpoint, message, stamp)
  write_entries()
  write_lane(endpoint)
  local workspace, leased = endpoint.workspace, endpoint.leased_key
  for _, id in ipairs(redis.call('LRANGE', key_of('chain', endpoint.id, message), 0, -1)) do
    local other = read_entry(workspace, id)
    local is_older = other and not other.ended and (other.extra.stamp or stamp) < stamp
    if is_older and not redis.call('ZSCORE', leased, id) then
      redis.call('ZREM', key_of('lane', endpoint.id), id)
      finish(workspace, id, other, 'superseded')
    end
  end
end

-- Adds an eventId to those of its message, separated by spaces; a string, because a list takes twice the
-- memory. Returns those that were there before this one.
local function add_to_message(workspace, message, id, keep_ms)
  local key = key_of('message', workspace, message)
  if redis.call('SET', key, id, 'PX', keep_ms, 'NX') then return '' end
  local ids = redis.call('GET', key)
  local place = string.find(' ' .. ids .. ' ', ' ' .. id .. ' ', 1, true) -- by a run that broke off
  if place then return string.sub(ids, 1, math.max(place - 2, 0)) end
  redis.call('APPEND', key, ' ' .. id)
  if redis.call('PTTL', key) < tonumber(keep_ms) then redis.call('PEXPIRE', key, keep_ms) end
  return ids
end

-- Those of some ids, but for `id` itself, that are for the same subscription: no others go to its endpoint.
local function of_same_subscription(ids, id)
  local suffix, found = string.match(id, '%..*$') or '', {}
  for other in string.gmatch(ids, '%S+') do
    if (string.match(other, '%..*$') or '') == suffix and other ~= id then found[#found + 1] = other end
  end
  return table.concat(found, ' ')
end

-- Adds a callback to those of its message; returns those of its subscription that were there before. Of a
-- status change with several callbacks all are added with the first one that is taken in.
local before_change = {}
local function remember_message(queue_entry, workspace, message, id, keep_ms)
  local ids = ids_of_change[queue_entry]
  local before = ids and before_change[queue_entry]
  if not before then before = add_to_message(workspace, message, ids or id, keep_ms) end
  if ids then before_change[queue_entry] = before end
  return before ~= '' and string.find(before, '.', 1, true) and of_same_subscription(before, id) or before
end

-- The callback that a new one of the same message and endpoint has to wait for if there is no chain: the last
-- of those before it, if that is pending and has not left its place.
local function one_before(workspace, endpoint_id, ids)
  while ids ~= '' do
    local id = string.match(ids, '%S+$')
    local other = read_entry(workspace, id)
    local is_here = other and other.endpoint == endpoint_id
    -- one that ended when it was accepted (endpoint_full) never had a place, so another one may be before it
    local had_no_turn = other and other.ended and other.claims == '0'
    if is_here and not had_no_turn and other.state ~= 'superseded' and not other.extra.replay_of then
      return not other.ended and not other.extra.left and id or nil
    end
    ids = string.sub(ids, 1, -#id - 2)
  end
end

-- Whether a callback that was taken in by a run that broke off is in its lane, leased, or in its chain behind
-- another one.
local function is_placed(endpoint_id, message, id)
  if redis.call('ZSCORE', key_of('lane', endpoint_id), id) then return true end
  if redis.call('ZSCORE', key_of('leased', endpoint_id), id) then return true end
  for place, one in ipairs(redis.call('LRANGE', key_of('chain', endpoint_id, message), 0, -1)) do
    if one == id then return place > 1 end
  end
end

-- Removes a callback from its endpoint, because it was rendered for another URL meanwhile.
local function leave_endpoint(entry, id)
  redis.call('ZREM', key_of('lane', entry.endpoint), id)
  leave_chain(entry.endpoint, entry.message, id)
end
