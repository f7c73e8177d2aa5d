-- forget: removes callbacks that have ended from the ledger, with their bodies and answers.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] workspace
-- then for each: eventId
-- returns {'forgotten', now, number of callbacks}
-- Works when Redis is full.
-- include keys
-- include clock
-- include guard
-- include entry
redis.call('DEL', P .. 'never')
local workspace, forgotten = ARGV[2], 0

-- Takes an eventId out of its message's.
local function forget_of_message(uuid, forgotten_id)
  local key, kept = key_of('message', workspace, uuid), {}
  for id in string.gmatch(redis.call('GET', key) or '', '%S+') do
    if id ~= forgotten_id then kept[#kept + 1] = id end
  end
  if #kept == 0 then return redis.call('DEL', key) end
  redis.call('SET', key, table.concat(kept, ' '), 'KEEPTTL')
end

for i = 3, #ARGV do
  local id = ARGV[i]
  local e = read_entry(workspace, id)
  if e and e.ended then
    forget_of_message(e.message, id)
    guarded(redis.call, 'ZREM', key_of('ended', workspace, e.state), id)
    redis.call('DEL', key_of('body', workspace, id), key_of('answer', workspace, id), key_of('event', workspace, id))
    forgotten = forgotten + 1
  end
end
return { 'forgotten', now, forgotten }
