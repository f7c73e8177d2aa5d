-- Leases due callbacks of one endpoint (`s`, loaded) to a worker: what claim does, and accept for what is ready at once.
-- `given` are those that accept gives without the lane.
-- One whose worker died with it twice (`suspect`) is given when nothing else of its endpoint is in flight, and the
-- window starts over at one: if it dies again, nothing dies beside it.
-- Returns {'more'|'rest', wait, endpoint's name, workspace's revision, {callback, ...}} as claim's contract says.
local function claim(s, wanted, lease_ms, hint_ms, given)
  local endpoint, lane = s.id, lane_key(s.id)
  look_at_rate(s)
  local probing = s.pause > 0
  local ended, alone = 0, false
  wanted = math.min(wanted, s.window - s.leased - #given, s.tokens, probing and 1 or 1000000)
  if s.stopped or s.pause > now or not s.workspace then wanted = 0 end
  wanted = wanted + #given

  local function give(id)
    local key = event_key(s.workspace, id)
    local h = redis.call('HMGET', key, 'expires', 'claims', 'attempts', 'type', 'status', 'message', 'accepted', 'suspect', 'base')
    local is_over = not h[1] or tonumber(h[1]) <= now
    if h[8] and not is_over then
      alone = true
      if s.leased + #given > 0 then return end
    end
    redis.call('ZREM', lane, id)
    if not h[1] then return end -- removed by hand: nothing to send
    if is_over then
      finish(s.workspace, id, endpoint, h[6], 'expired')
      ended = ended + 1
      return
    end
    local claims = (h[2] or 0) + 1
    redis.call('HSET', key, 'claims', claims, 'state', 'sending')
    given[#given + 1] = { id, claims, (h[3] or 0) - (h[9] or 0) + 1, tonumber(h[1]), h[4], h[5], h[6], h[9] and 0 or tonumber(h[7]),
      redis.call('GET', body_key(s.workspace, id)) }
  end

  local function give_all(ids)
    for _, id in ipairs(ids) do
      if not alone then give(id) end
    end
  end

  -- What has been due longest, as many as are still wanted; the first time with the newest before them.
  local function due() return redis.call('ZRANGEBYSCORE', lane, '-inf', NOW, 'LIMIT', 0, wanted - #given) end

  local backlog = wanted > #given and not s.lane_is_empty and due() or {}
  if #backlog == wanted and wanted >= 4 then
    give_all(redis.call('ZREVRANGEBYSCORE', lane, NOW, '-inf', 'LIMIT', 0, math.floor(wanted / 4)))
    backlog = due()
  end
  while #backlog > 0 do
    local asked, ended_before = wanted - #given, ended
    give_all(backlog)
    local is_more = #backlog == asked or ended > ended_before -- an end may have put another one there
    backlog = is_more and not alone and #given < wanted and ended < 100 and due() or {}
  end

  if alone and s.window > 1 then
    s.window = 1
    redis.call('HSET', endpoint_key(endpoint), 'window', 1)
  end
  if #given > 0 then
    local taken, lease_end = {}, now + lease_ms
    for i, one in ipairs(given) do taken[2 * i - 1], taken[2 * i] = lease_end, one[1] end
    redis.call('ZADD', leased_key(endpoint), unpack(taken))
    if s.leased == 0 then s.lease_end = lease_end end
    s.leased = s.leased + #given
    if probing then
      s.pause = now + lease_ms
      redis.call('HSET', endpoint_key(endpoint), 'pause', s.pause)
    end
    if s.interval then
      s.tat = s.tat + #given * s.interval
      redis.call('HSET', endpoint_key(endpoint), 'tat', string.format('%.3f', s.tat))
    end
  end

  look(s)
  set_hinted(s, (s.ready or s.short_of_token) and now + hint_ms or 0)
  reschedule(s)
  return { s.ready and 'more' or 'rest', s.short_of_token and s.token_at - now or 0, s.name, s.revision, given }
end
