-- How one callback comes into the ledger.
-- A status change has one callback, or one for each subscription that wants it (fan-out). Then the callbacks
-- of the others come first, with ids such as `eventId.subscription`, and its own comes last, with the eventId
-- itself. So a status change that is known by its own has all of them, whatever subscriptions there are now.
-- Its entry, which makes it known, is written before it is put anywhere, and it is added to the expiries last
-- (accept.lua). So a pending callback that is not in the expiries was taken in only in part, and is taken in
-- again.

-- The subscriptions of the other callbacks of the status change whose own comes next.
local others = {}

local take_in, end_at_once, new_entry, keep_ms_of
do -- the rest is private to this file
  -- For `latest`: whether it comes `behind` a newer one of its message, has the time of the newest (`equal`),
  -- or is `newer`.
  local function place_in_time(endpoint_id, message, stamp)
    local newest = redis.call('GET', key_of('newest', endpoint_id, message)) or ''
    return stamp < newest and 'behind' or stamp == newest and 'equal' or 'newer'
  end

  function end_at_once(queue_entry, workspace, id, entry, keep_ms, state)
    entry.state, entry.ended = state, '0'
    if #others > 0 then write_entries() end -- those of its status change first
    list_end(workspace, id, entry)
    remember_message(queue_entry, workspace, entry.message, id, keep_ms)
    write_entry(workspace, id, entry, RETENTION_MS)
    note_end(workspace, id)
    tell_end(workspace, id, entry)
    return state
  end

  -- Gives a callback to the caller, or puts it into its chain or its lane; writes its entry before that.
  local function put_in_place(
    queue_entry, workspace, id, entry, endpoint, keep_ms, expires_at, body, is_begun)
    local message, expires = entry.message, int(expires_at)
    local earlier = remember_message(queue_entry, workspace, message, id, keep_ms)
    if earlier ~= '' then write_entries() end
    local head = earlier ~= '' and heal_chain(workspace, endpoint.id, message)
    local before = earlier ~= '' and not head and one_before(workspace, endpoint.id, earlier)
    if head then endpoint.lane_is_empty = false end -- healing may have put it there
    local waits = before or head and head ~= id -- the chain is written when the second one waits
    local was_placed = is_begun and is_placed(endpoint.id, message, id)
    local at_once = not waits and not is_begun and expires_at > now and can_give(endpoint)
    if at_once then entry.state, entry.claims = 'sending', '1' end
    add(entries_and_bodies, key_of('event', workspace, id), text_of(entry))
    add(entries_and_bodies, key_of('body', workspace, id), body)
    if at_once then
      hand_over(endpoint, id, '1', '1', expires, message, entry.about, body)
      count_given(workspace, 1)
    elseif waits and not was_placed then
      write_entries()
      redis.call('RPUSH', key_of('chain', endpoint.id, message), unpack(before and { before, id } or { id }))
    elseif not was_placed then
      endpoint.lane_is_empty = false
      add(endpoint.lane, NOW, id)
    end
    expiries_to_add[workspace .. ':' .. id] = expires
  end

  function new_entry(about, endpoint_id, message, expires_at)
    return {
      about = about .. ' ' .. NOW, accepted = now, state = 'pending', claims = '0', endpoint = endpoint_id,
      message = message, life = int(expires_at - now), extra = {}, attempts = '',
    }
  end
  function keep_ms_of(expires_at) return int(math.max(expires_at - now, 0) + RETENTION_MS) end

  -- Takes a callback into the ledger and puts it in its place; for `latest`, ends it if a newer one came
  -- before. `begun` is its entry, if a run that broke off has written one.
  function take_in(
    queue_entry, workspace, id, about, endpoint_id, message, stamp, expires_at, body, begun)
    local endpoint = touch(endpoint_id)
    local ordering, keep_ms = endpoint.ordering, keep_ms_of(expires_at)
    local entry = begun or new_entry(about, endpoint_id, message, expires_at)
    if not begun and #others > 0 and not is_other(id) then entry.extra.to = table.concat(others, ',') end
    if begun and begun.endpoint ~= endpoint_id then leave_endpoint(begun, id) end
    entry.endpoint = endpoint_id
    local place = ordering == 'latest' and place_in_time(endpoint_id, message, stamp)
    if place then
      entry.extra.stamp = stamp
      if place == 'behind' and not begun then
        return end_at_once(queue_entry, workspace, id, entry, keep_ms, 'superseded')
      end
      endpoint.lane_is_empty = false -- the ends of those it supersedes may put others into the lane
    elseif ordering == 'strict' then
      entry.extra.strict = '1'
    end
    put_in_place(queue_entry, workspace, id, entry, endpoint, keep_ms, expires_at, body, begun)
    endpoint.added = endpoint.added + 1
    if place == 'newer' then
      supersede_older(endpoint, message, stamp)
      -- last: then no other one of its time has to look for older ones
      redis.call('SET', key_of('newest', endpoint_id, message), stamp, 'PX', keep_ms)
    end
    return 'accepted'
  end
end
