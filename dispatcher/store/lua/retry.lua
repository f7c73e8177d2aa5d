-- retry: has an endpoint tried now. Ends its pause, so that the next claim gives one callback as the probe, and makes due what waits
-- for its next attempt. The rest of the breaker, the window, the rate and the attempts left stay as they are.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] max_concurrency of a workspace that sets none
-- ARGV[3] endpoint
-- ARGV[4] 1 to end its pause, 0 to leave that as it is
-- ARGV[5] how many callbacks are made due by later calls, behind these
-- then for each callback to make due, the longest due first: eventId, its due time (one that has another by now was attempted meanwhile:
--   it is left alone, and so is what is replayed at a time of its own)
-- returns {'retried', now, end of the pause that was ended, when the probe that is under way ends at the latest (both ms since 1970; 0 =
--   there was none), number of callbacks that were made due}; or, with nothing done, {'stopped', now} where the operator stopped it, or
--   {'unknown', now}
-- Works when Redis is full.
-- include keys
-- include clock
-- include guard
-- include endpoint
-- include entry
redis.call('DEL', P .. 'never')
local s = load(ARGV[3])
if not s.workspace then return { 'unknown', now } end
if s.stopped then return { 'stopped', now } end
local lane, made = key_of('lane', s.id), 0

local function waits_for_attempt(id, due)
  local score = tonumber(redis.call('ZSCORE', lane, id) or 0)
  if score <= now or score ~= tonumber(due) then return false end
  local e = read_entry(s.workspace, id)
  return e and e.state == 'retrying'
end

for i = 6, #ARGV, 2 do
  if waits_for_attempt(ARGV[i], ARGV[i + 1]) then
    redis.call('ZADD', lane, string.format('%.17g', now - (ARGV[5] * 2 + #ARGV - i) / 2048), ARGV[i]) -- parts of a millisecond keep the order
    made = made + 1
  end
end

local ended, probe_ends = 0, 0
if s.pause > now then
  if #redis.call('ZRANGEBYSCORE', key_of('leased', s.id), int(s.pause), int(s.pause), 'LIMIT', 0, 1) > 0 then
    probe_ends = s.pause -- its lease ends with the pause
  elseif ARGV[4] == '1' then
    ended, s.pause = s.pause, now
    redis.call('HSET', key_of('endpoint', s.id), 'pause', NOW)
  end
end
look(s)
set_hinted(s, 0)
reschedule(s)
return { 'retried', now, ended, probe_ends, made }
