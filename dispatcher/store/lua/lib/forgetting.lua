-- How an eventId leaves the string of those of its message.
local function forget_of_message(workspace, message, forgotten_id)
  local key, kept = key_of('message', workspace, message), {}
  for id in string.gmatch(redis.call('MGET', key)[1] or '', '%S+') do
    if id ~= forgotten_id then kept[#kept + 1] = id end
  end
  if #kept == 0 then return redis.call('DEL', key) end
  redis.call('SET', key, table.concat(kept, ' '), 'KEEPTTL')
end
