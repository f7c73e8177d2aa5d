-- retire: takes callbacks that the archive has out of the ledger; of each, its fingerprint stays.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   token: of the intake lease, or of `dispatcher archiver`
--   format: the number of the data's format in which callbacks may be retired
--   for each callback (number first): workspace id text
--   for each note that is done with: note
-- returns {'retired', now, number of callbacks, the error on some key ('' = none)}; or, with nothing done,
--   {'not_leader', now}, or {'not_allowed', now}: the data has a lower format
-- text: the callback's entry, as the archive has it; where it is another one now, it is left alone.
-- Works when Redis is full. A run that breaks off is repeated: what is retired by then has no entry any more.
-- include prologue
-- include guard
-- include entry
-- include forgetting
-- include fingerprints
-- include keeping_fingerprints
redis.call('DEL', PREFIX .. 'never')
local token, format = take(2)
local holders = redis.call('MGET', key_of('intake'), key_of('archiver'))
if holders[1] ~= token and holders[2] ~= token then return { 'not_leader', now } end
local stored = string.match(redis.call('GET', key_of('format')) or '', '^%d+') -- it may have grown since
if (tonumber(stored) or 0) < format + 0 then return { 'not_allowed', now } end

-- The entry of a callback that may go; nil: it stays.
local function going(workspace, id, text)
  if redis.call('MGET', key_of('event', workspace, id))[1] ~= text then return end
  local entry = parse_entry(text)
  if not entry or not entry.ended then return end
  -- Redis forgets it soon by itself, and knows it until then
  return now - entry.accepted - entry.ended <= RETENTION_MS * 3 / 4 and entry or nil
end

-- The body of a delivered callback is not in the archive: it stays for as long as it was to stay.
local function retire(workspace, id, entry)
  keep_fingerprint(workspace, id)
  local key = key_of('event', workspace, id)
  if entry.state == 'delivered' then
    redis.call('DEL', key, key_of('answer', workspace, id))
  else
    guarded(redis.call, 'ZREM', key_of('ended', workspace, entry.state), id)
    redis.call('DEL', key, key_of('body', workspace, id), key_of('answer', workspace, id))
  end
end

local gone, is_gone, retired = {}, {}, 0
for workspace, id, text in each(3, take(1)) do
  local _, entry = guarded(going, workspace, id, text)
  local key = workspace .. ' ' .. id
  if entry and not is_gone[key] then
    is_gone[key] = true
    gone[#gone + 1] = { workspace, id, entry }
    forget_of_message(workspace, entry.message, id)
  end
end
guarded(write_messages)
for i = 1, #gone do
  if guarded(retire, unpack(gone[i])) then retired = retired + 1 end
end
write_tables()
for note in each(1) do redis.call('XDEL', key_of('ended'), note) end
return { 'retired', now, retired, problem }
