-- Heartbeats: a worker that has sent none for ALIVE_MS is not alive.

local function store_heartbeat(worker, heartbeat)
  local ALIVE_MS = 15000
  redis.call('SET', key_of('worker', worker), heartbeat, 'PX', ALIVE_MS)
  redis.call('ZADD', key_of('workers'), NOW, worker)
  redis.call('ZREMRANGEBYSCORE', key_of('workers'), '-inf', now - ALIVE_MS)
  redis.call('PEXPIRE', key_of('workers'), ALIVE_MS)
end
