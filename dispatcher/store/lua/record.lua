-- Keeps what status changes say about their messages, for those who ask: what accept does last, and nothing that callbacks
-- need. What breaks it costs that one record.
-- What is kept of a message: its status, when it was sent (13 digits), where in this what was told last begins (6 digits),
-- how long its campaign is (4 digits), its campaign, and then for each status: step, and what was told with it, or two
-- zero bytes where that was what was told before. dispatcher/store/message_record.py makes steps and tellings, and reads this.

-- What may follow what, by the letters of dispatcher/model.py. `u`, UNKNOWN, stands only where nothing else is known; the first
-- final status stays, but for `r`, READ, after `d`, DELIVERED.
local RANK = { u = -1, c = 0, q = 10, p = 20, m = 30, s = 40, b = 40, d = 100, f = 100, n = 100, e = 100, j = 100, r = 110 }
local HEAD, MAX_LENGTH = 24, 16384 -- `s` and `b`, SENT and BUFFERED, may take turns for ever, but for this
local STEP = 9 -- a letter, and when (ms); behind it two bytes: the length of what was told
local CHANNEL, CUSTOMER_ID = 3, 9 -- where they stand in what was told
local KEPT, LIFE -- after a message's last change; of what leads to a message: its last change may come so much later

-- The place of the first of a message's steps that `is_it` accepts: given its place, that of what was told with it, and the
-- length of that. Nothing is looked for in the bytes as they are: a customer's text could hold any of them.
local function find_step(steps, is_it)
  local at = 1
  while at + STEP < #steps do
    local high, low = string.byte(steps, at + STEP, at + STEP + 1)
    local told_at, length = at + STEP + 2, high * 256 + low
    if is_it(at, told_at, length) then return at end
    at = told_at + length
  end
end

local function may_follow(before, status, step, steps)
  if RANK[before] >= 100 then return before == 'd' and status == 'r' end
  if RANK[status] ~= RANK[before] then return RANK[status] > RANK[before] end
  if status == before or #steps >= MAX_LENGTH then return false end
  return not find_step(steps, function(at) return string.sub(steps, at, at + STEP - 1) == step end)
end

-- The step with which a message first told an id on a channel.
local function step_that_told(steps, channel, id)
  return find_step(steps, function(_, told_at, length)
    if length == 0 then return false end
    local readable, told = pcall(cmsgpack.unpack, string.sub(steps, told_at, told_at + length - 1))
    return readable and type(told) == 'table' and told[CHANNEL] == channel and told[CUSTOMER_ID] == id
  end)
end

-- Finals, for success rates and the average time to the handset, where somebody said when it was sent.
local function count_final(workspace, before, status, took)
  if before == 'd' or RANK[status] < 100 then return end
  if status == 'd' or status == 'r' then
    count_in('hour', workspace .. ' messagesDelivered', 1)
    if before or took > 0 then
      count_in('hour', workspace .. ' messagesTimed', 1)
      count_in('hour', workspace .. ' messagesTimedMs', math.max(took, 0))
    end
  else
    count_in('hour', workspace .. ' messagesFailed', 1)
  end
end

-- A zset of messages by when they were sent, without those that are long gone; some at a time.
local function list_by_time(key, uuid, sent)
  redis.call('ZADD', key, 'NX', sent, uuid)
  local gone = redis.call('ZRANGEBYSCORE', key, '-inf', now - LIFE, 'LIMIT', 0, 100)
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
  redis.call('PEXPIRE', key, LIFE)
end

-- What leads to a message. `before` are the steps that were kept of it; nil: it is new.
local LIST = {
  phone = function(workspace, number, uuid, sent) list_by_time(key_of('status-phone', workspace, number), uuid, sent) end,
  reference = function(workspace, digest, uuid, sent) list_by_time(key_of('status-reference', workspace, digest), uuid, sent) end,
  customer = function(workspace, which, uuid, _, before) -- of the message that told it first last
    local told_at = step_that_told(before or '', string.match(which, '^([^:]*):(.*)$'))
    if not told_at then
      redis.call('SET', key_of('status-customer', workspace, which), uuid, 'PX', LIFE)
    elseif told_at > 1 then -- earlier versions did not always list what a later status told
      redis.call('SET', key_of('status-customer', workspace, which), uuid, 'PX', LIFE, 'NX')
    end
  end,
  time = function(workspace, slot, uuid, _, before)
    if before then return end
    redis.call('RPUSH', key_of('status-time', workspace, slot), uuid)
    redis.call('PEXPIRE', key_of('status-time', workspace, slot), KEPT)
  end,
}

-- `before` is the status that the campaign has counted the message by, if it has.
local function count_in_campaign(workspace, campaign, uuid, sent, before, status)
  if campaign == '' then return end
  local key, recipients = key_of('status-campaign', workspace, campaign), key_of('status-recipients', workspace, campaign)
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

local function head(status, sent, told_at, campaign)
  return status .. string.format('%013d%06d%04d', sent, told_at, #campaign) .. campaign
end

local NOTHING = {}
local function record(workspace, uuid, status, at, sent, step, told, by, campaign)
  local key = key_of('status', workspace, uuid)
  local kept, before, known = redis.call('GET', key), nil, ''
  local readable = kept and RANK[string.sub(kept, 1, 1)] and tonumber(string.sub(kept, 2, 24))
  local told_at, steps = readable and tonumber(string.sub(kept, 15, 20)), ''
  if not told_at then
    kept, told_at = nil, HEAD + #campaign + #step + 1
  else
    before, sent = string.sub(kept, 1, 1), tonumber(string.sub(kept, 2, 14))
    local length = tonumber(string.sub(kept, 21, 24))
    known, steps = string.sub(kept, HEAD + 1, HEAD + length), string.sub(kept, HEAD + length + 1)
    if not may_follow(before, status, step, steps) then return 'late' end
    if known ~= '' then campaign = known end
    if string.sub(kept, told_at, told_at + #told - 1) == told then
      told, by, told_at = '\0\0', NOTHING, told_at + #campaign - length
    else
      told_at = HEAD + #campaign + #steps + #step + 1
    end
  end
  redis.call('SET', key, head(status, sent, told_at, campaign) .. steps .. step .. told, 'PX', KEPT)
  for what, which in pairs(by) do LIST[what](workspace, which, uuid, sent, kept and steps) end
  count_in_campaign(workspace, campaign, uuid, sent, known ~= '' and before or nil, status)
  count_final(workspace, before, status, at - sent)
  return 'recorded'
end

-- From ARGV[at] on: retention after a message's last change (ms), and then for each status change: which callback of this
-- batch it causes (0: none), workspace, message, status (its letter), when it happened (ms), when the message was sent
-- (ms), step, told, and how many things the message is looked up by; then for each of them:
--   phone|reference|customer|time|campaign and which
-- Returns a word for each, between blanks: recorded|late|conflict|again|failed; and why the last one failed ('': none did)
--   late: the message has that status or a later one, nothing was changed; conflict: as its callback (`words`);
--   again: its callback was not taken in, it comes again
local NOT_RECORDED = { conflict = 'conflict', changed = 'again', broken = 'again' }
local function record_all(at, words)
  local recorded, problem, i, last = {}, '', at + 1, #ARGV
  KEPT = ARGV[at]
  LIFE = KEPT and int(KEPT + 2 * DAY)
  while i <= last do
    local callback, workspace, uuid, status, happened, sent, step, told, looked_up_by = unpack(ARGV, i, i + 8)
    local by = looked_up_by == '0' and NOTHING or {}
    for n = i + 9, i + 7 + 2 * looked_up_by, 2 do by[ARGV[n]] = ARGV[n + 1] end
    i = i + 9 + 2 * looked_up_by
    local campaign = by.campaign or ''
    by.campaign = nil
    local word = NOT_RECORDED[words[tonumber(callback)]]
    if not word then
      local worked, found = pcall(record, workspace, uuid, status, tonumber(happened), tonumber(sent), step, told, by, campaign)
      word = worked and found or 'failed'
      if not worked then problem = tostring(type(found) == 'table' and found.err or found) end
    end
    recorded[#recorded + 1] = word
  end
  return table.concat(recorded, ' '), problem
end
