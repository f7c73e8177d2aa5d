-- Lists that lead to a message: one for each lookup key of its platform, and its campaign's.

local CHANNEL, CUSTOMER_ID = 3, 9 -- their places in the details
-- How long a message is kept after its last change, and how long the lists are: longer, because its last
-- change may come later.
local KEPT_MS, LISTED_MS
local function keep_messages(for_ms)
  KEPT_MS, LISTED_MS = for_ms, int(for_ms + 2 * DAY)
end

-- The first of a message's steps that gave this id on this channel.
local function step_that_told(steps, channel, customer_id)
  return find_step(steps, function(_, told_at, length)
    if length == 0 then return false end
    local readable, told = pcall(cmsgpack.unpack, string.sub(steps, told_at, told_at + length - 1))
    if not readable or type(told) ~= 'table' then return false end
    return told[CHANNEL] == channel and told[CUSTOMER_ID] == customer_id
  end)
end

-- Adds a message to a zset by when it was sent; removes some of those that are long gone.
local function list_by_time(key, message, sent)
  redis.call('ZADD', key, 'NX', sent, message)
  local gone = redis.call('ZRANGEBYSCORE', key, '-inf', now - LISTED_MS, 'LIMIT', 0, 100)
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
  redis.call('PEXPIRE', key, LISTED_MS)
end

-- One function for each lookup key. `steps` are the earlier ones of the message; nil: it is new.
local function list_phone(workspace, number, message, sent)
  list_by_time(key_of('status-phone', workspace, number), message, sent)
end
local function list_reference(workspace, digest, message, sent)
  list_by_time(key_of('status-reference', workspace, digest), message, sent)
end
local function list_customer(workspace, which, message, _, steps) -- of the message that got it last
  local key = key_of('status-customer', workspace, which)
  local place = step_that_told(steps or '', string.match(which, '^([^:]*):(.*)$'))
  if not place then
    redis.call('SET', key, message, 'PX', LISTED_MS)
  elseif place > 1 then -- earlier versions did not always list what a later status told
    redis.call('SET', key, message, 'PX', LISTED_MS, 'NX')
  end
end
local function list_time(workspace, slot, message, _, steps)
  if steps then return end
  redis.call('RPUSH', key_of('status-time', workspace, slot), message)
  redis.call('PEXPIRE', key_of('status-time', workspace, slot), LISTED_MS)
end
local LIST = { phone = list_phone, reference = list_reference, customer = list_customer, time = list_time }

-- `before` is the status by which the campaign counts the message so far; nil: it does not yet.
local function count_in_campaign(workspace, campaign, message, sent, before, status)
  if campaign == '' then return end
  local key = key_of('status-campaign', workspace, campaign)
  local recipients = key_of('status-recipients', workspace, campaign)
  redis.call('HINCRBY', key, status, 1)
  if before then
    redis.call('HINCRBY', key, before, -1)
  else
    redis.call('HSETNX', key, 'started', sent)
    redis.call('RPUSH', recipients, message)
  end
  redis.call('PEXPIRE', key, LISTED_MS)
  redis.call('PEXPIRE', recipients, LISTED_MS)
end
