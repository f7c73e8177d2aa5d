-- What became of the callbacks of a batch, and of the queue entries that they are of.
local words_of_entries = {}
local finish_one, write_expiries
do -- the rest is private to this file
  local expiries, is_left = {}, false

  -- Callbacks are counted, and of a status change that is known only itself.
  local function is_counted(word, is_own, endpoint_id)
    if word == 'duplicate' or word == 'conflict' then return is_own end
    return endpoint_id ~= ''
  end

  -- Counts the word of a callback and notes its expiry; with the last one of its queue entry, notes the
  -- word of that. Returns whether the entry leaves the queue: none of its callbacks is `changed` or `broken`.
  function finish_one(word, workspace, id, endpoint_id, to_delivered_ms)
    local expiry, is_own = workspace .. ':' .. id, not is_other(id)
    if word == 'accepted' and expiries_to_add[expiry] then add(expiries, expiries_to_add[expiry], expiry) end
    if word == 'changed' or word == 'broken' then
      is_left = true
    elseif is_counted(word, is_own, endpoint_id) then
      count_word(word, workspace, to_delivered_ms)
    end
    if not is_own then return false end
    local leaves = not is_left
    if word == 'failed' then word = 'accepted' end -- by the others
    words_of_entries[#words_of_entries + 1] = is_left and word ~= 'changed' and 'broken' or word
    is_left = false
    return leaves
  end

  function write_expiries()
    if #expiries > 0 then redis.call('ZADD', key_of('expiries'), unpack(expiries)) end
  end
end
