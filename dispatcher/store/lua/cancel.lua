-- cancel: ends waiting callbacks of one endpoint as failed. Leased ones are left alone.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   endpoint_id
--   for each callback: id expires
--     expires: when it expired as it was chosen (ms since 1970): one that was replayed since is left alone.
--       0: whenever it expires
-- returns {'cancelled', now, number of callbacks, ends (lib/ending.lua) ...}
-- Works when Redis is full.
-- include prologue
-- include guard
-- include counts
-- include endpoint
-- include schedule
-- include entry
-- include chain
-- include archives
-- include ending
redis.call('DEL', PREFIX .. 'never')
local endpoint_id = take(1)
local workspace, cancelled = load_endpoint(endpoint_id).workspace, 0
for id, expires in each(2) do
  local entry = read_entry(workspace or '', id)
  entry = entry and is_as_chosen(entry, expires) and entry
  local waits = entry and entry.endpoint == endpoint_id and not entry.ended
    and not redis.call('ZSCORE', key_of('leased', endpoint_id), id)
  local is_begun = entry and entry.ended and entry.extra.cancelled -- by a run that broke off
    and redis.call('ZSCORE', key_of('expiries'), workspace .. ':' .. id)
  if waits or is_begun then
    entry.extra.cancelled = '1'
    redis.call('ZREM', key_of('lane', endpoint_id), id)
    finish(workspace, id, entry, 'failed', nil, nil, 'cancelled')
    cancelled = cancelled + 1
  end
end
reschedule_after_ends(assess(load_endpoint(endpoint_id)))
return conclude({ 'cancelled', now, cancelled })
