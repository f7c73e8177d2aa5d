-- Leases due callbacks of one endpoint to a worker: what claim does, accept for what is ready at once, and settle for
-- what is next.
-- What is given is told in few, flat values: a table in a reply takes Redis longer than the text of its parts. For the
-- endpoint: `endpoint more|rest wait number revision name`; then, for each of its callbacks: `eventId claim attempt
-- expires message about`, and its body.
--   more: claim again at once; wait: claim again after so many ms, when the next token is there (0: not for that)
--   claim: the fencing token; attempt: the number of this one; about: digest, type, status, and when it was accepted (0:
--   it was replayed); body: '' if it is gone

-- Hands one to the caller. `s.given` are eventIds, `s.handed` what the caller gets.
local function hand_over(s, id, claim, attempt, expires, uuid, about, body)
  local n = #s.given
  s.given[n + 1], s.handed[2 * n + 2] = id, body
  s.handed[2 * n + 1] = id .. ' ' .. claim .. ' ' .. attempt .. ' ' .. expires .. ' ' .. uuid .. ' ' .. about
end

-- Leases what was given since the last time; first of all, so that what a run that breaks off has begun is found again when
-- the lease is over.
local function lease(s)
  local taken = {}
  for i = s.leased_of_given + 1, #s.given do
    taken[#taken + 1], taken[#taken + 2] = int(s.new_lease_end), s.given[i]
  end
  if #taken == 0 then return end
  redis.call('ZADD', key_of('leased', s.id), unpack(taken))
  s.leased_of_given = #s.given
end

-- One whose worker died with it twice (`suspect`) is given when nothing else of its endpoint is in flight, and the
-- window starts over at one: if it dies again, nothing dies beside it. Returns the entry of one that is given.
local function give(s, id)
  local e = read_entry(s.workspace, id)
  local is_here = e and not e.ended and e.endpoint == s.id
  local is_over = is_here and expires_of(e) <= now
  if is_here and not is_over and e.extra.suspect then
    s.alone = true
    if s.leased + #s.given > 0 then return end
  end
  if not is_here or is_over then -- removed by hand, or left here by a run that broke off: nothing to send
    if is_over then finish(s.workspace, id, e, 'expired') end
    s.ended = s.ended + 1
    redis.call('ZREM', key_of('lane', s.id), id)
    return
  end
  e.claims, e.state = int(e.claims + 1), 'sending'
  local about = e.extra.base and string.gsub(e.about, '%d+$', '0') or e.about
  local attempt = int(count_attempts(e) - (e.extra.base or 0) + 1)
  hand_over(s, id, e.claims, attempt, int(expires_of(e)), e.message, about, redis.call('GET', key_of('body', s.workspace, id)) or '')
  return e
end

local function give_all(s, ids)
  local entries, taken = {}, {}
  for _, id in ipairs(ids) do
    local e = not s.alone and give(s, id)
    if e then entries[id], taken[#taken + 1] = e, id end
  end
  if #taken == 0 then return end
  lease(s)
  for _, id in ipairs(taken) do write_entry(s.workspace, id, entries[id]) end
  redis.call('ZREM', key_of('lane', s.id), unpack(taken))
end

-- What has been due longest.
local function due(s, count)
  return redis.call('ZRANGEBYSCORE', key_of('lane', s.id), '-inf', NOW, 'LIMIT', 0, int(count))
end

-- As many as are wanted: the longest due; the first time with the newest before them.
local function give_due(s, wanted)
  local backlog = due(s, wanted - #s.given)
  if #backlog == wanted and wanted >= 4 then
    give_all(s, redis.call('ZREVRANGEBYSCORE', key_of('lane', s.id), NOW, '-inf', 'LIMIT', 0, int(wanted / 4)))
    backlog = due(s, wanted - #s.given)
  end
  while #backlog > 0 do
    local asked, ended_before = wanted - #s.given, s.ended
    give_all(s, backlog)
    local is_more = #backlog == asked or s.ended > ended_before -- an end may have put another one there
    backlog = is_more and not s.alone and #s.given < wanted and s.ended < 100 and due(s, wanted - #s.given) or {}
  end
end

-- What the lease of those that were given means to their endpoint.
local function note_lease(s, probing)
  if s.leased == 0 then s.lease_end = s.new_lease_end end
  s.leased = s.leased + #s.given
  if probing then
    s.pause = s.new_lease_end
    redis.call('HSET', key_of('endpoint', s.id), 'pause', int(s.pause))
  end
  if s.interval then
    s.tat = s.tat + #s.given * s.interval
    redis.call('HSET', key_of('endpoint', s.id), 'tat', string.format('%.3f', s.tat))
  end
end

-- Gives up to `wanted` callbacks of an endpoint (`s`, loaded) and adds them to `reply`; what accept gave to the caller
-- without the lane is in `s.given` and `s.handed` already.
local function claim(reply, s, wanted, lease_ms, hint_ms)
  s.given, s.handed, s.ended, s.leased_of_given, s.new_lease_end = s.given or {}, s.handed or {}, 0, 0, now + lease_ms
  lease(s)
  look_at_rate(s)
  local probing = s.pause > 0
  wanted = math.min(wanted, s.window - s.leased - #s.given, s.tokens, probing and 1 or 1000000)
  if s.stopped or s.pause > now or not s.workspace then wanted = 0 end
  if wanted > 0 and not s.lane_is_empty then give_due(s, wanted + #s.given) end
  if s.alone and s.window > 1 then
    s.window = 1
    redis.call('HSET', key_of('endpoint', s.id), 'window', '1')
  end
  if #s.given > 0 then note_lease(s, probing) end
  look(s)
  set_hinted(s, (s.ready or s.short_of_token) and now + hint_ms or 0)
  reschedule(s)
  local wait = s.short_of_token and int(s.token_at - now) or '0'
  reply[#reply + 1] = table.concat({ s.id, s.ready and 'more' or 'rest', wait, int(#s.given), s.revision, s.name }, ' ')
  for _, value in ipairs(s.handed) do reply[#reply + 1] = value end
end
