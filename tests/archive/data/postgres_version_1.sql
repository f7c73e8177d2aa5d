CREATE SCHEMA IF NOT EXISTS dispatcher;
CREATE TABLE dispatcher.archive (version int NOT NULL);
CREATE TABLE dispatcher.workspace (number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE dispatcher.endpoint
    (number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL, name text NOT NULL, UNIQUE (id, name));
CREATE TABLE dispatcher.event_type (number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE dispatcher.callback (
    accepted_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    life_ms bigint NOT NULL,
    workspace int NOT NULL,
    endpoint int NOT NULL,
    event_type int NOT NULL,
    claims int NOT NULL,
    attempts smallint NOT NULL,
    http_status smallint,
    status text NOT NULL,
    state text NOT NULL,
    id text NOT NULL,
    message text NOT NULL,
    digest text NOT NULL,
    error text,
    records text NOT NULL,
    extra text NOT NULL,
    answer bytea,
    body bytea,
    UNIQUE (workspace, id, ended_at)
) PARTITION BY RANGE (ended_at);
CREATE INDEX ON dispatcher.callback (workspace, message);
CREATE INDEX ON dispatcher.callback (workspace, state, ended_at);
CREATE VIEW dispatcher.history AS
SELECT workspace.name AS workspace, split_part(callback.id, '.', 1) AS event_id, split_part(callback.id, '.', 2) AS subscription,
    message AS message_id, CASE status WHEN 'u' THEN 'UNKNOWN' WHEN 'c' THEN 'SCHEDULED' WHEN 'q' THEN 'QUEUED' WHEN 'p' THEN 'PROCESSING' WHEN 'm' THEN 'SUBMITTED' WHEN 's' THEN 'SENT' WHEN 'b' THEN 'BUFFERED' WHEN 'd' THEN 'DELIVERED' WHEN 'f' THEN 'FAILED' WHEN 'n' THEN 'UNDELIVERABLE' WHEN 'e' THEN 'EXPIRED' WHEN 'j' THEN 'REJECTED' WHEN 'r' THEN 'READ' END AS status, event_type.name AS event_type, split_part(endpoint.name, ' ', 2) AS endpoint, state,
    accepted_at, ended_at, extract(epoch FROM ended_at - accepted_at)::float8 AS seconds, attempts, http_status,
    nullif(error, '-') AS error
FROM dispatcher.callback
JOIN dispatcher.workspace ON workspace.number = callback.workspace
JOIN dispatcher.endpoint ON endpoint.number = callback.endpoint
JOIN dispatcher.event_type ON event_type.number = callback.event_type;
INSERT INTO dispatcher.archive VALUES (1);
INSERT INTO dispatcher.workspace (name) VALUES ('acme');
INSERT INTO dispatcher.endpoint (id, name) VALUES ('endpoint7', 'acme https://a.example:443');
INSERT INTO dispatcher.event_type (name) VALUES ('message.delivered');
CREATE TABLE dispatcher.callback_2026_02_16 PARTITION OF dispatcher.callback
    FOR VALUES FROM ('2026-02-16T00:00:00+00:00') TO ('2026-02-17T00:00:00+00:00');
INSERT INTO dispatcher.callback VALUES
    ('2026-02-16T00:00:00.001+00:00', '2026-02-16T00:00:00.036+00:00', 172800000, 1, 1, 1, 1, 1, 200, 'd', 'delivered', 'e1', 'm1',
        '0123456789abcdef', NULL, '3 12 200', 'to=a,b', NULL, NULL),
    ('2026-02-16T00:00:00.002+00:00', '2026-02-16T00:00:00.037+00:00', 172800000, 1, 1, 1, 1, 1, 500, 'd', 'failed', 'e2', 'm2',
        '0123456789abcdef', 'http_500', '3 12 500 http_500', 'to=a,b', '\x6e6f2000206c75636b', '\x68747470733a2f2f612e6578616d706c650a7b7d');
