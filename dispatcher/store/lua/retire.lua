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
redis.call('DEL', PREFIX .. 'never')
local token, format = take(2)
local holders = redis.call('MGET', key_of('intake'), key_of('archiver'))
if holders[1] ~= token and holders[2] ~= token then return { 'not_leader', now } end
local stored = string.match(redis.call('GET', key_of('format')) or '', '^%d+') -- it may have grown since
if (tonumber(stored) or 0) < format + 0 then return { 'not_allowed', now } end

local FEWEST_BUCKETS, OF_EACH, MOST_OF_EACH = 64, 192, 256 -- fingerprints of a bucket: expected, and at most
local LIFE_MS = math.max(math.floor(RETENTION_MS / 4), 1)

-- Begins a table, with as many buckets as the one before would have needed for all of its time; after one
-- that is full, with twice to eight times as many.
local function begin_table(before)
  local buckets, number = FEWEST_BUCKETS, 1
  if before then
    local expected = before.count * LIFE_MS / math.max(now - before.began, LIFE_MS / 10) / OF_EACH
    local is_full = before.count >= before.buckets * MOST_OF_EACH
    local fewest = is_full and before.buckets * 2 or FEWEST_BUCKETS
    number, buckets = before.number + 1, math.ceil(math.max(math.min(expected, before.buckets * 8), fewest))
  end
  local kept_until = now + LIFE_MS + RETENTION_MS
  return { number = int(number), buckets = buckets, count = 0, began = now, ends = kept_until }
end

local tables, table_now = tables_of_fingerprints(), nil
table_now = tables[1]
if not table_now or now - table_now.began >= LIFE_MS or now < table_now.began
  or table_now.ends < now + RETENTION_MS or table_now.count >= table_now.buckets * MOST_OF_EACH then
  table_now = begin_table(table_now)
end

local function write_table()
  local text = int(table_now.buckets) .. ' ' .. int(table_now.count) .. ' ' .. int(table_now.began)
    .. ' ' .. int(table_now.ends)
  redis.call('HSET', key_of('fingerprints'), table_now.number, text)
  redis.call('PEXPIREAT', key_of('fingerprints'), int(table_now.ends))
end

local function keep_fingerprint(workspace, id)
  if table_now.count == 0 then write_table() end -- before anything leaves the ledger for it
  local spread, fingerprint = fingerprint_of(workspace, id)
  local bucket = bucket_key(table_now, spread)
  table_now.count = table_now.count + redis.call('SADD', bucket, int(fingerprint))
  redis.call('PEXPIREAT', bucket, int(table_now.ends)) -- it may be of a table that had this number before
end

-- The body of a delivered callback is not in the archive: it stays for as long as it was to stay.
local function retire(workspace, id, text)
  local key = key_of('event', workspace, id)
  if redis.call('MGET', key)[1] ~= text then return false end
  local entry = parse_entry(text)
  if not entry or not entry.ended then return false end
  -- Redis forgets it soon by itself, and knows it until then
  if now - entry.accepted - entry.ended > RETENTION_MS * 3 / 4 then return false end
  keep_fingerprint(workspace, id)
  guarded(forget_of_message, workspace, entry.message, id)
  if entry.state == 'delivered' then
    redis.call('DEL', key, key_of('answer', workspace, id))
  else
    guarded(redis.call, 'ZREM', key_of('ended', workspace, entry.state), id)
    redis.call('DEL', key, key_of('body', workspace, id), key_of('answer', workspace, id))
  end
  return true
end

local retired = 0
for workspace, id, text in each(3, take(1)) do
  local ok, done = guarded(retire, workspace, id, text)
  if ok and done then retired = retired + 1 end
end
if table_now.count > 0 then write_table() end
local is_live = { [table_now.number] = true }
for i = 1, #tables do is_live[tables[i].number] = true end
for _, number in ipairs(redis.call('HKEYS', key_of('fingerprints'))) do
  if not is_live[number] then redis.call('HDEL', key_of('fingerprints'), number) end
end
for note in each(1) do redis.call('XDEL', key_of('ended'), note) end
return { 'retired', now, retired, problem }
