-- How eventIds leave the strings of those of their messages: each string is written once, however many leave.
local forgotten_ids = {}
local function forget_of_message(workspace, message, id)
  local key = key_of('message', workspace, message)
  local ids = forgotten_ids[key] or {}
  forgotten_ids[key], ids[id] = ids, true
end

local function write_messages()
  for key, ids in pairs(forgotten_ids) do
    local kept = {}
    for id in string.gmatch(redis.call('MGET', key)[1] or '', '%S+') do
      if not ids[id] then kept[#kept + 1] = id end
    end
    if #kept == 0 then
      redis.call('DEL', key)
    else
      redis.call('SET', key, table.concat(kept, ' '), 'KEEPTTL')
    end
  end
end
