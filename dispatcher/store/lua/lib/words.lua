-- What became of the callbacks of a batch, and of the queue entries that they are of.

-- Words of callbacks whose queue entry is left on the queue.
local LEFT = { changed = true, broken = true, retired = true }

local words_of_entries, new_expiries, is_entry_left = {}, {}, false
local erased_entries = {} -- by their number: those whose status change was erased before
local finish_one, write_expiries
do -- the rest is private to this file
  -- Callbacks are counted, and of a status change that is known only itself.
  local function is_counted(word, is_own, endpoint_id)
    if word == 'duplicate' or word == 'conflict' then return is_own end
    return endpoint_id ~= ''
  end

  -- Counts the word of a callback and notes its expiry; with the last one of its queue entry, notes the
  -- word of that. Returns whether the entry leaves the queue: none of its callbacks is `changed` or `broken`.
  function finish_one(word, workspace, id, endpoint_id, to_delivered_ms)
    local is_own = not is_other(id)
    if word == 'accepted' then
      local expiry = workspace .. ':' .. id
      local at = expiries_to_add[expiry]
      if at then add(new_expiries, at, expiry) end
    end
    if LEFT[word] then
      is_entry_left = true
    elseif is_counted(word, is_own, endpoint_id) then
      count_word(word, workspace, to_delivered_ms)
    end
    if not is_own then return false end
    local leaves = not is_entry_left
    if word == 'failed' then word = 'accepted' end -- by the others
    words_of_entries[#words_of_entries + 1] = is_entry_left and not LEFT[word] and 'broken' or word
    if erased_ids[workspace .. ':' .. id] then erased_entries[#words_of_entries] = true end
    is_entry_left = false
    return leaves
  end

  function write_expiries()
    if #new_expiries > 0 then redis.call('ZADD', key_of('expiries'), unpack(new_expiries)) end
  end
end
