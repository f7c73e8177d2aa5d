-- wake: finds endpoints whose time has come, hints that were lost, and leases that ran out; keeps the worker's sign of life.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] most endpoints to look at
-- ARGV[4] how long a hint holds, ms
-- ARGV[5] worker's name
-- ARGV[6] its sign of life, JSON ('' = not this time)
-- returns {'woken', now, {endpoints to hint}, {lost callback, ...}, number of endpoints looked at, number of workers alive,
--   whether somebody watches attempts}
--   lost callback: {endpoint, its name, eventId, its entry}
--   its lease ran out; settle it with its claim number (whoever settles first counts)
-- Works when Redis is full.
-- include keys
-- include clock
-- include endpoint
redis.call('DEL', P .. 'never')
local ALIVE_MS = 15000
if ARGV[6] ~= '' then
  redis.call('SET', key_of('worker', ARGV[5]), ARGV[6], 'PX', ALIVE_MS)
  redis.call('ZADD', key_of('workers'), NOW, ARGV[5])
  redis.call('ZREMRANGEBYSCORE', key_of('workers'), '-inf', now - ALIVE_MS)
  redis.call('PEXPIRE', key_of('workers'), ALIVE_MS)
end

local hints, lost, looked_at = {}, {}, 0

local function add_lost(endpoint, s, id)
  local entry = redis.call('GET', key_of('event', s.workspace or '', id))
  if not entry then return redis.call('ZREM', key_of('leased', endpoint), id) end -- removed by hand
  lost[#lost + 1] = { endpoint, s.name, id, entry }
end

for _, endpoint in ipairs(redis.call('ZRANGEBYSCORE', key_of('schedule'), '-inf', NOW, 'LIMIT', 0, ARGV[3])) do
  local s = look(load(endpoint))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key_of('leased', endpoint), '-inf', NOW, 'LIMIT', 0, 100)) do
    add_lost(endpoint, s, id)
  end
  if take_hint(s, ARGV[4]) then hints[#hints + 1] = endpoint end
  reschedule(s)
  looked_at = looked_at + 1
end
return { 'woken', now, hints, lost, looked_at, redis.call('ZCARD', key_of('workers')), redis.call('EXISTS', key_of('tail')) }
