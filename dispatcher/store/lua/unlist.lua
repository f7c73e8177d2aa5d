-- unlist: takes messages out of the message store: out of the lists that lead to them, then their records.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   workspace
--   for each place: message kind which
--     kind: phone|reference|customer|time, with the list's name in `which` (lib/message_lists.lua); or record
--     or campaign, of what only the archive has: `which` is the letter of its status, then its campaign
-- returns {'unlisted', now, number of records}
-- The record of a message comes last: where this breaks off, it still tells the lists that are left.
-- Works when Redis is full.
-- include prologue
-- include guard
-- include message_steps
-- include leaving_lists
redis.call('DEL', PREFIX .. 'never')
local workspace = take(1)
local records = 0

-- Takes a message out of the counts of its campaign, once, however often this is run.
local function leave_campaign(message, campaign, status)
  local recipients = key_of('status-recipients', workspace, campaign)
  if redis.call('LREM', recipients, 0, message) == 0 then return end
  redis.call('HINCRBY', key_of('status-campaign', workspace, campaign), status, -1)
  if redis.call('EXISTS', recipients) == 0 then
    redis.call('DEL', key_of('status-campaign', workspace, campaign))
  end
end

local function leave_record(message)
  local key = key_of('status', workspace, message)
  guarded(redis.call, 'ZREM', key_of('status-due'), workspace .. ' ' .. message)
  local text = redis.call('GET', key)
  if not text then return end
  local status, _, _, campaign = read_kept(text)
  if status and campaign ~= '' then guarded(leave_campaign, message, campaign, status) end
  records = records + redis.call('DEL', key)
end

for message, kind, which in each(3) do
  if kind == 'record' then
    guarded(leave_record, message)
  elseif kind == 'campaign' then
    guarded(leave_campaign, message, string.sub(which, 2), string.sub(which, 1, 1))
  else
    guarded(LEAVE_LIST[kind], workspace, message, which, '0')
  end
end
return { 'unlisted', now, records }
