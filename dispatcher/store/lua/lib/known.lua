-- What the ledger has already of the callbacks of a batch.

-- Whether it is the id of a callback for another subscription than the default one. Where a batch has such a
-- callback, a queue entry has several: its own comes behind them.
local has_several = false
local function is_other(id) return has_several and string.find(id, '.', 1, true) ~= nil end

-- The ids of a queue entry's callbacks, separated by spaces, if there are several.
local ids_of_change = {}
local function add_to_change(queue_entry, id, endpoint_id)
  local ids = ids_of_change[queue_entry]
  if not (ids or is_other(id)) or endpoint_id == '' then return end
  ids_of_change[queue_entry] = ids and ids .. ' ' .. id or id
end

-- Texts of the entries that a batch's eventIds have already, by key (false: none), each for one look: after
-- that it may have been written. Returns who leads intake.
local known_texts
known_texts = {} -- not one that was large once
local function read_known(callbacks)
  local keys, entry_before = { key_of('intake') }, nil
  for queue_entry, workspace, id in callbacks do
    keys[#keys + 1] = key_of('event', workspace, id)
    has_several, entry_before = has_several or queue_entry == entry_before, queue_entry
  end
  if has_several then
    for queue_entry, _, id, _, endpoint_id in callbacks do add_to_change(queue_entry, id, endpoint_id) end
  end
  local texts = redis.call('MGET', unpack(keys))
  for i = 2, #keys do known_texts[keys[i]] = texts[i] end
  return texts[1]
end
local function take_known(workspace, id)
  local key = key_of('event', workspace, id)
  local text = known_texts[key]
  known_texts[key] = nil
  if text ~= nil then return text end
  write_entries() -- its eventId is in the batch twice
  return redis.call('MGET', key)[1]
end

-- Whether an eventId is known, without that look.
local function is_known(workspace, id)
  local key = key_of('event', workspace, id)
  if known_texts[key] ~= nil then return known_texts[key] end
  write_entries()
  return redis.call('EXISTS', key) == 1
end

-- The callbacks of a batch that were erased before, as `workspace:id`.
local erased_ids = {}

-- Whether two texts begin with the same digest; one of format 1 is shorter. `-`: it was erased, and nothing is
-- left to compare with.
local function is_same(workspace, id, about, text)
  local digest, known = digest_of(about), digest_of(text)
  if known == '-' then erased_ids[workspace .. ':' .. id] = true end
  return known == '-' or known == string.sub(digest, 1, #known)
end

-- Compares a callback with the one known by its eventId: duplicate, conflict, or begun by a run that broke
-- off, with its entry.
local function look_at_known(workspace, id, text, about)
  if not is_same(workspace, id, about, text) then return 'conflict' end
  local entry, expiry = parse_entry(text), workspace .. ':' .. id
  if not entry then return 'conflict' end
  if entry.ended or expiries_to_add[expiry] or redis.call('ZSCORE', key_of('expiries'), expiry) then
    return 'duplicate'
  end
  return 'begun', entry
end

-- What the archive has said about eventIds that have a fingerprint, by `workspace eventId`: the callback's
-- digest (`-`: it was erased), or `none`: it has no such callback.
local archived = {}

-- The word for a callback whose eventId Redis has no entry of: `retired` if the archive is to be asked;
-- nil: it is new.
local function word_of_retired(workspace, id, about)
  if not ARCHIVES or not has_fingerprint(workspace, id) then return end
  local said = archived[workspace .. ' ' .. id]
  if not said then return 'retired' end
  if said == 'none' then return end
  return is_same(workspace, id, about, said) and 'duplicate' or 'conflict'
end
