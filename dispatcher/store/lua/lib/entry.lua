-- An entry of the ledger as text, which takes half the memory of a hash. The first line has these words:
--   digest type status accepted state claims endpoint message life ended
--     status: its letter (dispatcher/model.py); accepted: ms since 1970
--     state: `d` for delivered, as most of the kept entries are
--     claims: how often it was leased, the fencing token
--     endpoint: its id
--     life, ended: ms from accepted to its expiry, and to its end (`-`: it has not ended)
-- followed by rare fields as `name=value` (`extra`):
--     stamp: its timestamp (ns), if the order is `latest`; strict: the order is `strict`
--     left: it left its chain; suspect: its worker died twice; cancelled: the operator ended it
--     base: how many attempts it had before it was replayed
--     replay_of, replayed_as: eventIds of its original, and of its last copy
--     to: the other subscriptions that its status change went to, separated by commas
-- A status change that the default subscription does not want has an entry too: its state is `fanned_out`,
-- its endpoint `-`. One that was erased (erase.lua) has the digest `-`, the message `-`, and no attempts.
-- Then comes a line for each attempt: start (ms after accepted), and the rest of its record.
-- dispatcher/store/entry.py reads all this. In the scripts `entry` is a table of these fields; its `about`
-- holds the first four words, and its `accepted` is a number.
local SHORT = { delivered = 'd', d = 'delivered' }

local function digest_of(text) return string.match(text, '^%S+') end

-- The entry in a text; an entry that no script of ours wrote counts as removed (nil).
local function parse_entry(text)
  local WORDS = '^(%S+ %S+ %l (%d+)) (%S+) (%d+) (%S+) (%S+) (-?%d+) (%S+)([^\n]*)(.*)$'
  local about, accepted, state, claims, endpoint_id, message, life, ended, rest, attempts =
    string.match(text, WORDS)
  if not about then return end
  local extra = {}
  if rest ~= '' then
    for name, value in string.gmatch(rest, '([%l_]+)=(%S+)') do extra[name] = value end
    if extra.base and not string.find(extra.base, '^%d+$') then return end
  end
  return {
    about = about, accepted = accepted + 0, state = SHORT[state] or state, claims = claims,
    endpoint = endpoint_id, message = message, life = life, ended = ended ~= '-' and ended, extra = extra,
    attempts = attempts,
  }
end

-- MGET gives nil for a key of another type, too.
local function read_entry(workspace, id)
  local text = redis.call('MGET', key_of('event', workspace, id))[1]
  return text and parse_entry(text)
end

local function text_of(entry)
  local rest = ''
  for name, value in pairs(entry.extra) do rest = rest .. ' ' .. name .. '=' .. value end
  return entry.about .. ' ' .. (SHORT[entry.state] or entry.state) .. ' ' .. entry.claims
    .. ' ' .. entry.endpoint .. ' ' .. entry.message .. ' ' .. entry.life .. ' ' .. (entry.ended or '-')
    .. rest .. entry.attempts
end

-- `keep_ms`: how long it is kept; nil: without a TTL.
local function write_entry(workspace, id, entry, keep_ms)
  local key = entry.key or key_of('event', workspace, id)
  if keep_ms then
    redis.call('SET', key, text_of(entry), 'PX', keep_ms)
  else
    redis.call('SET', key, text_of(entry))
  end
end

local function expires_of(entry) return entry.accepted + entry.life end

-- Whether it expires when it did as it was chosen (0: whenever); else it has ended since, and was replayed.
local function is_as_chosen(entry, expires)
  return expires == '0' or expires_of(entry) == tonumber(expires)
end
local function count_attempts(entry)
  return entry.attempts == '' and 0 or select(2, string.gsub(entry.attempts, '\n', ''))
end
