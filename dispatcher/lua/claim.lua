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
local s = look(load(endpoint))
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
end

-- What has been due longest, as many as are still wanted; the first time with the newest before them.
local function due() return redis.call('ZRANGEBYSCORE', lane, '-inf', now, 'LIMIT', 0, wanted - #given) end

local backlog = s.workspace and wanted > 0 and due() or {}
if #backlog == wanted and wanted >= 4 then
  give_all(redis.call('ZREVRANGEBYSCORE', lane, now, '-inf', 'LIMIT', 0, math.floor(wanted / 4)))
  backlog = due()
end
while #backlog > 0 do
  local asked, ended_before = wanted - #given, ended
  give_all(backlog)
  local is_more = #backlog == asked or ended > ended_before -- an end may have put another one there
  backlog = is_more and #given < wanted and ended < 100 and due() or {}
end

if #given > 0 then
  s.leased = s.leased + #given
  if probing then
    s.pause = now + ARGV[6]
    redis.call('HSET', endpoint_key(endpoint), 'pause', s.pause)
  end
  if s.interval then
    s.tat = s.tat + #given * s.interval
    redis.call('HSET', endpoint_key(endpoint), 'tat', string.format('%.3f', s.tat))
  end
end

look(s)
set_hinted(s, (s.ready or s.short_of_token) and now + ARGV[7] or 0)
reschedule(s)
write_counts()
local wait = s.short_of_token and s.token_at - now or 0
return { 'claimed', now, s.ready and 'more' or 'rest', wait, s.name, s.revision, given }
