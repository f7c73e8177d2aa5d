-- requeue: puts rejected entries back on the queue, unchanged.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   for each entry: id
--     id: the one in `rejected`
-- returns {'requeued', now, number of entries, number of those that are gone or were cut when kept}
-- Refused when Redis is full (the first write is an XADD).
-- include prologue
local requeued, left = 0, 0
for id in each(1) do
  local found = redis.call('XRANGE', key_of('rejected'), id, id)[1]
  local fields = {}
  for n = 1, found and #found[2] or 0, 2 do fields[found[2][n]] = found[2][n + 1] end
  if found and fields.cut == '0' then
    redis.call('XADD', key_of('events'), '*', 'event', fields.raw)
    redis.call('XDEL', key_of('rejected'), id)
    requeued = requeued + 1
  else
    left = left + 1
  end
end
return { 'requeued', now, requeued, left }
