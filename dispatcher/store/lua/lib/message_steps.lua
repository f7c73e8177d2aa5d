-- What is kept of a message, as text: its status, when it was sent (13 digits), where in this what was told
-- last begins (6 digits), how long its campaign is (4 digits), its campaign, and then for each status: step,
-- and what was told with it, or two zero bytes where that was what was told before.
-- dispatcher/store/message_record.py makes steps and what was told, and reads this.

-- What may follow what, by the letters of dispatcher/model.py. `u`, UNKNOWN, stands only where nothing else
-- is known; the first final status stays, but for `r`, READ, after `d`, DELIVERED.
local RANK = {
  u = -1, c = 0, q = 10, p = 20, m = 30, s = 40, b = 40, d = 100, f = 100, n = 100, e = 100, j = 100, r = 110,
}
local HEAD, MAX_LENGTH = 24, 16384 -- `s` and `b`, SENT and BUFFERED, may take turns for ever, but for this
local STEP = 9 -- a letter, and when (ms); behind it two bytes: the length of what was told

-- The place of the first of a message's steps that `is_it` accepts: given its place, that of what was told
-- with it, and the length of that. Nothing is looked for in the bytes as they are: a customer's text could
-- hold any of them.
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

-- What is kept of a message, taken apart: status, when it was sent, where what was told last begins,
-- campaign, steps; nothing where it is not what we write.
local function read_kept(text)
  local is_ours = RANK[string.sub(text, 1, 1)] and tonumber(string.sub(text, 2, HEAD))
  local told_at = is_ours and tonumber(string.sub(text, 15, 20))
  if not told_at then return end
  local length = tonumber(string.sub(text, 21, HEAD))
  return string.sub(text, 1, 1), tonumber(string.sub(text, 2, 14)), told_at,
    string.sub(text, HEAD + 1, HEAD + length), string.sub(text, HEAD + length + 1)
end
