-- beat: stores the heartbeat of a worker in a registry: with several partitions some of them are registries,
-- as a worker wakes only those that it owns.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   worker: its name
--   heartbeat: JSON
-- returns {'beat', now, whether someone watches attempts, number of workers that the registry knows}
-- Works when Redis is full.
-- include prologue
-- include heartbeats
redis.call('DEL', PREFIX .. 'never')
local worker, heartbeat = take(2)
store_heartbeat(worker, heartbeat)
return { 'beat', now, redis.call('EXISTS', key_of('tail')), redis.call('ZCARD', key_of('workers')) }
