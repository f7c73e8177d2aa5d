-- How the callbacks of a status change come into the ledger, its own last (lib/taking_in.lua).

local accept_one, leave_change
do -- the rest is private to this file
  -- One of several callbacks of a status change whose endpoint has no room fails alone.
  local function fail_full(queue_entry, workspace, id, about, endpoint_id, message, expires_at, body)
    local entry = new_entry(about, endpoint_id, message, expires_at)
    if not is_other(id) then entry.extra.to = table.concat(others, ',') end
    entry.attempts = '\n0 0 - endpoint_full'
    touch(endpoint_id)
    redis.call('SET', key_of('body', workspace, id), body, 'PX', RETENTION_MS)
    return end_at_once(queue_entry, workspace, id, entry, keep_ms_of(expires_at), 'failed')
  end

  -- The callback for another subscription than the default one; returns its word.
  local function accept_other(
    max_waiting, queue_entry, workspace, id, about, endpoint_id, message, stamp, expires_at, body)
    local event_id, subscription = string.match(id, '^([^.]+)%.(.+)$')
    local known, word, begun = take_known(workspace, id), nil, nil
    if known then word, begun = look_at_known(workspace, id, known, about) end
    local is_told_before = not known and is_known(workspace, event_id)
    if not known and not is_told_before then
      local of_change = word_of_retired(workspace, event_id, about)
      word, is_told_before = word_of_retired(workspace, id, about), of_change ~= nil
      if word == 'retired' or of_change == 'retired' then return 'retired' end
      known = word
    end
    others[#others + 1] = subscription
    if begun or not (known or is_told_before or is_full(workspace, endpoint_id, max_waiting)) then
      return take_in(queue_entry, workspace, id, about, endpoint_id, message, stamp, expires_at, body, begun)
    end
    if known or is_told_before then return word or 'duplicate' end
    return fail_full(queue_entry, workspace, id, about, endpoint_id, message, expires_at, body)
  end

  -- Makes a status change known that the default subscription does not want.
  local function keep_change(workspace, id, about, message, expires_at)
    local entry = new_entry(about, '-', message, expires_at)
    entry.state, entry.ended = 'fanned_out', '0'
    if #others > 0 then entry.extra.to = table.concat(others, ',') end
    write_entries() -- those of its callbacks first
    write_entry(workspace, id, entry, keep_ms_of(expires_at))
    return 'accepted'
  end

  -- Takes in one callback of a batch; returns its word.
  function accept_one(
    max_waiting, queue_entry, workspace, id, about, endpoint_id, message, stamp, ttl_ms, body)
    local expires_at = math.min(string.sub(stamp, 1, 16) + 0, now) + ttl_ms
    if is_other(id) then
      return accept_other(
        max_waiting, queue_entry, workspace, id, about, endpoint_id, message, stamp, expires_at, body)
    end
    local known, word, begun = take_known(workspace, id), nil, nil
    if known then
      word, begun = look_at_known(workspace, id, known, about)
    else
      word = word_of_retired(workspace, id, about)
      if word == 'retired' then return word end
      known = word
    end
    if begun and endpoint_id == '' then -- the default subscription wanted it then: the sweep completes it
      word = 'duplicate'
    elseif not known and endpoint_id == '' then
      word = keep_change(workspace, id, about, message, expires_at)
    elseif not known and #others > 0 and is_full(workspace, endpoint_id, max_waiting) then
      word = fail_full(queue_entry, workspace, id, about, endpoint_id, message, expires_at, body)
    elseif word == 'conflict' then
      local detail = 'eventId ' .. id .. ' was accepted before for another status change; that one stands'
      keep_rejected(queue_entry, 'conflict', detail, workspace, id)
    elseif not known and is_full(workspace, endpoint_id, max_waiting) then
      word = 'full'
      local most = math.ceil(max_waiting / workspace_of(workspace).width)
      local detail = int(most) .. ' callbacks wait for ' .. name_of[endpoint_id]
        .. ' (MAX_WAITING_PER_ENDPOINT); enqueue again when some have gone'
      keep_rejected(queue_entry, 'endpoint_full', detail, workspace, id)
    elseif not known or begun then
      word = take_in(queue_entry, workspace, id, about, endpoint_id, message, stamp, expires_at, body, begun)
    end
    others = {}
    return word
  end

  -- Forgets the others of a status change that is left on the queue.
  function leave_change() others = {} end
end
