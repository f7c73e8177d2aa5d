-- forward: puts entries of another partition's queue on this one's, each once.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   source: number of the other partition
--   for each entry to forget (number first): gone
--     gone: the name of one that has left the source's queue
--   for each entry: name raw
--     name: its id on the source's queue, and a checksum, as an id may come again after a fail-over there
--     raw: its field `event`
-- returns {'forwarded', now, number of entries that were not forwarded before}
-- What was forwarded is remembered until the source names it as gone, at most retention_ms. So a source that
-- repeats a call, because the reply was lost or it died, adds nothing.
-- Refused when Redis is full, unless all were forwarded before.
-- include prologue
-- include guard
local source = take(1)
local gone_names, entries, added = each(1, take(1)), each(2), 0

-- First the entry, then its memory: what is remembered and not on the queue would be lost. If the memory
-- cannot be written, the entry leaves again, unseen: the repetition adds it.
local function add_once(name, raw)
  local from = source .. ' ' .. name
  if redis.call('ZSCORE', key_of('forwarded'), from) then return end
  local id = redis.call('XADD', key_of('events'), '*', 'event', raw, 'from', from)
  local ok, found = pcall(redis.call, 'ZADD', key_of('forwarded'), NOW, from)
  if not ok then
    redis.call('XDEL', key_of('events'), id)
    error(error_of(found), 0)
  end
  added = added + 1
end

for name, raw in entries do add_once(name, raw) end
redis.call('PEXPIRE', key_of('forwarded'), RETENTION_MS)
for gone in gone_names do redis.call('ZREM', key_of('forwarded'), source .. ' ' .. gone) end
redis.call('ZREMRANGEBYSCORE', key_of('forwarded'), '-inf', int(now - RETENTION_MS))
return { 'forwarded', now, added }
