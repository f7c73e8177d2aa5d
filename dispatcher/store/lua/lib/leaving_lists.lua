-- How a message leaves the lists that lead to it (lib/message_lists.lua), but for its campaign's: one
-- function for each kind. `times`: how often it may be in a list that can have it several times; 0: no limit.
local function leave_phone(workspace, message, number)
  redis.call('ZREM', key_of('status-phone', workspace, number), message)
end
local function leave_reference(workspace, message, digest)
  redis.call('ZREM', key_of('status-reference', workspace, digest), message)
end
local function leave_customer(workspace, message, which)
  local key = key_of('status-customer', workspace, which)
  if redis.call('GET', key) == message then redis.call('DEL', key) end
end
local function leave_time(workspace, message, slot, times)
  redis.call('LREM', key_of('status-time', workspace, slot), times, message)
end
local LEAVE_LIST = {
  phone = leave_phone, reference = leave_reference, customer = leave_customer, time = leave_time,
}
