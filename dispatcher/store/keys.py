"""All Redis keys, one function each, with content and lifetime.

Each key starts with `KEY_PREFIX` and a colon. `lua/lib/prologue.lua` builds the same keys for the scripts;
a test compares the two.
"""

import functools
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2s
from typing import TYPE_CHECKING

from dispatcher.rules.partitions import tags

if TYPE_CHECKING:
    from dispatcher.rules.endpoint_name import EndpointName

PERMANENT = (
    "format", "partitions", "grown", "events", "rejected-counts", "workspaces", "workspace", "expiries-of-certificates", "endpoints", "api-key", "api-keys",
    "api-refused",
)  # fmt: skip
"""Keys without a TTL even when nothing waits: the format number, the number of partitions, what is noted of growth, the queue,
counts of rejections and refusals, workspaces with their API keys and the ends of their client certificates, the list of endpoints."""


GROWN_INTO = " grown into "
"""In the format of an installation that has grown: behind this is into how many partitions. So processes that take it for the
whole end, and none starts, of this version or an earlier one."""
FORMAT_TEXT = rf"(\d{{1,9}}({GROWN_INTO}\d{{1,9}})?)?"
"""What is stored as the format, as a regular expression."""

PREFIX_PATTERN = r"^[A-Za-z0-9_.-]{1,32}$"


def is_prefix(given: object) -> bool:
    """Whether keys may start with it: as the setting KEY_PREFIX."""
    return isinstance(given, str) and re.fullmatch(PREFIX_PATTERN.strip("^$"), given) is not None


@dataclass(frozen=True, slots=True)
class Keys:
    """Builds keys below one prefix: those of one partition."""

    prefix: str = "dispatcher"
    """The setting KEY_PREFIX; with several partitions also the partition's tag: `dispatcher:{12}`."""
    partition: int = 0
    """The partition's number."""

    @property
    def is_tagged(self) -> bool:
        """Whether these are the keys of one of several partitions."""
        return "{" in self.prefix

    @property
    def is_alone(self) -> bool:
        """Whether these are the keys of an installation with one partition, and not of one that has grown since."""
        return not self.is_tagged and self.partition == 0

    def own_format(self, stored: str) -> str:
        """The format number of what is stored as the format; all of it, if these are the keys of an installation that has grown since."""
        return stored if self.is_alone else stored.partition(GROWN_INTO)[0]

    @property
    def root(self) -> str:
        """The start of every key."""
        return f"{self.prefix}:"

    @property
    def events(self) -> str:
        """Stream: the queue; entries leave when accepted or rejected. Permanent."""
        return f"{self.prefix}:events"

    @property
    def rejected(self) -> str:
        """Stream of at most 10,000 entries that could not be used. Retention after the last one."""
        return f"{self.prefix}:rejected"

    @property
    def rejected_counts(self) -> str:
        """Hash: reason -> how many entries were rejected for it. Permanent."""
        return f"{self.prefix}:rejected-counts"

    @property
    def forwarded(self) -> str:
        """Zset: `partition entry checksum` of what other partitions put on the queue -> when. Until they have taken it off theirs.

        Retention after the last one."""
        return f"{self.prefix}:forwarded"

    @property
    def expiries(self) -> str:
        """Zset: `workspace:eventId` of every pending callback -> when to look at its expiry."""
        return f"{self.prefix}:expiries"

    @property
    def schedule(self) -> str:
        """Zset: workspace with a schedule (`*`: endpoints whose record is gone) -> when to look at it next."""
        return f"{self.prefix}:schedule"

    @property
    def schedule_of_format_1(self) -> str:
        """What `schedule` was in format 1, while lua/migrate.lua takes it over."""
        return f"{self.schedule}-1"

    def schedule_of(self, workspace: str) -> str:
        """Zset: endpoint of a workspace -> when it next needs attention. While any does."""
        return f"{self.prefix}:schedule:{workspace}"

    @property
    def format(self) -> str:
        """String: the format number of the data in Redis (format.py), and what it has grown into (store/growth.py). Permanent."""
        return f"{self.prefix}:format"

    @property
    def count(self) -> str:
        """String: the number of partitions, in a registry (store/partition_count.py). Permanent."""
        return f"{self.prefix}:partitions"

    @property
    def intake(self) -> str:
        """String: token of the worker that leads intake; lives for its lease."""
        return f"{self.prefix}:intake"

    @property
    def full(self) -> str:
        """String: exists while Redis refuses accept for lack of memory; lives for the intake lease."""
        return f"{self.prefix}:full"

    def event(self, workspace: str, event_id: str) -> str:
        """String: the ledger's entry of one callback (lua/lib/entry.lua). Retention after its end.

        For a subscription beside the default one the id is `eventId.subscription`, here and everywhere below."""
        return f"{self.prefix}:event:{workspace}:{event_id}"

    def body(self, workspace: str, event_id: str) -> str:
        """String: callback URL (kept_body.py), newline, bytes to POST. Until delivered + DELIVERED_BODY_SECONDS, or retention."""
        return f"{self.prefix}:body:{workspace}:{event_id}"

    def answer(self, workspace: str, event_id: str) -> str:
        """String: first bytes of the last failed answer. Retention."""
        return f"{self.prefix}:answer:{workspace}:{event_id}"

    def message(self, workspace: str, uuid: str) -> str:
        """String: eventIds of one message, separated by spaces. Expiry + retention of the longest-lived one."""
        return f"{self.prefix}:message:{workspace}:{uuid}"

    def lane(self, endpoint: str) -> str:
        """Zset: eventIds that may go next -> due time. While any waits."""
        return f"{self.prefix}:lane:{endpoint}"

    def leased(self, endpoint: str) -> str:
        """Zset: leased eventIds -> end of the lease. While any is leased."""
        return f"{self.prefix}:leased:{endpoint}"

    def chain(self, endpoint: str, uuid: str) -> str:
        """List: eventIds of one message to one endpoint, in order of acceptance. While pending."""
        return f"{self.prefix}:chain:{endpoint}:{uuid}"

    def newest(self, endpoint: str, uuid: str) -> str:
        """String: newest timestamp of one message to one endpoint, for `latest`. Expiry + retention."""
        return f"{self.prefix}:newest:{endpoint}:{uuid}"

    def endpoint(self, endpoint: str) -> str:
        """Hash: name (workspace, space, origin), seen, window, waiting, hinted_until, failures, p95, pause, pause_ms,
        down_since, last_failure, stopped, tat, failing, gone.

        Longest ttlSeconds + retention after the last callback; no TTL while the operator has stopped it."""
        return f"{self.prefix}:endpoint:{endpoint}"

    @property
    def workspaces(self) -> str:
        """Set: the names of all workspaces. Permanent."""
        return f"{self.prefix}:workspaces"

    def workspace(self, workspace: str) -> str:
        """Hash: dialect, callback URL, secrets, limits, revision. Permanent."""
        return f"{self.prefix}:workspace:{workspace}"

    @property
    def client_certificates(self) -> str:
        """Zset: `workspace subscription` -> when its client certificate ends (store/client_certificates.py). Permanent."""
        return f"{self.prefix}:expiries-of-certificates"

    def stats(self, unit: str, number: int) -> str:
        """Hash: counters of one minute (all), hour (each workspace) or day (each endpoint) since 1970.

        A day; hours and days eight."""
        return f"{self.prefix}:stats:{unit}:{number}"

    def ended(self, workspace: str, state: str) -> str:
        """Zset: eventIds that ended failed, expired or superseded -> when. Retention, trimmed at each addition."""
        return f"{self.prefix}:ended:{workspace}:{state}"

    @property
    def to_archive(self) -> str:
        """Stream: `workspace eventId` of each callback that has ended and is not in the archive yet, if there is an archive."""
        return f"{self.prefix}:ended"

    @property
    def archiver(self) -> str:
        """String: token of the `dispatcher archiver` that takes `ended` to the archive in place of workers. A minute."""
        return f"{self.prefix}:archiver"

    @property
    def fingerprints(self) -> str:
        """Hash: number of a table of fingerprints -> its buckets, count and times (lua/lib/fingerprints.lua). As the newest table."""
        return f"{self.prefix}:fingerprints"

    def fingerprint(self, table: int, bucket: int) -> str:
        """Set: fingerprints of callbacks that only the archive has. Retention after the last one of its table."""
        return f"{self.prefix}:fingerprint:{table}:{bucket}"

    @property
    def status_due(self) -> str:
        """Zset: `workspace message` of each message that is not in the archive yet -> when to look at it, if there is an archive."""
        return f"{self.prefix}:status-due"

    def status(self, workspace: str, uuid: str) -> str:
        """String: what is known about a message (message_record.py). STATUS_RETENTION_SECONDS after its last change."""
        return f"{self.prefix}:status:{workspace}:{uuid}"

    def status_phone(self, workspace: str, number: str) -> str:
        """Zset: messages to a phone number -> when they were sent. As `status`, plus two days."""
        return f"{self.prefix}:status-phone:{workspace}:{number}"

    def status_reference(self, workspace: str, digest: str) -> str:
        """Zset: messages with a reference (its digest) -> when they were sent. As `status`, plus two days."""
        return f"{self.prefix}:status-reference:{workspace}:{digest}"

    def status_customer(self, workspace: str, channel: str, id_: str) -> str:
        """String: the message with a customerMessageId on a channel. As `status`, plus two days."""
        return f"{self.prefix}:status-customer:{workspace}:{channel}:{id_}"

    def status_time(self, workspace: str, channel: str, slot: int) -> str:
        """List: messages sent on a channel in one slot of ten minutes, slots counted since 1970. As `status`."""
        return f"{self.prefix}:status-time:{workspace}:{channel}:{slot}"

    def status_campaign(self, workspace: str, campaign: str) -> str:
        """Hash: status -> how many messages of a campaign have it; started. As `status`, plus two days."""
        return f"{self.prefix}:status-campaign:{workspace}:{campaign}"

    def status_recipients(self, workspace: str, campaign: str) -> str:
        """List: a campaign's messages. As `status`, plus two days."""
        return f"{self.prefix}:status-recipients:{workspace}:{campaign}"

    def api_key(self, key_id: str) -> str:
        """Hash: an API key's workspace, platform, digest of the secret, name, rate, read_only. Permanent."""
        return f"{self.prefix}:api-key:{key_id}"

    def api_keys(self, workspace: str) -> str:
        """Set: ids of a workspace's API keys (`*`: those of producers). Permanent."""
        return f"{self.prefix}:api-keys:{workspace}"

    def api_rate(self, key_id: str, second: int) -> str:
        """String: number of calls with an API key in one second since 1970. Five seconds."""
        return f"{self.prefix}:api-rate:{key_id}:{second}"

    def search(self, workspace: str) -> str:
        """String: token of a workspace's long search under way in the API. At most 30 seconds."""
        return f"{self.prefix}:search:{workspace}"

    @property
    def api_refused(self) -> str:
        """Hash: reason -> how many API calls were ever refused for it. Permanent."""
        return f"{self.prefix}:api-refused"

    def api_refusals(self, hour: int) -> str:
        """Hash: `reason keyId` -> how many API calls were refused in one hour since 1970. Eight days."""
        return f"{self.prefix}:api-refusals:{hour}"

    @property
    def audit(self) -> str:
        """Stream of some 10,000 changes by API and commands (store/audit.py). Retention after the last one."""
        return f"{self.prefix}:audit"

    @property
    def audit_portal(self) -> str:
        """Stream of some 10,000 changes by customers in the portal: those of others must not make room for them. Like `audit`."""
        return f"{self.prefix}:audit-portal"

    @property
    def audit_links(self) -> str:
        """Stream of some 10,000 links to the portal that were asked for. Like `audit`."""
        return f"{self.prefix}:audit-links"

    def webhook_changes(self, workspace: str, minute: int) -> str:
        """String: changes of a webhook by its customer in one minute since 1970. Two minutes."""
        return f"{self.prefix}:webhook-changes:{workspace}:{minute}"

    @property
    def tail(self) -> str:
        """String: exists while someone watches attempts live; also the channel they are published on. Seconds."""
        return f"{self.prefix}:tail"

    @property
    def alerts(self) -> str:
        """List: the latest 200 alerts of all workers (store/latest_alerts.py). Retention after the last one."""
        return f"{self.prefix}:alerts"

    def session(self, digest: str) -> str:
        """String: a session of the console (store/sessions.py), by the digest of its text. Until its end."""
        return f"{self.prefix}:session:{digest}"

    def logged_out(self, who: str) -> str:
        """String: when a person (`*`: everybody) logged out everywhere, ms since 1970. As the longest session."""
        return f"{self.prefix}:logged-out:{who}"

    def portal_link(self, digest: str) -> str:
        """String: the session that a link to the portal begins, by the digest of its text. Five minutes, or until used."""
        return f"{self.prefix}:portal-link:{digest}"

    def worker(self, name: str) -> str:
        """String: a worker's heartbeat, JSON. Fifteen seconds."""
        return f"{self.prefix}:worker:{name}"

    @property
    def endpoints(self) -> str:
        """Zset: endpoints used within the retention -> last use. Permanent; old members are removed."""
        return f"{self.prefix}:endpoints"

    @property
    def workers(self) -> str:
        """Zset: workers that sent a heartbeat -> when. Fifteen seconds."""
        return f"{self.prefix}:workers"


def keys_of(prefix: str, partitions: int = 1) -> list[Keys]:
    """The keys of each partition of an installation; those of one partition have no tag."""
    if partitions == 1:
        return [Keys(prefix)]
    return [Keys(f"{prefix}:{{{tag}}}", number) for number, tag in enumerate(tags(partitions))]


def partitions_key(prefix: str) -> str:
    """String: how many partitions the installation has, in decimal digits. Permanent.

    It has no tag and belongs to no partition: on several servers it lies on the first one, on a cluster in the slot of its name.
    """
    return f"{prefix}:partitions"


def grown_key(prefix: str) -> str:
    """String: since when the installation has had a previous Redis, ms since 1970, 0 while it is copied, and ` ended` once it has none (store/grown.py). Permanent.

    It lies where `partitions_key` does.
    """
    return f"{prefix}:grown"


def growing_key(prefix: str) -> str:
    """String: token of the `dispatcher grow` that is under way. At most 10 seconds after its last step.

    It lies where `partitions_key` does.
    """
    return f"{prefix}:growing"


@functools.lru_cache(maxsize=4096)
def endpoint_id(name: "EndpointName | str") -> str:
    """The 12-character id of an endpoint in keys, from its name or the name's text.

    Host names in each key would cost more memory.
    """
    return urlsafe_b64encode(blake2s(str(name).encode(), digest_size=9).digest()).decode()
