-- A message's record as text: its status, when it was sent (13 digits), where in this text the last details
-- (`told`) begin (6 digits), the length of its campaign (4 digits), its campaign, and then for each status:
-- step, and details, or two zero bytes if these are the ones before.
-- dispatcher/store/message_record.py makes steps and details, and reads this.

-- Which status may follow which: one of a higher rank, by the letters of dispatcher/model.py. `u`, UNKNOWN,
-- gives way to any other; the first final status stays, except that `r`, READ, may follow `d`, DELIVERED.
local RANK = {
  u = -1, c = 0, q = 10, p = 20, m = 30, s = 40, b = 40, d = 100, f = 100, n = 100, e = 100, j = 100, r = 110,
}
local HEAD, MAX_LENGTH = 24, 16384 -- else `s` and `b`, SENT and BUFFERED, could alternate forever
local STEP = 9 -- a letter, and when (ms); two bytes follow: the length of the details

-- The place of the first of a message's steps that `is_it` accepts; it gets the step's place, and place and
-- length of its details. Walks the steps instead of searching the bytes, because a customer's text could
-- hold any bytes.
local function find_step(steps, is_it)
  local place = 1
  while place + STEP < #steps do
    local high, low = string.byte(steps, place + STEP, place + STEP + 1)
    local told_at, length = place + STEP + 2, high * 256 + low
    if is_it(place, told_at, length) then return place end
    place = told_at + length
  end
end

local function may_follow(before, status, step, steps)
  if RANK[before] >= 100 then return before == 'd' and status == 'r' end
  if RANK[status] ~= RANK[before] then return RANK[status] > RANK[before] end
  if status == before or #steps >= MAX_LENGTH then return false end
  return not find_step(steps, function(place) return string.sub(steps, place, place + STEP - 1) == step end)
end

-- Parses a message's record: status, when it was sent, where the last details begin, campaign, steps; returns
-- nothing for text that we did not write.
local function read_kept(text)
  local is_ours = RANK[string.sub(text, 1, 1)] and tonumber(string.sub(text, 2, HEAD))
  local told_at = is_ours and tonumber(string.sub(text, 15, 20))
  if not told_at then return end
  local length = tonumber(string.sub(text, 21, HEAD))
  return string.sub(text, 1, 1), tonumber(string.sub(text, 2, 14)), told_at,
    string.sub(text, HEAD + 1, HEAD + length), string.sub(text, HEAD + length + 1)
end
