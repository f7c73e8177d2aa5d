-- reject: takes entries that cannot be used off the queue and keeps them in `rejected`.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   token: of the intake lease
--   for each entry: queue_entry reason detail workspace id
--     workspace, id: '' where unknown
-- returns {'rejected', now, entries that stay on the queue because they could not be kept, why}, or
--   {'not_leader', now}
-- Refused when Redis is full (the first write is an XADD).
-- include prologue
-- include guard
-- include counts
-- include queue
local token = take(1)
if redis.call('GET', key_of('intake')) ~= token then return { 'not_leader', now } end
local left = {}
for queue_entry, reason, detail, workspace, id in each(5) do
  if guarded(keep_rejected, queue_entry, reason, detail, workspace, id) then
    leave_queue({ queue_entry })
  else
    left[#left + 1] = queue_entry
  end
end
write_counts()
return { 'rejected', now, table.concat(left, ' '), problem }
