-- accept: puts a batch of callbacks into the ledger and their lanes, once per (workspace, eventId).
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   token: of the intake lease
--   after, before: ids of entries, with none on the queue between them ('' = any may be)
--   hint_ms: how long a hint holds
--   most_given: most callbacks of ready endpoints to give to the caller at once, as claim does
--   lease_ms: how long the caller has them
--   most_hinted: most endpoints to hint per workspace; wake finds the others
--   max_waiting: most callbacks that may wait for one endpoint; 0: no limit
--   kept_ms: how long a message is kept after its last change
--   for each workspace (number first): workspace revision most_of_it
--     revision: the one its entries were rendered with; most_of_it: most of its callbacks to give at once
--   for each entry that causes no callback (number first): queue_entry workspace
--   for each endpoint (number first): endpoint_id name
--   for each eventId that the archive was asked for (number first): workspace id said
--   for each callback (number first): queue_entry workspace id about endpoint_id message stamp
--     ttl_ms body to_delivered_ms
--     endpoint_id: '' if the default subscription does not want it
--     about: digest, type, letter of the status; stamp: timestamp (ns, 22 digits)
--     body: URL, line feed, body; to_delivered_ms: from SUBMITTED to DELIVERED ('' = unknown)
--   for each status change: entry workspace message status happened sent step told number
--     entry: the number of its queue entry among those with callbacks (0: it causes none); status: its letter
--     happened, sent: when it happened, and when its message was sent, ms since 1970
--     step, told: lib/message_steps.lua; number: how many lookup keys the message has
--   then for each of those: kind which
-- returns {'accepted', now, endpoint and workspace of each hint, a word for each queue entry, a word for each
--   status change, why one of these failed, workspaces that changed (lists are separated by spaces), the
--   error on some endpoint ('' = none), number of endpoints with callbacks for the caller, these callbacks
--   (lib/lease.lua) ..., ends (lib/ending.lua) ...}
--   word: accepted|superseded|duplicate|conflict|full; or, with the entry left on the queue: changed (its
--   workspace: render it again), broken (a key of its endpoint is damaged), retired (ask the archive)
--   word of a status change: recorded|late|conflict|failed, or again: its callback is left on the queue
--   or, with nothing done, {'not_leader', now}; or {'overtakes', now}: there is an entry between these ids
-- A run that breaks off leaves its entries on the queue; running it again completes it (lib/taking_in.lua).
-- Refused when Redis is full, unless there is nothing to take in. `said`: lib/known.lua.
-- include prologue
-- include guard
-- include counts
-- include endpoint
-- include schedule
-- include entry
-- include chain
-- include archives
-- include ending
-- include lease
-- include claiming
-- include queue
-- include batch
-- include fingerprints
-- include known
-- include giving
-- include siblings
-- include taking_in
-- include fan_out
-- include words
-- include message_steps
-- include message_lists
-- include message_record
local token, after, before, hint_ms, most_given, lease_ms, most_hinted, max_waiting, kept_ms = take(9)
left_to_give, max_waiting = most_given + 0, max_waiting + 0
-- If a workspace changed since its entries were rendered, all of them are left on the queue.
local changed, changes, done = {}, {}, {}
for _ = 1, take(1) do
  local workspace, revision, most_of_it = take(3)
  left_of[workspace] = most_of_it + 0
  local ok, found = guarded(workspace_of, workspace)
  if not ok or found.revision ~= revision then changed[workspace], changes[#changes + 1] = true, workspace end
end
for _ = 1, take(1) do
  local queue_entry, workspace = take(2)
  if not changed[workspace] then done[#done + 1] = queue_entry end
end
if #done > 0 then count('noCallback', '*', nil, #done) end
for _ = 1, take(1) do local endpoint_id, name = take(2); name_of[endpoint_id] = name end
for _ = 1, take(1) do local workspace, id, said = take(3); archived[workspace .. ' ' .. id] = said end
local callbacks, words, broken, left = each(10, take(1)), {}, {}, nil
if read_known(callbacks) ~= token then return { 'not_leader', now } end
if is_any_between(after, before) then return { 'overtakes', now } end
for queue_entry, workspace, id, about, endpoint_id, message, stamp, ttl_ms, body in callbacks do
  local word = changed[workspace] and 'changed' or broken[endpoint_id] and 'broken' or left
  if not word then
    local ok, found = guarded(
      accept_one, max_waiting, queue_entry, workspace, id, about, endpoint_id, message, stamp, ttl_ms, body)
    word, broken[endpoint_id] = ok and found or 'broken', not ok or nil
  end
  words[#words + 1] = word
  left = LEFT[word] and word ~= 'changed' and is_other(id) and word or nil
  if LEFT[word] then leave_change() end
end
write_entries()

-- ... then do what is needed once per endpoint, ...
local hints, reply, n = {}, { 'accepted', now, '', '', '', '', '', '', 0 }, 0
give_or_hint_all(reply, hints, broken, lease_ms + 0, hint_ms, most_hinted + 0)

-- ... and only then write what marks them as done: expiries and queue.
for queue_entry, workspace, id, _, endpoint_id, _, _, _, _, to_delivered_ms in callbacks do
  n = n + 1
  local word = broken[endpoint_id] and words[n] ~= 'changed' and 'broken' or words[n]
  if finish_one(word, workspace, id, endpoint_id, to_delivered_ms) then done[#done + 1] = queue_entry end
end
write_expiries()
leave_queue(done)
if has_more() then keep_messages(kept_ms) end -- last: callbacks do not need the records
local recorded, why = {}, ''
while has_more() do
  local entry, workspace, message, status, happened, sent, step, told, number = take(9)
  local place, looked_up_by = tonumber(entry), {}
  local word = erased_entries[place] and 'erased' or words_of_entries[place]
  for _ = 1, number do
    local kind, which = take(2)
    looked_up_by[kind] = which
  end
  recorded[#recorded + 1], why =
    record_unless(word, why, workspace, message, status, happened, sent, step, told, looked_up_by)
end
reply[3], reply[4] = table.concat(hints, ' '), table.concat(words_of_entries, ' ')
reply[5] = table.concat(recorded, ' ')
reply[6], reply[7], reply[8] = why, table.concat(changes, ' '), problem
return conclude(reply)
