-- forget: removes ended callbacks from the ledger, with their bodies and answers.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   workspace
--   for each callback: id
-- returns {'forgotten', now, number of callbacks}
-- Works when Redis is full.
-- include prologue
-- include guard
-- include entry
redis.call('DEL', PREFIX .. 'never')
local workspace = take(1)
local forgotten = 0

-- Removes an eventId from those of its message.
local function forget_of_message(message, forgotten_id)
  local key, kept = key_of('message', workspace, message), {}
  for id in string.gmatch(redis.call('GET', key) or '', '%S+') do
    if id ~= forgotten_id then kept[#kept + 1] = id end
  end
  if #kept == 0 then return redis.call('DEL', key) end
  redis.call('SET', key, table.concat(kept, ' '), 'KEEPTTL')
end

for id in each(1) do
  local entry = read_entry(workspace, id)
  if entry and entry.ended then
    forget_of_message(entry.message, id)
    guarded(redis.call, 'ZREM', key_of('ended', workspace, entry.state), id)
    redis.call(
      'DEL', key_of('body', workspace, id), key_of('answer', workspace, id), key_of('event', workspace, id))
    forgotten = forgotten + 1
  end
end
return { 'forgotten', now, forgotten }
