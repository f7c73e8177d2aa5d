-- Fingerprints: what Redis keeps of a callback, or of a message that is over, that only the archive has.
-- A fingerprint is a number of 52 bits from the hash of workspace and id. They are in sets of numbers,
-- `fingerprint:table:bucket`, which take 8 bytes for each as long as a set has at most 512. Other bits of the
-- hash say which bucket of a table a fingerprint is in. A table takes what is retired within a quarter of the
-- retention, or until its buckets have 256 each on average. It is kept until all of it may be forgotten.
-- `fingerprints` has for each table, by number, `buckets count began ends`: how many buckets and fingerprints
-- it has, and the times (ms since 1970) when it began and until when it is kept.
-- dispatcher/store/fingerprints.py reads all this.

-- What stands for a message where an eventId is taken otherwise, which has no blank.
local function id_of_message(message) return ' ' .. message end

-- Two numbers: the first says which bucket, the second is the fingerprint.
local function fingerprint_of(workspace, id)
  local sum = redis.sha1hex(workspace .. ' ' .. id)
  return tonumber(string.sub(sum, 1, 8), 16), tonumber(string.sub(sum, 9, 21), 16)
end

local function bucket_key(one, spread) return key_of('fingerprint', one.number, int(spread % one.buckets)) end

-- The tables that are kept, the newest first.
local kept_tables = nil
local function tables_of_fingerprints()
  if kept_tables then return kept_tables end
  kept_tables = {}
  local found = redis.call('HGETALL', key_of('fingerprints'))
  for i = 1, #found, 2 do
    local buckets, number, began, kept_until = string.match(found[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
    if buckets and kept_until + 0 > now then
      kept_tables[#kept_tables + 1] = {
        number = found[i], buckets = buckets + 0, count = number + 0, began = began + 0,
        ends = kept_until + 0,
      }
    end
  end
  table.sort(kept_tables, function(a, b) return a.number + 0 > b.number + 0 end)
  return kept_tables
end

local function has_fingerprint(workspace, id)
  local tables = tables_of_fingerprints()
  if #tables == 0 then return false end
  local spread, fingerprint = fingerprint_of(workspace, id)
  local text = int(fingerprint)
  for i = 1, #tables do
    -- an error: overwritten by hand; the archive knows
    if redis.pcall('SISMEMBER', bucket_key(tables[i], spread), text) ~= 0 then return true end
  end
  return false
end
