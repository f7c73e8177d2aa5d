-- What leads to a message: lists by what its platform looks messages up by, and its campaign's.

local CHANNEL, CUSTOMER_ID = 3, 9 -- where they stand in what was told
-- How long a message is kept after its last change, and what leads to it: its last change may come so much
-- later.
local KEPT_MS, LISTED_MS
local function keep_messages(kept_ms)
  KEPT_MS, LISTED_MS = kept_ms, int(kept_ms + 2 * DAY)
end

-- The step with which a message first told an id on a channel.
local function step_that_told(steps, channel, customer_id)
  return find_step(steps, function(_, told_at, length)
    if length == 0 then return false end
    local readable, told = pcall(cmsgpack.unpack, string.sub(steps, told_at, told_at + length - 1))
    if not readable or type(told) ~= 'table' then return false end
    return told[CHANNEL] == channel and told[CUSTOMER_ID] == customer_id
  end)
end

-- A zset of messages by when they were sent, without those that are long gone; some at a time.
local function list_by_time(key, message, sent)
  redis.call('ZADD', key, 'NX', sent, message)
  local gone = redis.call('ZRANGEBYSCORE', key, '-inf', now - LISTED_MS, 'LIMIT', 0, 100)
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
  redis.call('PEXPIRE', key, LISTED_MS)
end

-- `steps` are those that were kept of the message before; nil: it is new.
local LIST = {
  phone = function(workspace, number, message, sent)
    list_by_time(key_of('status-phone', workspace, number), message, sent)
  end,
  reference = function(workspace, digest, message, sent)
    list_by_time(key_of('status-reference', workspace, digest), message, sent)
  end,
  customer = function(workspace, which, message, _, steps) -- of the message that told it first last
    local key = key_of('status-customer', workspace, which)
    local place = step_that_told(steps or '', string.match(which, '^([^:]*):(.*)$'))
    if not place then
      redis.call('SET', key, message, 'PX', LISTED_MS)
    elseif place > 1 then -- earlier versions did not always list what a later status told
      redis.call('SET', key, message, 'PX', LISTED_MS, 'NX')
    end
  end,
  time = function(workspace, slot, message, _, steps)
    if steps then return end
    redis.call('RPUSH', key_of('status-time', workspace, slot), message)
    redis.call('PEXPIRE', key_of('status-time', workspace, slot), KEPT_MS)
  end,
}

-- `before` is the status that the campaign has counted the message by, if it has.
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
