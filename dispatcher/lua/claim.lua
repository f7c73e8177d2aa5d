-- claim: leases due callbacks of one endpoint to a worker, never more than its window has room for.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] endpoint
-- ARGV[5] most callbacks to give
-- ARGV[6] lease, ms
-- ARGV[7] how long a hint holds, ms
-- returns {'claimed', now, 'more'|'rest', wait, endpoint's name, workspace's revision, {callback, ...}}
--   'more': claim again at once; wait: claim again after so many ms, when the next token is there (0 = not for that)
--   callback: {eventId, claim number (the fencing token), number of this attempt, expires, type, status, message, body}
-- After a pause's end gives one callback and moves the pause's end to that lease's end: the probe.
-- A quarter goes to what became due last, so that fresh ones are not stuck behind a backlog.
-- Works when Redis is full. Ends expired callbacks instead of giving them, at most 100 a call.
-- include keys
-- include clock
-- include counts
-- include endpoint
-- include ending
redis.call('DEL', P .. 'never')
local endpoint, lane, leased = ARGV[4], lane_key(ARGV[4]), leased_key(ARGV[4])
local s = look(endpoint)
local probing = s.pause > 0
local wanted = math.min(tonumber(ARGV[5]), s.room, s.tokens, probing and 1 or 1000000)
if s.stopped or s.pause > now then wanted = 0 end
local given, ended = {}, 0

local function give(id)
  local key = event_key(s.workspace, id)
  local h = redis.call('HMGET', key, 'expires', 'claims', 'attempts', 'type', 'status', 'message')
  redis.call('ZREM', lane, id)
  if not h[1] then return end -- removed by hand: nothing to send
  if tonumber(h[1]) <= now then
    finish(s.workspace, id, endpoint, h[6], 'expired')
    ended = ended + 1
    return
  end
  local claims = (h[2] or 0) + 1
  redis.call('HSET', key, 'claims', claims, 'state', 'sending')
  redis.call('ZADD', leased, now + ARGV[6], id)
  given[#given + 1] = { id, claims, (h[3] or 0) + 1, tonumber(h[1]), h[4], h[5], h[6],
    redis.call('GET', body_key(s.workspace, id)) }
end

local function give_all(ids)
  for _, id in ipairs(ids) do give(id) end
  return #ids > 0
end

if s.workspace and wanted >= 4 then
  give_all(redis.call('ZREVRANGEBYSCORE', lane, now, '-inf', 'LIMIT', 0, math.floor(wanted / 4)))
end
while s.workspace and #given < wanted and ended < 100 do
  if not give_all(redis.call('ZRANGEBYSCORE', lane, '-inf', now, 'LIMIT', 0, wanted - #given)) then break end
end

if probing and #given > 0 then redis.call('HSET', endpoint_key(endpoint), 'pause', now + ARGV[6]) end
if s.interval and #given > 0 then
  redis.call('HSET', endpoint_key(endpoint), 'tat', string.format('%.3f', s.tat + #given * s.interval))
end

s = look(endpoint)
set_hinted(endpoint, s, (s.ready or s.short_of_token) and now + ARGV[7] or 0)
reschedule(endpoint, s)
write_counts()
local revision = s.workspace and redis.call('HGET', workspace_key(s.workspace), 'revision')
local wait = s.short_of_token and s.token_at - now or 0
return { 'claimed', now, s.ready and 'more' or 'rest', wait, s.name, revision or '', given }
