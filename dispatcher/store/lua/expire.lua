-- expire: ends callbacks past their expiry, wherever they wait. Leased ones are left to their workers.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   most: most callbacks to look at
-- returns {'expired', now, number looked at, the error on one of them ('' = none), ends (lib/ending.lua) ...}
-- An ended callback that is still in the expiries was not ended completely, because a script broke off:
-- this completes it. Works when Redis is full.
-- include prologue
-- include guard
-- include counts
-- include endpoint
-- include schedule
-- include entry
-- include chain
-- include archives
-- include ending
redis.call('DEL', PREFIX .. 'never')
local most = take(1)
local touched, AGAIN_MS = {}, 60000

local function look_at(member)
  local workspace, id = string.match(member, '^([^:]+):(.+)$')
  local entry = read_entry(workspace, id)
  local lease_end = entry and not entry.ended and redis.call('ZSCORE', key_of('leased', entry.endpoint), id)
  if not entry then
    redis.call('ZREM', key_of('expiries'), member) -- removed by hand
  elseif lease_end then
    redis.call('ZADD', key_of('expiries'), math.max(tonumber(lease_end), now) + 1000, member)
  else
    redis.call('ZREM', key_of('lane', entry.endpoint), id)
    finish(workspace, id, entry, entry.ended and entry.state or 'expired')
    touched[entry.endpoint] = true
  end
end

local members = redis.call('ZRANGEBYSCORE', key_of('expiries'), '-inf', NOW, 'LIMIT', 0, most)
for _, member in ipairs(members) do
  if not guarded(look_at, member) then redis.call('ZADD', key_of('expiries'), now + AGAIN_MS, member) end
end
guarded(redis.call, 'ZREMRANGEBYSCORE', key_of('endpoints'), '-inf', now - RETENTION_MS - HOUR)
for endpoint_id in pairs(touched) do
  guarded(function() reschedule_after_ends(assess(load_endpoint(endpoint_id))) end)
end
return conclude({ 'expired', now, #members, problem })
