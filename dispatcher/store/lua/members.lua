-- members: returns the heartbeats of all workers that a registry knows (beat).
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   nothing more
-- returns {'members', now, name, age in ms and heartbeat of each worker ...}
-- Works when Redis is full.
-- include prologue
redis.call('DEL', PREFIX .. 'never') -- a replica, which may not know the latest heartbeats, refuses it
local reply = { 'members', now }
local found = redis.call('ZRANGE', key_of('workers'), 0, -1, 'WITHSCORES')
for i = 1, #found, 2 do
  local text = redis.call('GET', key_of('worker', found[i]))
  if text then
    reply[#reply + 1], reply[#reply + 2] = found[i], int(now - found[i + 1])
    reply[#reply + 1] = text
  end
end
return reply
