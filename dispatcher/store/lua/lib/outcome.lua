-- What an attempt's outcome does to its callback.
-- `outcome` is delivered|failed|expired|retry|lost|suspect|released; lost: its worker died; suspect: not for
-- the first time, so claim gives it alone.

-- How long the body of a callback with this outcome stays, ms (false: the retention); nil: it does not end.
local keeps_body = { delivered = false, failed = false, expired = false, superseded = false }
local DELIVERED_BODY_MS -- set by settle from its arguments

local settle_one
do -- the rest is private to this file
  -- Puts a callback back into the lane; after its first recorded attempt it no longer holds up its chain,
  -- unless the order is `strict` or `latest`.
  local function put_back(endpoint, id, entry, delay_ms, leaves)
    if leaves then entry.extra.left = '1' end
    entry.state = entry.attempts == '' and 'pending' or 'retrying'
    write_entry(endpoint.workspace, id, entry)
    redis.call('ZADD', key_of('lane', endpoint.id), int(now + delay_ms), id)
    if leaves and not entry.is_chainless then leave_chain(endpoint.id, entry.message, id) end
  end

  -- For `latest`: whether a newer one of its message was accepted meanwhile.
  local function is_superseded(entry)
    local newest = entry.extra.stamp and redis.call('GET', key_of('newest', entry.endpoint, entry.message))
    return newest and entry.extra.stamp < newest
  end

  -- Completes a run that broke off: it wrote the entry, which is no longer `sending`, but did not remove the
  -- lease, which goes last.
  local function complete(endpoint, id, entry, delay_ms, outcome)
    if entry.ended then
      finish(endpoint.workspace, id, entry, entry.state, keeps_body[outcome] or nil)
    else
      redis.call('ZADD', key_of('lane', endpoint.id), 'NX', int(now + delay_ms), id)
      if entry.extra.left and not entry.is_chainless then leave_chain(endpoint.id, entry.message, id) end
    end
  end

  local function record_outcome(endpoint, id, entry, outcome, delay_ms, started, attempt, answer)
    local answered = answer ~= '' or entry.attempts ~= '' or started == ''
    if started ~= '' then
      entry.attempts = entry.attempts .. '\n' .. int(started - entry.accepted) .. ' ' .. attempt
    end
    if outcome == 'suspect' then entry.extra.suspect = '1' end
    if answer ~= '' then redis.call('SET', key_of('answer', endpoint.workspace, id), answer) end
    if keeps_body[outcome] == nil and now + delay_ms >= expires_of(entry) then outcome = 'expired' end
    if keeps_body[outcome] == nil and is_superseded(entry) then outcome = 'superseded' end
    if keeps_body[outcome] ~= nil then
      local has_duration = outcome == 'delivered' and not entry.extra.base -- not that of a replayed one
      local in_hour = has_duration and delivered_within(now - entry.accepted) or nil
      finish(endpoint.workspace, id, entry, outcome, keeps_body[outcome] or nil, answered, nil, in_hour)
    else
      local leaves = outcome == 'retry' and not entry.extra.stamp and not entry.extra.strict
      put_back(endpoint, id, entry, delay_ms, leaves)
    end
  end

  -- Whether this very attempt is the last one of the entry.
  local function is_recorded(entry, started, attempt)
    if started == '' then return false end
    local last = '\n' .. int(started - entry.accepted) .. ' ' .. attempt
    return string.sub(entry.attempts, -#last) == last
  end

  -- Records what became of a callback; the caller releases its lease afterwards. Returns `ok`; `known` if
  -- that was done before; or `stale` if the lease is another worker's or gone, and nothing was recorded.
  function settle_one(endpoint, id, entry, claim_number, outcome, delay_ms, started, attempt, answer)
    if not entry or entry.claims ~= claim_number then return 'stale' end
    if entry.state == 'sending' then
      record_outcome(endpoint, id, entry, outcome, delay_ms, started, attempt, answer)
    elseif entry.lease_end then
      complete(endpoint, id, entry, delay_ms, outcome)
    else
      return is_recorded(entry, started, attempt) and 'known' or 'stale'
    end
    return 'ok'
  end
end

-- The entries of callbacks of one endpoint, by id. They have `lease_end`, when their lease ends, where that
-- matters: in a pause, whose probe is known by it; or if one is not `sending` any more; and `is_chainless` if
-- no message of them has a chain: there is none if a message never had two callbacks waiting. While Redis is
-- full, bodies of delivered callbacks go at once.
local function read_claimed(endpoint, ids)
  local keys, chains, entries, with_lease_end = {}, {}, {}, endpoint.pause > 0
  for i, id in ipairs(ids) do keys[i] = key_of('event', endpoint.workspace, id) end
  keys[#ids + 1] = key_of('full')
  local texts = redis.call('MGET', unpack(keys))
  keeps_body.delivered = texts[#keys] and '0' or DELIVERED_BODY_MS
  for i = 1, #ids do
    local entry = texts[i] and parse_entry(texts[i])
    if entry then
      entry.key = keys[i]
      entries[ids[i]], chains[#chains + 1] = entry, key_of('chain', endpoint.id, entry.message)
      with_lease_end = with_lease_end or entry.state ~= 'sending'
    end
  end
  if #chains > 0 and redis.call('EXISTS', unpack(chains)) == 0 then
    for _, entry in pairs(entries) do entry.is_chainless = entry.endpoint == endpoint.id end
  end
  if with_lease_end then
    for i, lease_end in ipairs(redis.call('ZMSCORE', endpoint.leased_key, unpack(ids))) do
      if entries[ids[i]] then entries[ids[i]].lease_end = lease_end and tonumber(lease_end) end
    end
  end
  return entries
end
