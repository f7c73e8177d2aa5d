-- record: keeps what status changes say about their messages, for those who ask.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] retention after a message's last change, ms
-- then for each status change: workspace eventId digest message status, when it happened (ms), when the message was sent
--   (ms), what the change says (msgpack, see status_api/record.py), and what the message is looked up by ('' = it is not):
--   phone number, reference, customerMessageId, channel and time, campaign
-- returns {'recorded', now, {recorded|late|conflict, ...}}
--   late: the message has that status or a later one, nothing was changed; conflict: the ledger has another status change
--   of that eventId (its digest is another one; '' = the ledger does not take it)
-- Changes nothing that callbacks need. Refused when Redis is full.
-- include keys
-- include clock
-- include counts

-- What may follow what. UNKNOWN stands only where nothing else is known; the first final status stays, but for READ.
local RANK = { UNKNOWN = -1, SCHEDULED = 0, QUEUED = 10, PROCESSING = 20, SUBMITTED = 30, SENT = 40, BUFFERED = 40,
  DELIVERED = 100, FAILED = 100, UNDELIVERABLE = 100, EXPIRED = 100, REJECTED = 100, READ = 110 }
local READ_ON = { RCS = true, WHATSAPP = true }
local STATUS, STEPS, SENT_AT, CHANNEL, CAMPAIGN, CUSTOMER, REFERENCE = 1, 2, 3, 6, 12, 13, 18 -- fields of what is kept
local MAX_STEPS = 64 -- SENT and BUFFERED may take turns for ever
local LIFE = string.format('%d', ARGV[2] + 2 * DAY) -- of what leads to a message: its last change may come so much later

local function may_follow(before, status, channel)
  if status == 'READ' and not READ_ON[channel] then return false end
  if not before then return true end
  if RANK[before] >= 100 then return before == 'DELIVERED' and status == 'READ' end
  return RANK[status] > RANK[before] or (RANK[status] == RANK[before] and status ~= before)
end

-- Finals, for success rates and the average time to the handset.
local function count_final(workspace, before, status, took)
  if before == 'DELIVERED' or RANK[status] < 100 then return end
  if status == 'DELIVERED' or status == 'READ' then
    count_in('hour', workspace .. ' messagesDelivered', 1)
    count_in('hour', workspace .. ' messagesDeliveredMs', math.max(took, 0))
  else
    count_in('hour', workspace .. ' messagesFailed', 1)
  end
end

-- A zset of messages by when they were sent, without those that are long gone.
local function list_by_time(key, uuid, sent)
  redis.call('ZADD', key, sent, uuid)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - LIFE)
  redis.call('PEXPIRE', key, LIFE)
end

local function list_reference(workspace, reference, uuid, sent)
  if reference ~= '' then list_by_time(reference_key(workspace, reference), uuid, sent) end
end

local function list_customer(workspace, customer, uuid)
  if customer ~= '' then redis.call('SET', customer_key(workspace, customer), uuid, 'PX', LIFE) end
end

-- `before` is the status that the campaign has counted the message by, if it has.
local function count_in_campaign(workspace, campaign, uuid, sent, before, status)
  if campaign == '' then return end
  local key, recipients = campaign_key(workspace, campaign), recipients_key(workspace, campaign)
  redis.call('HINCRBY', key, status, 1)
  if before then
    redis.call('HINCRBY', key, before, -1)
  else
    redis.call('HSETNX', key, 'started', sent)
    redis.call('RPUSH', recipients, uuid)
  end
  redis.call('PEXPIRE', key, LIFE)
  redis.call('PEXPIRE', recipients, LIFE)
end

local function read(key)
  local raw = redis.call('GET', key)
  local readable, kept = pcall(cmsgpack.unpack, raw or '')
  return raw and readable and type(kept) == 'table' and kept
end

-- Puts into `kept` what `said` says.
local function merge(kept, said)
  local steps = kept[STEPS]
  if #steps >= MAX_STEPS then
    table.remove(steps)
    table.remove(steps)
  end
  steps[#steps + 1], steps[#steps + 2] = said[STEPS][1], said[STEPS][2]
  kept[STATUS] = said[STATUS]
  for field = SENT_AT + 1, #said do
    if said[field] ~= '' then kept[field] = said[field] end
  end
end

local function begin(workspace, uuid, status, at, sent, packed, phone, reference, customer, slot, campaign)
  if not may_follow(nil, status, status == 'READ' and cmsgpack.unpack(packed)[CHANNEL]) then return 'late' end
  redis.call('SET', status_key(workspace, uuid), packed, 'PX', ARGV[2])
  if phone ~= '' then list_by_time(phone_key(workspace, phone), uuid, sent) end
  if slot ~= '' then
    redis.call('RPUSH', time_key(workspace, slot), uuid)
    redis.call('PEXPIRE', time_key(workspace, slot), ARGV[2])
  end
  list_reference(workspace, reference, uuid, sent)
  list_customer(workspace, customer, uuid)
  count_in_campaign(workspace, campaign, uuid, sent, nil, status)
  count_final(workspace, nil, status, at - sent)
  return 'recorded'
end

local function go_on(kept, workspace, uuid, status, at, packed, reference, customer, campaign)
  local said = cmsgpack.unpack(packed)
  local before, sent, known = kept[STATUS], kept[SENT_AT], kept[CAMPAIGN]
  if not may_follow(before, status, said[CHANNEL]) then return 'late' end
  list_reference(workspace, kept[REFERENCE] == '' and reference or '', uuid, sent)
  list_customer(workspace, kept[CUSTOMER] == '' and customer or '', uuid)
  count_in_campaign(workspace, known ~= '' and known or campaign, uuid, sent, known ~= '' and before, status)
  merge(kept, said)
  kept[CAMPAIGN] = known ~= '' and known or campaign
  redis.call('SET', status_key(workspace, uuid), cmsgpack.pack(kept), 'PX', ARGV[2])
  count_final(workspace, before, status, at - sent)
  return 'recorded'
end

-- Whether the ledger, or this batch, has another status change of this eventId.
local digests = {}
local function is_conflict(workspace, id, digest)
  if digest == '' then return false end
  local key = event_key(workspace, id)
  digests[key] = digests[key] or redis.call('HGET', key, 'digest') or digest
  return digests[key] ~= digest
end

local words = {}
for i = 3, #ARGV, 13 do
  local workspace, id, digest, uuid, status, at, sent, packed, phone, reference, customer, slot, campaign = unpack(ARGV, i, i + 12)
  if is_conflict(workspace, id, digest) then
    words[#words + 1] = 'conflict'
  else
    local kept = read(status_key(workspace, uuid))
    words[#words + 1] = kept and go_on(kept, workspace, uuid, status, tonumber(at), packed, reference, customer, campaign)
      or not kept and begin(workspace, uuid, status, tonumber(at), tonumber(sent), packed, phone, reference, customer, slot, campaign)
  end
end
write_counts()
return { 'recorded', now, words }
