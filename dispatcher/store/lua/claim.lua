-- claim: leases due callbacks of one endpoint to a worker, never more than its window has room for.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] endpoint
-- ARGV[5] most callbacks to give
-- ARGV[6] lease, ms
-- ARGV[7] how long a hint holds, ms
-- returns {'claimed', now, what was given (claiming.lua) ..., ends ...}
-- After a pause's end gives one callback and moves the pause's end to that lease's end: the probe.
-- A quarter goes to what became due last, so that fresh ones are not stuck behind a backlog.
-- Works when Redis is full. Ends expired callbacks instead of giving them, at most 100 a call.
-- include keys
-- include clock
-- include guard
-- include counts
-- include endpoint
-- include entry
-- include ending
-- include claiming
redis.call('DEL', P .. 'never')
local reply = { 'claimed', now }
claim(reply, load(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7])
write_counts()
return with_ends(reply)
