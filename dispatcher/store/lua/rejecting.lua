-- Keeps an entry that cannot be used. ARGV[3] is the retention in ms.
local MAX_REJECTED, MAX_RAW = 10000, 65536

-- The entry's `event` field; if it has none, all it has.
local function raw_of(entry)
  local found = redis.call('XRANGE', key_of('events'), entry, entry)
  if not found[1] then return '' end
  local fields = found[1][2]
  for i = 1, #fields, 2 do
    if fields[i] == 'event' then return fields[i + 1] end
  end
  return table.concat(fields, ' ')
end

-- Whether an entry is among those that were kept last: then a run that broke off behind it is repeated.
local kept
local function is_kept(entry, id)
  if not kept then
    kept = {}
    for _, found in ipairs(redis.call('XREVRANGE', key_of('rejected'), '+', '-', 'COUNT', 64)) do
      kept[found[2][2] .. ' ' .. (found[2][14] or '')] = true
    end
  end
  return kept[entry .. ' ' .. id]
end

local function keep_rejected(entry, reason, detail, workspace, id)
  if is_kept(entry, id) then return redis.call('PEXPIRE', key_of('rejected'), ARGV[3]) end
  local raw = raw_of(entry)
  redis.call('XADD', key_of('rejected'), 'MAXLEN', MAX_REJECTED, '*', 'entry', entry, 'at', NOW, 'reason', reason,
    'detail', detail, 'raw', string.sub(raw, 1, MAX_RAW), 'workspace', workspace, 'eventId', id, 'cut', #raw > MAX_RAW and 1 or 0)
  kept[entry .. ' ' .. id] = true
  redis.call('PEXPIRE', key_of('rejected'), ARGV[3])
  guarded(redis.call, 'HINCRBY', key_of('rejected-counts'), reason, 1)
  count('rejected', workspace ~= '' and workspace or '*')
end
