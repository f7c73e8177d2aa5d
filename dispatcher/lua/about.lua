-- What is `about` a callback in its entry: digest, type, status and when it was accepted (ms).
local function digest_of(about) return string.match(about, '^%S+') end
