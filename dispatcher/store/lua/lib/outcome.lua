-- What an attempt's outcome does to its callback.
-- `outcome` is delivered|failed|expired|retry|lost|suspect|released; lost: its worker died; suspect: not for
-- the first time, so claim gives it alone.

-- How long the body of a callback with this outcome stays, ms (false: the retention); nil: it does not end.
local KEEPS_BODY = { delivered = false, failed = false, expired = false, superseded = false }

local settle_one
do -- the rest is private to this file
  -- Puts a callback back into the lane; after its first recorded attempt it no longer holds up its chain,
  -- unless the order is `strict` or `latest`.
  local function put_back(endpoint, id, entry, delay_ms, leaves)
    if leaves then entry.extra.left = '1' end
    entry.state = entry.attempts == '' and 'pending' or 'retrying'
    write_entry(endpoint.workspace, id, entry)
    redis.call('ZADD', key_of('lane', endpoint.id), int(now + delay_ms), id)
    if leaves then leave_chain(endpoint.id, entry.message, id) end
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
      finish(endpoint.workspace, id, entry, entry.state, KEEPS_BODY[outcome] or nil)
    else
      redis.call('ZADD', key_of('lane', endpoint.id), 'NX', int(now + delay_ms), id)
      if entry.extra.left then leave_chain(endpoint.id, entry.message, id) end
    end
  end

  local function record_outcome(endpoint, id, entry, outcome, delay_ms, started, attempt, answer)
    local answered = answer ~= '' or entry.attempts ~= '' or started == ''
    if started ~= '' then
      entry.attempts = entry.attempts .. '\n' .. int(started - entry.accepted) .. ' ' .. attempt
    end
    if outcome == 'suspect' then entry.extra.suspect = '1' end
    if answer ~= '' then redis.call('SET', key_of('answer', endpoint.workspace, id), answer) end
    if KEEPS_BODY[outcome] == nil and now + delay_ms >= expires_of(entry) then outcome = 'expired' end
    if KEEPS_BODY[outcome] == nil and is_superseded(entry) then outcome = 'superseded' end
    if outcome == 'delivered' and not entry.extra.base then
      count_duration(endpoint.workspace, now - entry.accepted)
    end
    if KEEPS_BODY[outcome] ~= nil then
      finish(endpoint.workspace, id, entry, outcome, KEEPS_BODY[outcome] or nil, answered)
    else
      local leaves = outcome == 'retry' and not entry.extra.stamp and not entry.extra.strict
      put_back(endpoint, id, entry, delay_ms, leaves)
    end
  end

  -- Returns `ok`; or `stale` if the lease is another worker's or gone, and nothing was recorded.
  function settle_one(endpoint, id, claim_number, outcome, delay_ms, started, attempt, answer)
    local entry, leased = read_entry(endpoint.workspace, id), key_of('leased', endpoint.id)
    if not entry or entry.claims ~= claim_number then return 'stale' end
    if entry.state == 'sending' then
      record_outcome(endpoint, id, entry, outcome, delay_ms, started, attempt, answer)
    elseif redis.call('ZSCORE', leased, id) then
      complete(endpoint, id, entry, delay_ms, outcome)
    end
    if redis.call('ZREM', leased, id) == 0 then return 'stale' end
    endpoint.leased = endpoint.leased - 1
    return 'ok'
  end
end
