-- erase: leaves of ended callbacks only that their eventIds are known, for the rest of their retention.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   workspace
--   for each callback: id
-- returns {'erased', now, number of callbacks that were not erased before, number of those that have not
--   ended}
-- Their digests are blanked too (lib/known.lua): a number could be found from one by trying them all. Where
-- this breaks off, running it again completes it.
-- Works when Redis is full.
-- include prologue
-- include guard
-- include entry
redis.call('DEL', PREFIX .. 'never')
local workspace = take(1)
local erased, left = 0, 0

-- Forgets the newest timestamp of a message to an endpoint, unless a callback of it has not ended yet:
-- nothing older may go there behind that one.
local has_pending = {}
local function forget_newest(endpoint_id, message)
  local key = key_of('newest', endpoint_id, message)
  if has_pending[key] or redis.call('EXISTS', key) == 0 then return end
  for id in string.gmatch(redis.call('MGET', key_of('message', workspace, message))[1] or '', '%S+') do
    local other = read_entry(workspace, id)
    has_pending[key] = has_pending[key] or other and not other.ended and other.endpoint == endpoint_id
  end
  if not has_pending[key] then redis.call('DEL', key) end
end

for id in each(1) do
  local entry = read_entry(workspace, id)
  if entry and not entry.ended then
    left = left + 1
  elseif entry then
    guarded(redis.call, 'ZREM', key_of('ended', workspace, entry.state), id)
    redis.call('DEL', key_of('body', workspace, id), key_of('answer', workspace, id))
    forget_newest(entry.endpoint, entry.message)
    if entry.state ~= 'erased' then erased = erased + 1 end
    entry.about = string.gsub(entry.about, '^%S+', '-')
    entry.state, entry.claims, entry.message, entry.extra, entry.attempts = 'erased', '0', '-', {}, ''
    redis.call('SET', key_of('event', workspace, id), text_of(entry), 'KEEPTTL')
  else -- retired: the body of a delivered one may be there yet
    redis.call('DEL', key_of('body', workspace, id), key_of('answer', workspace, id))
  end
end
return { 'erased', now, erased, left }
