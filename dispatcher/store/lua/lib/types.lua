-- Whether keys are of the types that our scripts give them. The sweep returns `aside_keys`: those that were
-- set aside or mended.
local aside_keys, looked = {}, {}

local function look_at_type(key, type_)
  if looked[key] then return end
  looked[key] = true
  if set_aside(key, type_) then aside_keys[#aside_keys + 1] = key end
end

-- Those that a callback needs until its end.
local function look_at_types(workspace, entry)
  local endpoint_id, record = entry.endpoint, key_of('endpoint', entry.endpoint)
  local is_first = not looked[record]
  for kind, type_ in pairs({ lane = 'zset', leased = 'zset', endpoint = 'hash' }) do
    look_at_type(key_of(kind, endpoint_id), type_)
  end
  if is_first and mend_record(endpoint_id) then aside_keys[#aside_keys + 1] = record end
  look_at_type(key_of('schedule', workspace), 'zset')
  look_at_type(key_of('chain', endpoint_id, entry.message), 'list')
  look_at_type(key_of('newest', endpoint_id, entry.message), 'string')
  look_at_type(key_of('message', workspace, entry.message), 'string')
end
