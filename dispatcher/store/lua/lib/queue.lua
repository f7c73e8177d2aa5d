-- Entries of the queue: how they leave it, and how one that cannot be used is kept in `rejected`.

-- Takes entries off the queue, in batches; deletes them first. If Redis loses the second command with power,
-- an entry that is gone and counts as read is read again, and leaves. One that is there, and counts as done,
-- would stay for ever.
local function leave_queue(queue_entries)
  for first = 1, #queue_entries, 500 do
    local last = math.min(first + 499, #queue_entries)
    redis.call('XDEL', key_of('events'), unpack(queue_entries, first, last))
    redis.call('XACK', key_of('events'), GROUP, unpack(queue_entries, first, last))
  end
end

-- Whether an entry is on the queue behind one id and before another.
local function is_any_between(after, before)
  return after ~= '' and redis.call('XRANGE', key_of('events'), '(' .. after, '(' .. before, 'COUNT', 1)[1]
end

local kept_lately = nil -- a value, so that each run of a function begins without it
local function keep_rejected(queue_entry, reason, detail, workspace, id)
  -- The entry's `event` field; if it has none, all of its fields; nil if it has left the queue.
  local function raw_of()
    local found = redis.call('XRANGE', key_of('events'), queue_entry, queue_entry)
    if not found[1] then return end
    local fields = found[1][2]
    for i = 1, #fields, 2 do
      if fields[i] == 'event' then return fields[i + 1] end
    end
    return table.concat(fields, ' ')
  end

  -- Whether it is among the last ones in `rejected`: then this repeats a run that broke off after that.
  local function is_kept()
    if not kept_lately then
      kept_lately = {}
      for _, found in ipairs(redis.call('XREVRANGE', key_of('rejected'), '+', '-', 'COUNT', 64)) do
        kept_lately[found[2][2] .. ' ' .. (found[2][14] or '')] = true
      end
    end
    return kept_lately[queue_entry .. ' ' .. id]
  end

  if is_kept() then return redis.call('PEXPIRE', key_of('rejected'), RETENTION_MS) end
  local raw, MAX_REJECTED, MAX_RAW = raw_of(), 10000, 65536
  if not raw then return end -- this repeats a run whose reply was lost
  redis.call('XADD', key_of('rejected'), 'MAXLEN', MAX_REJECTED, '*', 'entry', queue_entry, 'at', NOW,
    'reason', reason, 'detail', detail, 'raw', string.sub(raw, 1, MAX_RAW), 'workspace', workspace,
    'eventId', id, 'cut', #raw > MAX_RAW and 1 or 0)
  kept_lately[queue_entry .. ' ' .. id] = true
  redis.call('PEXPIRE', key_of('rejected'), RETENTION_MS)
  guarded(redis.call, 'HINCRBY', key_of('rejected-counts'), reason, 1)
  count('rejected', workspace ~= '' and workspace or '*')
end
