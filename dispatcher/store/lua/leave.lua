-- leave: takes back the sign of life of a worker that ends.
-- KEYS[1] prefix
-- ARGV[1] now, ms since 1970 ('' = Redis TIME)
-- ARGV[2] worker's name
-- returns {'left', now}
-- Works when Redis is full.
-- include keys
-- include clock
redis.call('DEL', key_of('worker', ARGV[2]))
redis.call('ZREM', key_of('workers'), ARGV[2])
return { 'left', now }
