BEGIN TRANSACTION;
CREATE TABLE archive (version INTEGER NOT NULL);
INSERT INTO "archive" VALUES(1);
CREATE TABLE callback (
    workspace INTEGER NOT NULL REFERENCES workspace,
    id TEXT NOT NULL,
    endpoint INTEGER NOT NULL REFERENCES endpoint,
    message TEXT NOT NULL,
    event_type INTEGER NOT NULL REFERENCES event_type,
    status TEXT NOT NULL,
    state TEXT NOT NULL,
    accepted_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    life_ms INTEGER NOT NULL,
    claims INTEGER NOT NULL,
    digest TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    http_status INTEGER,
    error TEXT,
    records TEXT NOT NULL,
    extra TEXT NOT NULL,
    answer BLOB,
    body BLOB,
    UNIQUE (workspace, id)
);
INSERT INTO "callback" VALUES(1,'e1',1,'m1',1,'d','delivered',1771200000001,1771200000036,172800000,1,'0123456789abcdef',1,200,NULL,'3 12 200','to=a,b',NULL,NULL);
INSERT INTO "callback" VALUES(1,'e2',1,'m2',1,'d','failed',1771200000002,1771200000037,172800000,1,'0123456789abcdef',1,500,'http_500','3 12 500 http_500','to=a,b',X'6E6F2000206C75636B',X'68747470733A2F2F612E6578616D706C650A7B7D');
CREATE TABLE endpoint (number INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (id, name));
INSERT INTO "endpoint" VALUES(1,'endpoint7','acme https://a.example:443');
CREATE TABLE event_type (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
INSERT INTO "event_type" VALUES(1,'message.delivered');
CREATE TABLE workspace (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
INSERT INTO "workspace" VALUES(1,'acme');
CREATE INDEX callback_message ON callback (workspace, message);
CREATE INDEX callback_ended ON callback (ended_ms);
CREATE INDEX callback_state ON callback (workspace, state, ended_ms);
CREATE VIEW history AS
SELECT workspace.name AS workspace,
    substr(callback.id || '.', 1, instr(callback.id || '.', '.') - 1) AS event_id,
    substr(callback.id, instr(callback.id || '.', '.') + 1) AS subscription,
    message AS message_id, CASE status WHEN 'u' THEN 'UNKNOWN' WHEN 'c' THEN 'SCHEDULED' WHEN 'q' THEN 'QUEUED' WHEN 'p' THEN 'PROCESSING' WHEN 'm' THEN 'SUBMITTED' WHEN 's' THEN 'SENT' WHEN 'b' THEN 'BUFFERED' WHEN 'd' THEN 'DELIVERED' WHEN 'f' THEN 'FAILED' WHEN 'n' THEN 'UNDELIVERABLE' WHEN 'e' THEN 'EXPIRED' WHEN 'j' THEN 'REJECTED' WHEN 'r' THEN 'READ' END AS status, event_type.name AS event_type,
    substr(endpoint.name, instr(endpoint.name, ' ') + 1) AS endpoint, state,
    strftime('%Y-%m-%d %H:%M:%f', accepted_ms / 1000.0, 'unixepoch') AS accepted_at,
    strftime('%Y-%m-%d %H:%M:%f', ended_ms / 1000.0, 'unixepoch') AS ended_at,
    (ended_ms - accepted_ms) / 1000.0 AS seconds, attempts, http_status, nullif(error, '-') AS error
FROM callback
JOIN workspace ON workspace.number = callback.workspace
JOIN endpoint ON endpoint.number = callback.endpoint
JOIN event_type ON event_type.number = callback.event_type;
COMMIT;
