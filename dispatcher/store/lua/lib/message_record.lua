-- Keeps what status changes say about their messages, for queries. Accept does this last, because callbacks
-- do not need it; an error costs only that one record.

-- Counts final statuses, for success rates, and the time to the handset, if it is known when it was sent.
local function count_final(workspace, before, status, took)
  if before == 'd' or RANK[status] < 100 then return end
  if status == 'd' or status == 'r' then
    count_in(of_hour, workspace .. ' messagesDelivered', 1)
    if before or took > 0 then
      count_in(of_hour, workspace .. ' messagesTimed', 1)
      count_in(of_hour, workspace .. ' messagesTimedMs', math.max(took, 0))
    end
  else
    count_in(of_hour, workspace .. ' messagesFailed', 1)
  end
end

local NOTHING = {}

-- Whether only the archive has a message, to which no status can be added any more.
local function is_over_in_archive(workspace, message)
  return ARCHIVES and has_fingerprint(workspace, id_of_message(message))
end

-- Notes when the archive is to look at a message: soon if it has a final status, or else in half of the time
-- for which it is kept after its last change.
local function note_for_archive(workspace, message, before, status)
  local is_final = RANK[status] >= 100
  if before and not is_final then return end
  local at = is_final and NOW or int(now + KEPT_MS / 2)
  redis.call('ZADD', key_of('status-due'), at, workspace .. ' ' .. message)
end

-- Keeps one status of a message. Returns `recorded`; or `late` if the message has that status or a later one,
-- and nothing changed.
local function record(workspace, message, status, happened, sent, step, told, looked_up_by)
  happened, sent = tonumber(happened), tonumber(sent)
  local key = key_of('status', workspace, message)
  local kept = redis.call('GET', key)
  local before, sent_before, last_told_at, known, steps
  if kept then before, sent_before, last_told_at, known, steps = read_kept(kept) end
  if not kept and is_over_in_archive(workspace, message) then return 'late' end
  local campaign = looked_up_by.campaign or ''
  looked_up_by.campaign = nil -- the only one that is no list
  local told_at = HEAD + #campaign + #step + 1
  if before then
    sent = sent_before
    if not may_follow(before, status, step, steps) then return 'late' end
    if known ~= '' then campaign = known end
    if string.sub(kept, last_told_at, last_told_at + #told - 1) == told then
      told, looked_up_by, told_at = '\0\0', NOTHING, last_told_at + #campaign - #known
    else
      told_at = HEAD + #campaign + #steps + #step + 1
    end
  end
  local head = status .. string.format('%013d%06d%04d', sent, told_at, #campaign) .. campaign
  redis.call('SET', key, head .. (steps or '') .. step .. told, 'PX', KEPT_MS)
  if ARCHIVES then note_for_archive(workspace, message, before, status) end
  for kind, which in pairs(looked_up_by) do guarded(LIST[kind], workspace, which, message, sent, steps) end
  local counted_as = known and known ~= '' and before or nil
  guarded(count_in_campaign, workspace, campaign, message, sent, counted_as, status)
  count_final(workspace, before, status, happened - sent)
  return 'recorded'
end

-- Words of accept for callbacks whose status changes are not recorded, with the word for the status change;
-- `erased` is none of accept's: a duplicate of what was erased.
local NOT_RECORDED = {
  conflict = 'conflict', changed = 'again', broken = 'again', retired = 'again', erased = 'late',
}

-- Returns the word for one status change, and why it failed, or else `earlier`. `word` is that of its
-- callback; nil: it causes none.
local function record_unless(word, earlier, ...)
  if NOT_RECORDED[word] then return NOT_RECORDED[word], earlier end
  local worked, found = pcall(record, ...)
  if worked then return found, earlier end
  return 'failed', error_of(found)
end
