-- requeue: puts rejected entries back on the queue, as they came.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- then for each: id in `rejected`
-- returns {'requeued', now, number of entries, number that are gone or were kept only in part}
-- Refused when Redis is full (the first write is an XADD).
-- include keys
-- include clock
local requeued, left = 0, 0
for i = 2, #ARGV do
  local found = redis.call('XRANGE', key_of('rejected'), ARGV[i], ARGV[i])[1]
  local fields = {}
  for n = 1, found and #found[2] or 0, 2 do fields[found[2][n]] = found[2][n + 1] end
  if found and fields.cut == '0' then
    redis.call('XADD', key_of('events'), '*', 'event', fields.raw)
    redis.call('XDEL', key_of('rejected'), ARGV[i])
    requeued = requeued + 1
  else
    left = left + 1
  end
end
return { 'requeued', now, requeued, left }
