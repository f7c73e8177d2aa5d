-- migrate: moves the data in Redis from format 1 to format 2, in batches; writes the format number last.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   most: most endpoints to move
--   format: the number of this format
-- returns {'migrated', now, number of endpoints that are left, the format number stored now ('' = none)}
-- Format 1 had all endpoints in `schedule`, format 2 has a schedule for each workspace. The next run moves
-- what a run that broke off has not moved.
-- include prologue
redis.call('DEL', PREFIX .. 'never') -- works when Redis is full
local most, format = take(2)
local there = redis.call('GET', key_of('format'))
if there then return { 'migrated', now, 0, there } end

local before = PREFIX .. 'schedule-1'
if redis.call('EXISTS', before) == 0 and redis.call('EXISTS', key_of('schedule')) == 1 then
  redis.call('RENAME', key_of('schedule'), before)
end
local members = redis.call('ZRANGE', before, 0, most - 1, 'WITHSCORES')
for i = 1, #members, 2 do
  local endpoint_id, due_at = members[i], members[i + 1]
  if redis.call('EXISTS', key_of('schedule', endpoint_id)) == 1 then
    -- this is a workspace in format 2: the format number was lost
    redis.call('ZADD', key_of('schedule'), 'LT', due_at, endpoint_id)
  else
    local name = redis.call('HGET', key_of('endpoint', endpoint_id), 'name') or ''
    local workspace = string.match(name, '^%S+') or '*'
    redis.call('ZADD', key_of('schedule', workspace), due_at, endpoint_id)
    redis.call('ZADD', key_of('schedule'), 'LT', due_at, workspace)
  end
  redis.call('ZREM', before, endpoint_id)
end
local left = redis.call('ZCARD', before)
if left == 0 then redis.call('SET', key_of('format'), format) end
return { 'migrated', now, left, left == 0 and format or '' }
