-- Adds fingerprints to the newest table, and begins another one where that is full or old.

local FEWEST_BUCKETS, OF_EACH, MOST_OF_EACH = 64, 192, 256 -- fingerprints of a bucket: expected, and at most
local LIFE_MS = math.max(math.floor(RETENTION_MS / 4), 1)
local table_now
local keep_fingerprint, write_tables
do -- the rest is private to this file
  -- Begins a table, with as many buckets as the one before would have needed for all of its time; after one
  -- that is full, with twice to eight times as many.
  local function begin_table(before)
    local buckets, number = FEWEST_BUCKETS, 1
    if before then
      local expected = before.count * LIFE_MS / math.max(now - before.began, LIFE_MS / 10) / OF_EACH
      local is_full = before.count >= before.buckets * MOST_OF_EACH
      local fewest = is_full and before.buckets * 2 or FEWEST_BUCKETS
      local most = math.min(expected, before.buckets * 8)
      number, buckets = before.number + 1, math.ceil(math.max(most, fewest))
    end
    local kept_until = now + LIFE_MS + RETENTION_MS
    return { number = int(number), buckets = buckets, count = 0, began = now, ends = kept_until }
  end

  local function choose_table()
    table_now = tables_of_fingerprints()[1]
    if not table_now or now - table_now.began >= LIFE_MS or now < table_now.began
      or table_now.ends < now + RETENTION_MS or table_now.count >= table_now.buckets * MOST_OF_EACH then
      table_now = begin_table(table_now)
    end
  end

  local function write_table()
    local text = int(table_now.buckets) .. ' ' .. int(table_now.count) .. ' ' .. int(table_now.began)
      .. ' ' .. int(table_now.ends)
    redis.call('HSET', key_of('fingerprints'), table_now.number, text)
    redis.call('PEXPIREAT', key_of('fingerprints'), int(table_now.ends))
  end

  -- `id`: an eventId, or what `id_of_message` returns.
  function keep_fingerprint(workspace, id)
    if not table_now then choose_table() end
    if table_now.count == 0 then write_table() end -- before anything leaves Redis for it
    local spread, fingerprint = fingerprint_of(workspace, id)
    local bucket = bucket_key(table_now, spread)
    table_now.count = table_now.count + redis.call('SADD', bucket, int(fingerprint))
    redis.call('PEXPIREAT', bucket, int(table_now.ends)) -- it may be of a table that had this number before
  end

  -- Call at the end: writes how many fingerprints there are, and forgets the tables whose time is over.
  function write_tables()
    if not table_now then choose_table() end
    if table_now.count > 0 then write_table() end
    local is_live, tables = { [table_now.number] = true }, tables_of_fingerprints()
    for i = 1, #tables do is_live[tables[i].number] = true end
    for _, number in ipairs(redis.call('HKEYS', key_of('fingerprints'))) do
      if not is_live[number] then redis.call('HDEL', key_of('fingerprints'), number) end
    end
  end
end
