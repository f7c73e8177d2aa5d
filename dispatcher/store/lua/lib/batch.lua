-- What accept collects while it goes through a batch: the endpoints with accepted callbacks, how many
-- callbacks may still be given to the caller, and what is written in one call each.

-- How many more callbacks may be given to the caller, in total and per workspace.
local left_to_give, left_of = 0, {}
local function left_for(workspace) return math.min(left_to_give, left_of[workspace] or left_to_give) end
local function count_given(workspace, n)
  left_to_give, left_of[workspace] = left_to_give - n, left_of[workspace] and left_of[workspace] - n
end

-- Keeps the endpoint's record longer than anything that refers to it; renews it once an hour:
-- `h`, as load_endpoint returned it, tells when it did so last.
local function keep(name, endpoint, h)
  if now - (h[9] or 0) < HOUR and endpoint.workspace then return endpoint end
  local key = endpoint.record_key
  redis.call('HSET', key, 'name', name)
  guarded(redis.call, 'ZADD', key_of('endpoints'), 'GT', NOW, endpoint.id)
  if not endpoint.is_kept then redis.call('PEXPIRE', key, MAX_TTL + HOUR + RETENTION_MS) end
  redis.call('HSET', key, 'seen', NOW) -- last: it marks all of this as done
  return endpoint.workspace and endpoint or load_endpoint(endpoint.id)
end

-- Endpoints with accepted callbacks, by id, their ids in order, and the names of all endpoints of the batch.
local touched, touched_ids, name_of = {}, {}, {}
local function touch(endpoint_id)
  local endpoint = touched[endpoint_id]
  if not endpoint then
    endpoint = keep(name_of[endpoint_id], load_endpoint(endpoint_id, 'idle', 'seen'))
    endpoint.given, endpoint.handed, endpoint.lane, endpoint.added, endpoint.counted = {}, {}, {}, 0, 0
    endpoint.lane_is_empty = left_to_give > 0
      and (endpoint.waiting == 0 or redis.call('EXISTS', key_of('lane', endpoint_id)) == 0)
    touched[endpoint_id], touched_ids[#touched_ids + 1] = endpoint, endpoint_id
  end
  return endpoint
end

-- Whether a workspace's share of `max_waiting` waits for the endpoint, in chains and leased ones included.
local waiting_at = {}
local function is_full(workspace, endpoint_id, max_waiting)
  if max_waiting == 0 then return false end
  if not waiting_at[endpoint_id] then
    waiting_at[endpoint_id] = tonumber(redis.call('HGET', key_of('endpoint', endpoint_id), 'waiting') or 0)
  end
  local endpoint = touched[endpoint_id]
  local waiting = waiting_at[endpoint_id] + (endpoint and endpoint.added or 0)
  return waiting >= max_waiting / workspace_of(workspace).width
end

-- What a batch adds to entries and bodies, to lanes and to the expiries, written in one call each, in this
-- order. What reads entries writes first.
local entries_and_bodies = {}
expiries_to_add = {}
local function add(list, first, second)
  local n = #list
  list[n + 1], list[n + 2] = first, second
end
local function write_entries()
  if #entries_and_bodies > 0 then redis.call('MSET', unpack(entries_and_bodies)) end
  entries_and_bodies = {}
end

local function write_lane(endpoint)
  if #endpoint.lane > 0 then redis.call('ZADD', key_of('lane', endpoint.id), unpack(endpoint.lane)) end
  endpoint.lane = {}
end

-- Counts the word of one callback; `to_delivered_ms`: from SUBMITTED to DELIVERED ('' = unknown).
local function count_word(word, workspace, to_delivered_ms)
  if word ~= 'full' then count(word, workspace) end -- that is counted as rejected
  local has_ended = word == 'superseded' or word == 'failed'
  if has_ended then count('accepted', workspace) end
  if (word == 'accepted' or has_ended) and to_delivered_ms ~= '' then
    count_in(of_hour, workspace .. ' toDelivered', 1)
    count_in(of_hour, workspace .. ' toDeliveredMs', tonumber(to_delivered_ms))
  end
end
