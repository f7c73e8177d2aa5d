-- beat: returns the heartbeats of all workers that a registry knows, and stores one: with several partitions
-- some of them are registries, as a worker wakes only those that it owns.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   worker: its name
--   heartbeat: JSON ('' = none, only read)
-- returns {'beat', now, whether someone watches attempts, name, age in ms and heartbeat of each worker ...}
-- Works when Redis is full.
-- include prologue
-- include heartbeats
redis.call('DEL', PREFIX .. 'never')
local worker, heartbeat = take(2)
if heartbeat ~= '' then store_heartbeat(worker, heartbeat) end
local reply = { 'beat', now, redis.call('EXISTS', key_of('tail')) }
local found = redis.call('ZRANGE', key_of('workers'), 0, -1, 'WITHSCORES')
for i = 1, #found, 2 do
  local text = redis.call('GET', key_of('worker', found[i]))
  if text then
    reply[#reply + 1], reply[#reply + 2] = found[i], int(now - found[i + 1])
    reply[#reply + 1] = text
  end
end
return reply
