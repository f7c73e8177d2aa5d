-- Hands callbacks to a worker: what the reply says about them, and their lease.
-- The reply is flat, with few values: a table in it takes Redis longer than its parts do as text.
-- First comes an endpoint (lib/claiming.lua): `id more|rest wait number revision name`; then, for each of its
-- callbacks: `eventId claim attempt expires message about`, and its body.
--   more: claim again at once; wait: claim again after this many ms, when the next token comes (0: no need)
--   claim: the fencing token; attempt: the number of this one; body: '' if it is gone
--   about: digest, type, status, and when it was accepted (with a minus: it was replayed)

-- Gives one callback to the caller.
local function hand_over(endpoint, id, claim_number, attempt, expires, message, about, body)
  local n, handed = #endpoint.given, endpoint.handed
  endpoint.given[n + 1] = id
  handed[2 * n + 1] = id .. ' ' .. claim_number .. ' ' .. attempt .. ' ' .. expires
    .. ' ' .. message .. ' ' .. about
  handed[2 * n + 2] = body
end

-- Leases what was given since the last call, before anything else is written: if the run breaks off, the
-- callbacks are found again when the lease ends.
local function lease(endpoint)
  local given, first = endpoint.given, endpoint.leased_of_given + 1
  if first > #given then return end
  local leases, n, new_lease_end = {}, 0, int(endpoint.new_lease_end)
  for i = first, #given do
    leases[n + 1], leases[n + 2], n = new_lease_end, given[i], n + 2
  end
  redis.call('ZADD', endpoint.leased_key, unpack(leases))
  endpoint.leased_of_given = #given
end

-- Updates the endpoint for the callbacks that were leased: count, end of the probe, tokens.
local function note_lease(endpoint, is_probe)
  if endpoint.leased == 0 then endpoint.lease_end = endpoint.new_lease_end end
  endpoint.leased = endpoint.leased + #endpoint.given
  if is_probe then
    endpoint.pause = endpoint.new_lease_end
    redis.call('HSET', endpoint.record_key, 'pause', int(endpoint.pause))
  end
  if endpoint.interval then
    endpoint.tat = endpoint.tat + #endpoint.given * endpoint.interval
    redis.call('HSET', endpoint.record_key, 'tat', string.format('%.3f', endpoint.tat))
  end
end
