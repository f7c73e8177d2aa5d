-- Which callbacks of a status change are taken in.
-- It has one callback, or one for each subscription that wants it (fan-out). Then the callbacks of the others
-- come first, with ids such as `eventId.subscription`, and its own comes last, with the eventId itself. So a
-- status change that is known by its own has all of them, whatever subscriptions there are now.

local accept_one, leave_change
do -- the rest is private to this file
  -- One of several callbacks of a status change whose endpoint has no room fails alone.
  local function fail_full(workspace, id, about, endpoint_id, message, expires_at, body)
    local entry = new_entry(about, endpoint_id, message, expires_at)
    if not is_other(id) then entry.extra.to = table.concat(others, ',') end
    entry.attempts = '\n0 0 - endpoint_full'
    touch(endpoint_id)
    redis.call('SET', key_of('body', workspace, id), body, 'PX', RETENTION_MS)
    return end_at_once(workspace, id, entry, keep_ms_of(expires_at), 'failed')
  end

  -- The callback for another subscription than the default one; returns its word.
  local function accept_other(
    max_waiting, workspace, id, about, endpoint_id, message, stamp, expires_at, body)
    local event_id, subscription = string.match(id, '^([^.]+)%.(.+)$')
    local known, word, begun = take_known(workspace, id), nil, nil
    if known then word, begun = look_at_known(workspace, id, known, about) end
    local is_told_before = not known and is_known(workspace, event_id)
    others[#others + 1] = subscription
    if begun or not (known or is_told_before or is_full(endpoint_id, max_waiting)) then
      return take_in(workspace, id, about, endpoint_id, message, stamp, expires_at, body, begun)
    end
    if known or is_told_before then return word or 'duplicate' end
    return fail_full(workspace, id, about, endpoint_id, message, expires_at, body)
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
    local expires_at = math.min(tonumber(string.sub(stamp, 1, 16)), now) + ttl_ms
    if is_other(id) then
      return accept_other(max_waiting, workspace, id, about, endpoint_id, message, stamp, expires_at, body)
    end
    local known, word, begun = take_known(workspace, id), nil, nil
    if known then word, begun = look_at_known(workspace, id, known, about) end
    if not known and endpoint_id == '' then
      word = keep_change(workspace, id, about, message, expires_at)
    elseif not known and #others > 0 and is_full(endpoint_id, max_waiting) then
      word = fail_full(workspace, id, about, endpoint_id, message, expires_at, body)
    elseif word == 'conflict' then
      local detail = 'eventId ' .. id .. ' was accepted before for another status change; that one stands'
      keep_rejected(queue_entry, 'conflict', detail, workspace, id)
    elseif not known and is_full(endpoint_id, max_waiting) then
      word = 'full'
      local detail = max_waiting .. ' callbacks wait for ' .. name_of[endpoint_id]
        .. ' (MAX_WAITING_PER_ENDPOINT); enqueue again when some have gone'
      keep_rejected(queue_entry, 'endpoint_full', detail, workspace, id)
    elseif not known or begun then
      word = take_in(workspace, id, about, endpoint_id, message, stamp, expires_at, body, begun)
    end
    others = {}
    return word
  end

  -- Forgets the others of a status change that is left on the queue.
  function leave_change() others = {} end
end

-- What marks callbacks as done, written at the end of accept: expiries, and queue entries to remove. `words`
-- has one for each queue entry. An entry of which a callback is left stays on the queue.
local marks = { expiries = {}, entries = {}, words = {}, is_left = false }
local function mark(word, queue_entry, workspace, id, endpoint_id, to_delivered_ms)
  local expiry, is_own = workspace .. ':' .. id, not is_other(id)
  if word == 'accepted' and expiries_to_add[expiry] then
    add(marks.expiries, expiries_to_add[expiry], expiry)
  end
  if word == 'changed' or word == 'broken' then
    marks.is_left = true
  elseif is_counted(word, is_own, endpoint_id) then
    count_word(word, workspace, to_delivered_ms)
  end
  if not is_own then return end
  if not marks.is_left then marks.entries[#marks.entries + 1] = queue_entry end
  if word == 'failed' then word = 'accepted' end -- by the others
  marks.words[#marks.words + 1] = marks.is_left and word ~= 'changed' and 'broken' or word
  marks.is_left = false
end
