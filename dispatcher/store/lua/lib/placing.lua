-- Where a callback goes that is in no list, as after a power cut or if somebody deleted one.

-- Those of a message that wait for one endpoint one after the other, in the order of acceptance.
local function in_chain(workspace, id, entry)
  local found, ids = {}, redis.call('MGET', key_of('message', workspace, entry.message))[1]
  for other_id in string.gmatch(ids or '', '%S+') do
    local other = other_id == id and entry or read_entry(workspace, other_id)
    local waits = other and not other.ended and other.endpoint == entry.endpoint
    local has_place = other_id == id or other and not other.extra.replay_of
    if waits and not other.extra.left and has_place then found[#found + 1] = other_id end
  end
  return found
end

-- Puts it into its chain, which is made anew, if others of its message wait; else into the lane.
local function place_again(workspace, id, entry)
  local lane, chain = key_of('lane', entry.endpoint), key_of('chain', entry.endpoint, entry.message)
  local ids = entry.extra.left and {} or in_chain(workspace, id, entry)
  if #ids < 2 then return redis.call('ZADD', lane, NOW, id) end
  redis.call('DEL', chain)
  for i, one in ipairs(ids) do
    redis.call('RPUSH', chain, one)
    if i > 1 then redis.call('ZREM', lane, one) end
  end
  if not redis.call('ZSCORE', key_of('leased', entry.endpoint), ids[1]) then
    redis.call('ZADD', lane, 'NX', NOW, ids[1])
  end
end
