-- expire: ends callbacks whose time is over, wherever they wait. Those in a worker's hands end there.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] most callbacks to look at
-- returns {'expired', now, number looked at, what broke on one of them ('' = nothing), ends ...}
-- What has ended and is still among the expiries was not ended whole: a script broke off. The rest of it is done.
-- Works when Redis is full.
-- include keys
-- include clock
-- include guard
-- include counts
-- include endpoint
-- include entry
-- include ending
redis.call('DEL', P .. 'never')
local touched, AGAIN_MS = {}, 60000

local function look_at(member)
  local workspace, id = string.match(member, '^([^:]+):(.+)$')
  local e = read_entry(workspace, id)
  local lease_end = e and not e.ended and redis.call('ZSCORE', key_of('leased', e.endpoint), id)
  if not e then
    redis.call('ZREM', key_of('expiries'), member) -- removed by hand
  elseif lease_end then
    redis.call('ZADD', key_of('expiries'), math.max(tonumber(lease_end), now) + 1000, member)
  else
    redis.call('ZREM', key_of('lane', e.endpoint), id)
    finish(workspace, id, e, e.ended and e.state or 'expired')
    touched[e.endpoint] = true
  end
end

local members = redis.call('ZRANGEBYSCORE', key_of('expiries'), '-inf', NOW, 'LIMIT', 0, ARGV[4])
for _, member in ipairs(members) do
  if not guarded(look_at, member) then redis.call('ZADD', key_of('expiries'), now + AGAIN_MS, member) end
end
guarded(redis.call, 'ZREMRANGEBYSCORE', key_of('endpoints'), '-inf', now - ARGV[3] - HOUR)
for endpoint in pairs(touched) do guarded(function() reschedule_after_ends(look(load(endpoint))) end) end
write_counts()
return with_ends({ 'expired', now, #members, problem })
