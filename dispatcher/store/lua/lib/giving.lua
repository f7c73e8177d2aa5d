-- Which callbacks of ready endpoints accept gives to its caller at once, and which endpoints it hints.

-- Whether a callback can be given to the caller without the lane: none is before it, the window has room, and
-- no hint, pause, rate or stop limits the endpoint.
local function can_give(endpoint)
  return left_for(endpoint.workspace) > 0 and endpoint.lane_is_empty
    and endpoint.window > endpoint.leased + #endpoint.given and endpoint.hinted_until <= now
    and endpoint.pause == 0 and endpoint.rate == 0 and not endpoint.stopped
end

-- Runs once per endpoint, after all of its callbacks: gives what the caller has room for, and adds it to
-- `reply`; or hints the endpoint, unless its workspace has `most_hinted` hints already.
local hinted_of = {}
local function give_or_hint(reply, hints, endpoint, lease_ms, hint_ms, most_hinted)
  write_lane(endpoint)
  if endpoint.added > 0 then
    redis.call('HINCRBY', endpoint.record_key, 'waiting', int(endpoint.added))
    endpoint.counted = endpoint.added
  end
  local workspace, given = endpoint.workspace, #endpoint.given
  local left = left_for(workspace)
  if given > 0 or left > 0 and endpoint.hinted_until <= now then
    claim(reply, endpoint, left, lease_ms, hint_ms)
    count_given(workspace, #endpoint.given - given)
    reply[9] = reply[9] + 1
    return
  end
  assess(endpoint)
  local hinted = hinted_of[workspace] or 0
  if hinted < most_hinted and take_hint(endpoint, hint_ms) then
    hints[#hints + 1], hints[#hints + 2] = endpoint.id, workspace
    hinted_of[workspace] = hinted + 1
  end
  reschedule(endpoint)
end

-- The same for all endpoints with accepted callbacks except those in `broken`; adds those that break here.
local function give_or_hint_all(reply, hints, broken, lease_ms, hint_ms, most_hinted)
  for i = 1, #touched_ids do
    local endpoint_id = touched_ids[i]
    local length, given, endpoint = #reply, reply[9], not broken[endpoint_id] and touched[endpoint_id]
    if endpoint and not guarded(give_or_hint, reply, hints, endpoint, lease_ms, hint_ms, most_hinted) then
      broken[endpoint_id], reply[9] = true, given
      if endpoint.counted > 0 then
        guarded(redis.call, 'HINCRBY', key_of('endpoint', endpoint_id), 'waiting', -endpoint.counted)
      end
      while #reply > length do reply[#reply] = nil end
    end
  end
end
