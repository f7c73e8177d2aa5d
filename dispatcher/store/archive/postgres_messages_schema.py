"""The tables of messages of an archive in PostgreSQL: since version 3."""

from dispatcher.store.archive.archive import STATUS

SCHEMA = """
CREATE TABLE IF NOT EXISTS dispatcher.message (
    kept_at timestamptz NOT NULL,
    sent_ms bigint NOT NULL,
    changed_ms bigint NOT NULL,
    workspace int NOT NULL,
    uuid text COLLATE "C" NOT NULL,
    status text NOT NULL,
    history text NOT NULL,
    campaign text NOT NULL,
    keys text NOT NULL,
    names text NOT NULL,
    src text NOT NULL,
    dest text NOT NULL,
    channel text NOT NULL,
    segments text NOT NULL,
    units text NOT NULL,
    attempts text NOT NULL,
    cost text NOT NULL,
    currency text NOT NULL,
    customer_message_id text NOT NULL,
    network text NOT NULL,
    total_parts text NOT NULL,
    reference text NOT NULL,
    provider text NOT NULL,
    error_code text NOT NULL,
    error_message text NOT NULL,
    UNIQUE (workspace, uuid, kept_at)
) PARTITION BY RANGE (kept_at);
CREATE TABLE IF NOT EXISTS dispatcher.message_key (
    kept_at timestamptz NOT NULL,
    sent_ms bigint NOT NULL,
    workspace int NOT NULL,
    key text NOT NULL,
    uuid text COLLATE "C" NOT NULL,
    PRIMARY KEY (workspace, key, sent_ms, uuid, kept_at)
) PARTITION BY RANGE (kept_at);
"""


def _time(column: str) -> str:
    return f"to_timestamp({column} / 1000.0)"


VIEW = f"""
CREATE OR REPLACE VIEW dispatcher.messages AS
SELECT workspace.name AS workspace, uuid AS message_id, nullif(customer_message_id, '') AS customer_message_id,
    channel, src, dest, {STATUS} AS status, {_time("sent_ms")} AS sent_at, {_time("changed_ms")} AS changed_at,
    (changed_ms - sent_ms) / 1000.0::float8 AS seconds, nullif(segments, '')::bigint AS segments,
    nullif(units, '')::bigint AS units, nullif(cost, '')::float8 AS cost, nullif(currency, '') AS currency,
    nullif(network, '') AS network, nullif(campaign, '') AS campaign, nullif(reference, '') AS reference,
    nullif(error_code, '') AS error_code
FROM dispatcher.message JOIN dispatcher.workspace ON workspace.number = message.workspace;
"""
