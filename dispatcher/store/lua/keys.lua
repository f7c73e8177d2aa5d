-- Keys, as dispatcher/store/keys.py builds them (a test compares). KEYS[1] is the prefix with its colon. One function, for
-- each run of a script makes anew what is defined in it.
local P, GROUP = KEYS[1], 'workers'
local function key_of(kind, of, id)
  if id then return P .. kind .. ':' .. of .. ':' .. id end
  return of and P .. kind .. ':' .. of or P .. kind
end
