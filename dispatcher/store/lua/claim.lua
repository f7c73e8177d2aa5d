-- claim: leases due callbacks of one endpoint to a worker, never more than its window has room for.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   endpoint_id
--   wanted: most callbacks to give
--   lease_ms: how long the worker has them
--   hint_ms: how long a hint holds
-- returns {'claimed', now, what was given (lib/lease.lua) ..., ends (lib/ending.lua) ...}
-- After a pause, gives one callback as the probe, and extends the pause to the end of its lease.
-- With a backlog, a quarter of those given became due last, so that fresh ones are not stuck behind it.
-- Works when Redis is full. Ends expired callbacks instead of giving them, at most 100 a call.
-- include prologue
-- include guard
-- include counts
-- include endpoint
-- include schedule
-- include entry
-- include chain
-- include archives
-- include ending
-- include lease
-- include claiming
redis.call('DEL', PREFIX .. 'never')
local endpoint_id, wanted, lease_ms, hint_ms = take(4)
local reply = { 'claimed', now }
claim(reply, load_endpoint(endpoint_id), tonumber(wanted), tonumber(lease_ms), hint_ms)
return conclude(reply)
