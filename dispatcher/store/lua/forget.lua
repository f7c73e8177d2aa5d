-- forget: removes ended callbacks from the ledger, with their bodies and answers.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   workspace
--   for each callback: id
-- returns {'forgotten', now, number of callbacks}
-- Works when Redis is full.
-- include prologue
-- include guard
-- include entry
-- include forgetting
redis.call('DEL', PREFIX .. 'never')
local workspace = take(1)
local forgotten = 0

-- The key of a status change that the default subscription did not want, if this is its last callback.
local function change_without_others(id)
  local event_id, own = string.match(id, '^([^.]+)%.(.+)$')
  local change = event_id and read_entry(workspace, event_id)
  if not change or change.state ~= 'fanned_out' then return end
  for subscription in string.gmatch(change.extra.to or '', '[^,]+') do
    local other = key_of('event', workspace, event_id .. '.' .. subscription)
    if subscription ~= own and redis.call('EXISTS', other) == 1 then return end
  end
  return key_of('event', workspace, event_id)
end

local ids, entries = each(1), {}
for id in ids do
  local entry = read_entry(workspace, id)
  entries[id] = entry
  if entry and entry.ended then forget_of_message(workspace, entry.message, id) end
end
write_messages()
for id in ids do
  local entry = entries[id]
  entries[id] = nil -- it may be named twice
  if entry and entry.ended then
    guarded(redis.call, 'ZREM', key_of('ended', workspace, entry.state), id)
    local keys = {}
    for _, kind in ipairs({ 'body', 'answer', 'event' }) do keys[#keys + 1] = key_of(kind, workspace, id) end
    keys[#keys + 1] = change_without_others(id)
    redis.call('DEL', unpack(keys))
    forgotten = forgotten + 1
  elseif not entry then -- retired: the body of a delivered one may be there yet
    redis.call('DEL', key_of('body', workspace, id))
  end
end
return { 'forgotten', now, forgotten }
