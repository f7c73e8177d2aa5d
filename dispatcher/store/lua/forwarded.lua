-- forwarded: takes entries off the queue that are on another partition's now.
-- KEYS and the first of ARGV: lib/prologue.lua; then ARGV has
--   token: of the intake lease
--   for each entry: queue_entry
-- returns {'left', now} or {'not_leader', now}, with nothing done
-- Works when Redis is full: it only deletes.
-- include prologue
-- include guard
-- include counts
-- include queue
local token = take(1)
if redis.call('GET', key_of('intake')) ~= token then return { 'not_leader', now } end
local left = {}
for queue_entry in each(1) do left[#left + 1] = queue_entry end
leave_queue(left)
return { 'left', now }
