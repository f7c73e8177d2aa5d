-- claim: leases due callbacks of one endpoint to a worker, never more than its window has room for.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] retention, ms
-- ARGV[4] endpoint
-- ARGV[5] most callbacks to give
-- ARGV[6] lease, ms
-- ARGV[7] how long a hint holds, ms
-- returns {'claimed', now, 'more'|'rest', endpoint's name, workspace's revision, {callback, ...}}; 'more': claim again at once
--   callback: {eventId, claim number (the fencing token), number of this attempt, expires, type, status, message, body}
-- Works when Redis is full. Ends expired callbacks instead of giving them, at most 100 a call.
-- include keys
-- include clock
-- include counts
-- include endpoint
-- include ending
redis.call('DEL', P .. 'never')
local endpoint, lane, leased = ARGV[4], lane_key(ARGV[4]), leased_key(ARGV[4])
local s = look(endpoint)
local wanted = math.min(tonumber(ARGV[5]), s.room)
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

while s.workspace and #given < wanted and ended < 100 do
  local ids = redis.call('ZRANGEBYSCORE', lane, '-inf', now, 'LIMIT', 0, wanted - #given)
  if #ids == 0 then break end
  for _, id in ipairs(ids) do give(id) end
end

local hinted = s.hinted_until
s = look(endpoint)
s.hinted_until = hinted
set_hinted(endpoint, s, s.ready and now + ARGV[7] or 0)
reschedule(endpoint, s)
write_counts()
local revision = s.workspace and redis.call('HGET', workspace_key(s.workspace), 'revision')
return { 'claimed', now, s.ready and 'more' or 'rest', s.name, revision or '', given }
