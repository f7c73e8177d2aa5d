-- Keys, built as dispatcher/keys.py builds them (a test compares). KEYS[1] is the prefix with its colon.
local P = KEYS[1]
local EVENTS, REJECTED, REJECTED_COUNTS = P .. 'events', P .. 'rejected', P .. 'rejected-counts'
local EXPIRIES, SCHEDULE, INTAKE, FULL, TAIL = P .. 'expiries', P .. 'schedule', P .. 'intake', P .. 'full', P .. 'tail'
local WORKERS, ENDPOINTS, GROUP = P .. 'workers', P .. 'endpoints', 'workers'
local function event_key(workspace, id) return P .. 'event:' .. workspace .. ':' .. id end
local function body_key(workspace, id) return P .. 'body:' .. workspace .. ':' .. id end
local function answer_key(workspace, id) return P .. 'answer:' .. workspace .. ':' .. id end
local function message_key(workspace, uuid) return P .. 'message:' .. workspace .. ':' .. uuid end
local function lane_key(endpoint) return P .. 'lane:' .. endpoint end
local function leased_key(endpoint) return P .. 'leased:' .. endpoint end
local function chain_key(endpoint, uuid) return P .. 'chain:' .. endpoint .. ':' .. uuid end
local function newest_key(endpoint, uuid) return P .. 'newest:' .. endpoint .. ':' .. uuid end
local function endpoint_key(endpoint) return P .. 'endpoint:' .. endpoint end
local function workspace_key(workspace) return P .. 'workspace:' .. workspace end
local function worker_key(name) return P .. 'worker:' .. name end
local function stats_key(unit, number) return P .. 'stats:' .. unit .. ':' .. string.format('%d', number) end
local function status_key(workspace, uuid) return P .. 'status:' .. workspace .. ':' .. uuid end
local function phone_key(workspace, number) return P .. 'status-phone:' .. workspace .. ':' .. number end
local function reference_key(workspace, digest) return P .. 'status-reference:' .. workspace .. ':' .. digest end
local function customer_key(workspace, id) return P .. 'status-customer:' .. workspace .. ':' .. id end
local function time_key(workspace, slot) return P .. 'status-time:' .. workspace .. ':' .. slot end
local function campaign_key(workspace, id) return P .. 'status-campaign:' .. workspace .. ':' .. id end
local function recipients_key(workspace, id) return P .. 'status-recipients:' .. workspace .. ':' .. id end
local function ended_key(workspace, state) return P .. 'ended:' .. workspace .. ':' .. state end
