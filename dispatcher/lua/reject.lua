-- reject: takes entries that cannot be used off the queue and keeps them in `rejected`.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] token of the intake lease
-- ARGV[3] retention, ms
-- then for each: entry reason detail workspace eventId (the last two '' where unknown)
-- returns {'rejected', now} or {'not_leader', now}
-- Refused when Redis is full (the first write is an XADD).
-- include keys
-- include clock
-- include counts
-- include rejecting
if redis.call('GET', key_of('intake')) ~= ARGV[2] then return { 'not_leader', now } end
for i = 4, #ARGV, 5 do
  keep_rejected(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  redis.call('XACK', key_of('events'), GROUP, ARGV[i])
  redis.call('XDEL', key_of('events'), ARGV[i])
end
write_counts()
return { 'rejected', now }
