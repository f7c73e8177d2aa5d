-- Whether the installation has an archive: script_text.py makes this true there.
local ARCHIVES = false
