-- leave: removes the heartbeat of a worker that ends.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   worker: its name
-- returns {'left', now}
-- Works when Redis is full.
-- include prologue
local worker = take(1)
redis.call('DEL', key_of('worker', worker))
redis.call('ZREM', key_of('workers'), worker)
return { 'left', now }
