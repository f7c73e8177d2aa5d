-- claim: leases due callbacks of some endpoints to a worker, of each never more than its window has room for.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   lease_ms: how long the worker has them
--   hint_ms: how long a hint holds
--   for each endpoint: endpoint_id wanted
--     wanted: most callbacks to give
-- returns {'claimed', now, for each endpoint: what was given (lib/lease.lua) ..., or `broken problem`;
--   ends (lib/ending.lua) ...}
-- After a pause, gives one callback as the probe, and extends the pause to the end of its lease.
-- With a backlog, a quarter of those given became due last, so that fresh ones are not stuck behind it.
-- Works when Redis is full. Ends expired callbacks instead of giving them (lib/claiming.lua).
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
local lease_ms, hint_ms = take(2)
local function claim_of(reply, endpoint_id, wanted)
  claim(reply, load_endpoint(endpoint_id), wanted + 0, lease_ms + 0, hint_ms)
end

local reply = { 'claimed', now }
while has_more() do
  local endpoint_id, wanted = take(2)
  if not guarded(claim_of, reply, endpoint_id, wanted) then -- the other endpoints are served nevertheless
    reply[#reply + 1] = 'broken ' .. problem -- what was given is added last, so there is none of it
  end
end
return conclude(reply)
