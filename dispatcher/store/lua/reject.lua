-- reject: takes entries that cannot be used off the queue and keeps them in `rejected`.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] token of the intake lease
-- ARGV[3] retention, ms
-- then for each: entry reason detail workspace eventId (the last two '' where unknown)
-- returns {'rejected', now, entries that stay on the queue, for they could not be kept, why} or {'not_leader', now}
-- Refused when Redis is full (the first write is an XADD).
-- include keys
-- include clock
-- include guard
-- include counts
-- include rejecting
if redis.call('GET', key_of('intake')) ~= ARGV[2] then return { 'not_leader', now } end
local left = {}
for i = 4, #ARGV, 5 do
  if guarded(keep_rejected, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]) then
    redis.call('XACK', key_of('events'), GROUP, ARGV[i])
    redis.call('XDEL', key_of('events'), ARGV[i])
  else
    left[#left + 1] = ARGV[i]
  end
end
write_counts()
return { 'rejected', now, table.concat(left, ' '), problem }
