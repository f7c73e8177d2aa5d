-- retire_messages: takes messages that the archive has out of the message store.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   token: of the intake lease, or of `dispatcher archiver`
--   format: the number of the data's format in which messages may be retired
--   for each message: workspace message text what number
--   then for each of the lists that lead to it: kind which
--     text: its record, as the archive has it ('' = none); where it is another one now, it is left alone
--     what: over (a fingerprint stays, as nothing can be added to it); open (nothing stays); refused (it
--       stays, and the archive does not look at it again); or when to look at it again (ms since 1970)
--     number: how many lists; kind and which: lib/leaving_lists.lua
-- returns {'retired', now, number of messages, the error on some key ('' = none)}; or, with nothing done,
--   {'not_leader', now}, or {'not_allowed', now}: the data has a lower format
-- One that has a key of the wrong type is looked at again an hour later.
-- Works when Redis is full. A message leaves its record last: a run that breaks off is repeated.
-- include prologue
-- include guard
-- include fingerprints
-- include keeping_fingerprints
-- include leaving_lists
redis.call('DEL', PREFIX .. 'never')
local token, format = take(2)
local holders = redis.call('MGET', key_of('intake'), key_of('archiver'))
if holders[1] ~= token and holders[2] ~= token then return { 'not_leader', now } end
local stored = string.match(redis.call('GET', key_of('format')) or '', '^%d+') -- it may have grown since
if (tonumber(stored) or 0) < format + 0 then return { 'not_allowed', now } end

-- The counts of its campaign stay, and their list of its messages.
local function retire(workspace, message, text, what, lists)
  local key, due = key_of('status', workspace, message), workspace .. ' ' .. message
  if message == '' then due = workspace end -- no script of ours wrote it
  if (redis.call('MGET', key)[1] or '') ~= text then return false end
  if text == '' or what == 'refused' then
    redis.call('ZREM', key_of('status-due'), due)
    return false
  end
  if what ~= 'over' and what ~= 'open' then
    redis.call('ZADD', key_of('status-due'), what, due)
    return false
  end
  if what == 'over' then keep_fingerprint(workspace, id_of_message(message)) end
  for _, one in ipairs(lists) do guarded(LEAVE_LIST[one.kind], workspace, message, one.which, '1') end
  redis.call('DEL', key)
  redis.call('ZREM', key_of('status-due'), due)
  return true
end

local retired = 0
while has_more() do
  local workspace, message, text, what, number = take(5)
  local lists = {}
  for _ = 1, number do
    local kind, which = take(2)
    lists[#lists + 1] = { kind = kind, which = which }
  end
  local ok, done = guarded(retire, workspace, message, text, what, lists)
  if ok and done then retired = retired + 1 end
  local due = workspace .. ' ' .. message
  if not ok then guarded(redis.call, 'ZADD', key_of('status-due'), int(now + HOUR), due) end
end
write_tables()
return { 'retired', now, retired, problem }
