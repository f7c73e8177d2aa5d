-- retry: tries an endpoint now. Ends its pause, so that the next claim gives one callback as the probe, and
-- makes due what waits for its next attempt. The rest of the breaker, the window, the rate and the attempts
-- left stay as they are.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   endpoint_id
--   ends_pause: 1 to end its pause, 0 to leave that as it is
--   left: how many callbacks this call and later ones make due
--   for each callback to make due, soonest first: id due
--     due: its due time. A callback with another due time was attempted meanwhile and is left alone; so is
--     a replayed one, which has a time of its own.
-- returns {'retried', now, planned end of the pause that was ended, latest end of a probe under way (both
--   ms since 1970; 0 = there was none), number of callbacks that were made due}; or, with nothing done,
--   {'stopped', now} if the operator stopped it, or {'unknown', now}
-- Works when Redis is full.
-- include prologue
-- include guard
-- include endpoint
-- include schedule
-- include entry
redis.call('DEL', PREFIX .. 'never')
local endpoint_id, ends_pause, left = take(3)
local endpoint = load_endpoint(endpoint_id)
if not endpoint.workspace then return { 'unknown', now } end
if endpoint.stopped then return { 'stopped', now } end
local lane, made_due = key_of('lane', endpoint_id), 0

local function waits_for_attempt(id, due)
  local score = tonumber(redis.call('ZSCORE', lane, id) or 0)
  if score <= now or score ~= tonumber(due) then return false end
  local entry = read_entry(endpoint.workspace, id)
  return entry and entry.state == 'retrying'
end

for id, due in each(2) do
  if waits_for_attempt(id, due) then
    local due_now = string.format('%.17g', now - (left - 0.5) / 1024) -- parts of a millisecond keep the order
    redis.call('ZADD', lane, due_now, id)
    made_due = made_due + 1
  end
  left = left - 1
end

local ended, probe_ends = 0, 0
if endpoint.pause > now then
  local pause = int(endpoint.pause)
  if #redis.call('ZRANGEBYSCORE', key_of('leased', endpoint_id), pause, pause, 'LIMIT', 0, 1) > 0 then
    probe_ends = endpoint.pause -- its lease ends with the pause
  elseif ends_pause == '1' then
    ended, endpoint.pause = endpoint.pause, now
    redis.call('HSET', key_of('endpoint', endpoint_id), 'pause', NOW)
  end
end
assess(endpoint)
set_hinted(endpoint, 0)
reschedule(endpoint)
return { 'retried', now, ended, probe_ends, made_due }
