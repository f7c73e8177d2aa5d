-- migrate: brings what is in Redis from format 1 to format 2, some of it at a time; once all is, says so there.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] most endpoints to move
-- ARGV[3] the number of this format
-- returns {'migrated', now, number of endpoints that are left, the number of the format that is there now}
-- Format 1 had all endpoints in `schedule`, format 2 has a schedule of each workspace. What a run that breaks off has
-- not moved is moved by the next one.
-- include keys
-- include clock
redis.call('DEL', P .. 'never') -- works when Redis is full
local there = redis.call('GET', key_of('format'))
if there then return { 'migrated', now, 0, there } end

local before = P .. 'schedule-1'
if redis.call('EXISTS', before) == 0 and redis.call('EXISTS', key_of('schedule')) == 1 then
  redis.call('RENAME', key_of('schedule'), before)
end
local members = redis.call('ZRANGE', before, 0, ARGV[2] - 1, 'WITHSCORES')
for i = 1, #members, 2 do
  local endpoint, at = members[i], members[i + 1]
  if redis.call('EXISTS', key_of('schedule', endpoint)) == 1 then -- a workspace of this format, whose number was lost
    redis.call('ZADD', key_of('schedule'), 'LT', at, endpoint)
  else
    local workspace = string.match(redis.call('HGET', key_of('endpoint', endpoint), 'name') or '', '^%S+') or '*'
    redis.call('ZADD', key_of('schedule', workspace), at, endpoint)
    redis.call('ZADD', key_of('schedule'), 'LT', at, workspace)
  end
  redis.call('ZREM', before, endpoint)
end
local left = redis.call('ZCARD', before)
if left == 0 then redis.call('SET', key_of('format'), ARGV[3]) end
return { 'migrated', now, left, left == 0 and ARGV[3] or '' }
