-- Leases due callbacks of one endpoint to a worker. Used by claim, by accept for endpoints that are ready at
-- once, and by settle for the next callbacks.

-- How many callbacks were ended in place of given. Once there are MOST_ENDED, each further endpoint of this
-- run has only its first round; its worker claims again.
local ended_by_claims = 0
local MOST_ENDED = 100

local claim
do -- the rest is private to this file
  -- Gives a callback, from the text of its entry and its body; returns the entry, or nil if it was not given.
  -- A `suspect`, whose worker died twice, is given only when nothing else of its endpoint is in flight, and
  -- the window starts over at one: if its worker dies again, no other callback is lost with it.
  local function give(endpoint, id, text, body)
    local entry = text and parse_entry(text)
    local is_here = entry and not entry.ended and entry.endpoint == endpoint.id
    local is_over = is_here and expires_of(entry) <= now
    if is_here and not is_over and entry.extra.suspect then
      endpoint.alone = true
      if endpoint.leased + #endpoint.given > 0 then return end
    end
    if not is_here or is_over then -- removed by hand, or left here by a run that broke off: nothing to send
      if is_over then finish(endpoint.workspace, id, entry, 'expired') end
      ended_by_claims = ended_by_claims + 1
      redis.call('ZREM', key_of('lane', endpoint.id), id)
      return
    end
    entry.claims, entry.state = int(entry.claims + 1), 'sending'
    local about = entry.extra.base and string.gsub(entry.about, '%d+$', '-%0') or entry.about
    local attempt = int(math.max(count_attempts(entry) - (entry.extra.base or 0) + 1, 1))
    hand_over(endpoint, id, entry.claims, attempt, int(expires_of(entry)), entry.message, about, body or '')
    return entry
  end

  local function give_all(endpoint, ids)
    local keys, entries, given, workspace = {}, {}, {}, endpoint.workspace
    for i, id in ipairs(ids) do
      keys[2 * i - 1], keys[2 * i] = key_of('event', workspace, id), key_of('body', workspace, id)
    end
    local texts = redis.call('MGET', unpack(keys))
    for i, id in ipairs(ids) do
      local entry = not endpoint.alone and give(endpoint, id, texts[2 * i - 1], texts[2 * i])
      if entry then
        local n = #given
        given[n + 1], entries[2 * n + 1], entries[2 * n + 2] = id, keys[2 * i - 1], text_of(entry)
      end
    end
    if #given == 0 then return end
    lease(endpoint)
    redis.call('MSET', unpack(entries))
    redis.call('ZREM', key_of('lane', endpoint.id), unpack(given))
  end

  -- The callbacks that have been due longest.
  local function longest_due(endpoint, most)
    return redis.call('ZRANGEBYSCORE', key_of('lane', endpoint.id), '-inf', NOW, 'LIMIT', 0, int(most))
  end

  -- Gives up to `wanted` callbacks, the longest due first; with a backlog, a quarter of them are the newest.
  local function give_due(endpoint, wanted)
    local backlog = longest_due(endpoint, wanted - #endpoint.given)
    if #backlog == wanted and wanted >= 4 then
      local lane = key_of('lane', endpoint.id)
      give_all(endpoint, redis.call('ZREVRANGEBYSCORE', lane, NOW, '-inf', 'LIMIT', 0, int(wanted / 4)))
      backlog = longest_due(endpoint, wanted - #endpoint.given)
    end
    while #backlog > 0 do
      local asked, ended_before = wanted - #endpoint.given, ended_by_claims
      give_all(endpoint, backlog)
      local may_be_more = #backlog == asked or ended_by_claims > ended_before -- an end may have put one there
      local goes_on = may_be_more and not endpoint.alone and #endpoint.given < wanted
        and ended_by_claims < MOST_ENDED
      backlog = goes_on and longest_due(endpoint, wanted - #endpoint.given) or {}
    end
  end

  -- Gives up to `wanted` callbacks of an endpoint and adds them to `reply`. Those that accept gave to the
  -- caller without the lane are in `given` and `handed` already.
  function claim(reply, endpoint, wanted, lease_ms, hint_ms)
    endpoint.given, endpoint.handed = endpoint.given or {}, endpoint.handed or {}
    endpoint.leased_of_given, endpoint.new_lease_end = 0, now + lease_ms
    lease(endpoint)
    assess_rate(endpoint)
    local is_probe = endpoint.pause > 0
    local room = endpoint.window - endpoint.leased - #endpoint.given
    wanted = math.min(wanted, room, endpoint.tokens, is_probe and 1 or 1000000)
    if endpoint.stopped or endpoint.pause > now or not endpoint.workspace then wanted = 0 end
    if wanted > 0 and not endpoint.lane_is_empty then give_due(endpoint, wanted + #endpoint.given) end
    if endpoint.alone and endpoint.window > 1 then
      endpoint.window = 1
      redis.call('HSET', endpoint.record_key, 'window', '1')
    end
    if #endpoint.given > 0 then note_lease(endpoint, is_probe) end
    assess(endpoint)
    set_hinted(endpoint, (endpoint.ready or endpoint.short_of_token) and now + hint_ms or 0)
    reschedule(endpoint)
    local more = endpoint.ready and 'more' or 'rest'
    local wait = endpoint.short_of_token and int(endpoint.token_at - now) or '0'
    local handed, n = endpoint.handed, #reply + 1
    reply[n] = endpoint.id .. ' ' .. more .. ' ' .. wait .. ' ' .. int(#endpoint.given)
      .. ' ' .. endpoint.revision .. ' ' .. endpoint.name
    for i = 1, #handed do reply[n + i] = handed[i] end
  end
end
