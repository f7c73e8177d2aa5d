"""Every setting, once: default, unit, meaning. `setting_types.py` parses values; `config/settings_docs.py` generates documents."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from config import console_rules, environment, topology_rules
from config.environment import ENCODING, PREFIX
from config.setting_types import (
    MAX_SECONDS,
    ArchiveUrl,
    Authorities,
    Broker,
    ConsoleUrl,
    FernetKeys,
    HeaderName,
    HttpUrl,
    LogFormat,
    LogLevel,
    NameServers,
    Nat64Prefixes,
    Networks,
    Ports,
    ProxyUrl,
    RedisServer,
    Roles,
    Seconds,
    SigningSecret,
    SourceAddresses,
    none_if_empty,
)
from dispatcher.errors import InvalidInput
from dispatcher.model import LONGEST_GRACE_SECONDS, LONGEST_TTL_SECONDS
from dispatcher.rules.partitions import MOST, Partitioning
from dispatcher.store.connection import safe_url
from dispatcher.store.keys import PREFIX_PATTERN
from dispatcher.store.topology import Topology


class Settings(BaseSettings):
    """Settings from the environment (prefix `DISPATCHER_`) and `.env`. An empty value counts as not set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding=ENCODING,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    redis_url: RedisServer = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis that holds queue and ledger (redis://, rediss://, unix://), or its sentinels"
        " (redis+sentinel://HOST,HOST/NAME), a cluster (redis+cluster://HOST,HOST) or a list of servers",
    )
    redis_ca_file: Authorities = Field(
        None,
        description="file of certificate authorities (PEM) to trust for rediss:// in addition to the system's, and for amqps:// in"
        " place of them; empty: none",
    )
    broker_url: Broker = Field(
        None,
        description="Celery's broker: one Redis, Sentinel, or RabbitMQ (amqp://); empty: the same Redis, which a cluster or a list"
        " cannot be",
    )
    key_prefix: Annotated[str, Field(pattern=PREFIX_PATTERN)] = Field(
        "dispatcher", description="prefix of every Redis key"
    )
    partitions: Annotated[int, Field(ge=1, le=MOST)] = Field(
        1, description="partitions of the installation (docs/partitions.md), chosen once; 256 for a cluster"
    )
    previous_redis_url: RedisServer | None = Field(
        None,
        description="the one Redis that this installation had before it was divided (docs/partitions.md, From one Redis); empty: none",
    )
    max_attempts: Annotated[int, Field(ge=1, le=20)] = Field(
        5, description="POSTs per callback, including the first"
    )
    backoff_base_seconds: Seconds = Field(15, description="wait after the first attempt")
    backoff_factor: Annotated[float, Field(ge=1)] = Field(
        16, description="factor by which each further wait is longer"
    )
    backoff_jitter: Annotated[float, Field(ge=0, le=1)] = Field(0.1, description="waits vary by ± this share")
    expiry_seconds: Annotated[int, Field(ge=1, le=LONGEST_TTL_SECONDS)] = Field(
        172_800, description="age at which a callback is given up, if the status change sets no ttlSeconds"
    )
    request_timeout_seconds: Seconds = Field(
        10, description="time-out of one attempt, from DNS to the last byte"
    )
    retry_after_max_seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS)] = Field(
        3600, description="longest wait for a Retry-After; a longer one is cut to this"
    )
    max_concurrency: Annotated[int, Field(ge=1, le=1000)] = Field(
        20, description="limit of POSTs in flight to one endpoint, if the workspace sets none"
    )
    max_in_flight: Annotated[int, Field(ge=1)] = Field(
        4000, description="limit of POSTs in flight from one worker"
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        16000,
        description="connections to receivers that one worker may have open, before it closes idle ones;"
        " with https an idle one takes some 50 kB of memory, after a long answer 70 kB",
    )
    allow_http: bool = Field(False, description="allow callback URLs with http://")
    allowed_networks: Networks = Field(
        (),
        description="non-public networks that callbacks may go to, e.g. 127.0.0.0/8,10.1.0.0/16",
    )
    denied_networks: Networks = Field(
        (),
        description="networks that no callback may go to, even if otherwise allowed, e.g. 203.0.113.0/24,2001:db8:5::/48",
    )
    nat64_prefixes: Nat64Prefixes = Field(
        (),
        description="this network's NAT64 prefixes in addition to 64:ff9b::/96; the embedded IPv4 address is checked",
    )
    allowed_ports: Ports = Field((), description="ports that callbacks may go to; empty: any")
    proxy_url: ProxyUrl = Field(
        None,
        description="egress proxy that makes all connections and checks addresses itself (e.g. smokescreen); empty: none",
    )
    source_address: SourceAddresses = Field(
        (),
        description="this machine's address that callbacks come from, e.g. 192.0.2.7 or 192.0.2.7,2001:db8::7; with one of "
        "them only that IP version is used; empty: the system chooses",
    )
    dns_servers: NameServers = Field(
        (),
        description="name servers that resolve callback URLs' hosts, e.g. 10.0.0.53,[fd00::53]:5353; empty: the system's",
    )
    ca_file: Authorities = Field(
        None,
        description="file of certificate authorities (PEM) to trust in addition to the system's; empty: none",
    )
    secret_keys: FernetKeys = Field(
        None,
        description="Fernet keys that encrypt signing secrets in Redis, newest first, comma-separated; empty: not encrypted",
    )
    secret_grace_seconds: Annotated[int, Field(ge=0, le=LONGEST_GRACE_SECONDS)] = Field(
        86_400, description="how long an old secret goes on signing after `workspace rotate-secret`"
    )
    ledger_retention_seconds: Annotated[int, Field(ge=1, le=MAX_SECONDS)] = Field(
        604_800,
        description="how long the ledger remembers a callback after its end; at least the longest expiry",
    )
    archive_url: ArchiveUrl = Field(
        None,
        description="where callbacks that have ended are kept for long (docs/archive.md): sqlite:////path/of/a/file or"
        " postgresql://user:password@host/database; empty: nowhere",
    )
    archive_after_seconds: Annotated[int, Field(ge=0, le=MAX_SECONDS)] = Field(
        300, description="how long after its end a callback goes to the archive and leaves Redis"
    )
    archive_retention_days: Annotated[int, Field(ge=1, le=36_500)] = Field(
        90, description="how long the archive keeps a callback after its end"
    )
    status_retention_seconds: Annotated[int, Field(ge=0, le=MAX_SECONDS)] = Field(
        604_800,
        description="how long Redis keeps a message for the status API after its last status change; 0: it keeps none",
    )
    delivered_body_seconds: Annotated[int, Field(ge=0, le=MAX_SECONDS)] = Field(
        3600, description="how long the body of a delivered callback is kept"
    )
    max_waiting_per_endpoint: Annotated[int, Field(ge=0)] = Field(
        0,
        description="callbacks that may wait for one endpoint; newer ones go to `rejected` (endpoint_full); 0: no limit",
    )
    turn_seconds: Annotated[float, Field(ge=0.1, le=MAX_SECONDS)] = Field(
        5, description="how long one worker serves one endpoint before others get a turn"
    )
    lease_seconds: Seconds = Field(
        30, description="lease of a claimed callback; at least the request time-out + 2 s"
    )
    wake_seconds: Annotated[float, Field(ge=0.01, le=10)] = Field(
        0.25,
        description="how often a worker looks for due callbacks; its heartbeats go with it, and count for 15 s",
    )
    breaker_failures: Annotated[int, Field(ge=1)] = Field(
        10, description="failures in a row (down or overloaded) after which the breaker pauses an endpoint"
    )
    breaker_pause_seconds: Seconds = Field(
        10, description="first pause of an endpoint; each failed probe doubles it"
    )
    breaker_max_pause_seconds: Seconds = Field(600, description="longest pause of an endpoint")
    disable_after_gone_seconds: Annotated[int, Field(ge=0, le=MAX_SECONDS)] = Field(
        86_400,
        description="a subscription that answered 410 to every attempt for so long is disabled; 0: never",
    )
    disable_after_failing_seconds: Annotated[int, Field(ge=0, le=MAX_SECONDS)] = Field(
        432_000,
        description="a subscription whose every attempt failed for so long is disabled; 0: never",
    )
    remote_control: bool = Field(
        False,
        description="let Celery's remote control (celery inspect, celery control) reach workers; then anyone who can write to "
        "the broker can stop them",
    )
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        0, description="port at which each worker serves its metrics to Prometheus; 0: none"
    )
    api_rate_per_second: Annotated[int, Field(ge=1, le=10_000)] = Field(
        50, description="limit of calls a second with one API key, if the key sets none"
    )
    api_max_queued: Annotated[int, Field(ge=1)] = Field(
        100_000,
        description="queue length, in status changes, above which POST /v1/status-changes answers 503",
    )
    api_request_seconds: Seconds = Field(
        30, description="time limit of one API call, from its first byte to the last byte of its answer"
    )
    api_max_connections: Annotated[int, Field(ge=1, le=100_000)] = Field(
        500, description="limit of connections to one API process; more are answered 503"
    )
    api_docs: bool = Field(False, description="serve the API's documentation at /docs")
    console_url: ConsoleUrl = Field(
        None,
        description="where browsers reach `dispatcher console` (https://…): needed for portal links, single sign-on, and to listen "
        "beyond this machine",
    )
    console_roles: Roles = Field(
        (),
        description="who may use the console by single sign-on or a proxy: viewer:USER or viewer:group:GROUP, operator:…, admin:…; * is anyone",
    )
    console_proxies: Networks = Field(
        (), description="addresses of proxies that have logged in who asks, and say so in a header"
    )
    console_user_header: HeaderName = Field(
        "X-Forwarded-User", description="header in which those proxies name the user"
    )
    console_groups_header: HeaderName = Field(
        "X-Forwarded-Groups", description="header in which they name the user's groups, separated by commas"
    )
    console_oidc_issuer: HttpUrl = Field(
        None, description="OpenID Connect provider for the console's log-in; empty: none"
    )
    console_oidc_client_id: str = Field("", description="this installation's client id there")
    console_oidc_client_secret: Annotated[SecretStr | None, BeforeValidator(none_if_empty)] = Field(
        None, description="and its client secret; empty: a public client, with PKCE alone"
    )
    console_oidc_groups_claim: str = Field(
        "groups", description="claim of the ID token with the user's groups"
    )
    webhook_changes_per_minute: Annotated[int, Field(ge=1, le=10_000)] = Field(
        10, description="limit of a customer's changes of its callback URL a minute (Qlara's webhook)"
    )
    alert_url: HttpUrl = Field(
        None,
        description="the operator's own URL for alerts, at most once a minute: callbacks that ended failed or expired, endpoints "
        "that are down, subscriptions that were disabled, low success rates; empty: log events only",
    )
    alert_secret: SigningSecret = Field(
        None,
        description="signing secret of those alerts, as for callbacks (whsec_…); empty: they are not signed",
    )
    alert_down_seconds: Seconds = Field(900, description="how long an endpoint must be down before an alert")
    alert_success_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.9,
        description="share of a workspace's ended callbacks that were delivered, this hour and the last, below which to alert",
    )
    traces_sample: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="share of attempts without a trace of their own that become OpenTelemetry spans (extra `otel`); with 0 only "
        "attempts whose status change has a sampled traceparent do; empty: none, and OpenTelemetry is not loaded",
    )
    log_level: LogLevel = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_format: LogFormat = Field(
        "auto", description="console, json, or auto: console on a terminal, else json"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.lease_seconds < self.request_timeout_seconds + 2:
            raise ValueError(
                f"DISPATCHER_LEASE_SECONDS ({self.lease_seconds:g}) must be at least DISPATCHER_REQUEST_TIMEOUT_SECONDS + 2 "
                f"({self.request_timeout_seconds + 2:g}), or a callback could be sent twice at once"
            )
        if self.source_address and self.proxy_url:
            raise ValueError(
                "set DISPATCHER_SOURCE_ADDRESS or DISPATCHER_PROXY_URL, not both: receivers see the proxy's address"
            )
        if wrong := console_rules.problem(self):
            raise ValueError(wrong)
        longest = max(self.expiry_seconds, LONGEST_TTL_SECONDS)
        if self.ledger_retention_seconds < longest:
            raise ValueError(
                f"DISPATCHER_LEDGER_RETENTION_SECONDS ({self.ledger_retention_seconds}) must be at least the longest expiry "
                f"a status change may have ({longest}), or a repeated eventId could be sent twice"
            )
        if self.archive_url and self.archive_retention_days * 86_400 < self.ledger_retention_seconds:
            raise ValueError(
                f"DISPATCHER_ARCHIVE_RETENTION_DAYS ({self.archive_retention_days}) must not be shorter than "
                f"DISPATCHER_LEDGER_RETENTION_SECONDS ({self.ledger_retention_seconds}), or a repeated eventId could be sent twice"
            )
        if self.archive_url and self.archive_after_seconds >= self.ledger_retention_seconds:
            raise ValueError(
                f"DISPATCHER_ARCHIVE_AFTER_SECONDS ({self.archive_after_seconds}) must be shorter than "
                f"DISPATCHER_LEDGER_RETENTION_SECONDS ({self.ledger_retention_seconds}), or callbacks would be forgotten before"
            )
        topology_rules.check(self.topology, self.partitions, has_broker=self.broker_url is not None)
        if self.previous_redis_url:
            previous = Topology.parse(self.previous_redis_url.get_secret_value())
            topology_rules.check_previous(self.topology, previous, self.partitions)
        return self

    @property
    def topology(self) -> Topology:
        """The Redis servers."""
        return Topology.parse(self.redis_url.get_secret_value())

    @property
    def partitioning(self) -> Partitioning:
        """How the installation is divided."""
        return Partitioning(self.partitions, self.previous_redis_url is not None)

    @property
    def celery_url(self) -> str:
        """Celery's broker, with its password."""
        return (self.broker_url or self.redis_url).get_secret_value()

    def shown(self) -> dict[str, Any]:
        """The settings by their environment names, secrets hidden and URLs without credentials."""
        found = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name == "alert_url" and value is not None:  # its path may be a credential
                value = safe_url(value.get_secret_value()).partition("://")[2].partition("/")[0] or "********"
            elif name.endswith("_url") and value is not None:
                value = safe_url(value.get_secret_value())
            elif isinstance(value, SecretStr):
                value = "********"
            found[PREFIX + name.upper()] = list(value) if isinstance(value, tuple) else value
        return found


def names() -> list[str]:
    """The names of all settings, as in the environment."""
    return [PREFIX + name.upper() for name in Settings.model_fields]


def sources() -> dict[str, str]:
    """Where each setting that is set has its value from: the environment, or .env."""
    found: dict[str, str] = {}
    for where, variables in _variables().items():
        found |= {name.upper(): where for name in variables if name.upper() in names()}
    return found


def _variables() -> dict[str, Mapping[str, str | None]]:
    """The variables that are set, by source; later sources take precedence. Raises InvalidInput if `.env` is broken."""
    try:
        if broken := environment.broken_line(Path(".env")):
            raise InvalidInput(broken)
    except UnicodeDecodeError:
        raise InvalidInput(".env is not UTF-8; save it as UTF-8, or remove it") from None
    return {
        ".env": DotEnvSettingsSource(Settings).env_vars,
        "the environment": EnvSettingsSource(Settings).env_vars,
    }


def _refuse_unknown() -> None:
    """Raises InvalidInput for unknown settings: a typo would silently leave a setting at its default."""
    known, found = names(), _variables()
    wrong = [
        environment.problem(name, where, known)
        for where, variables in found.items()
        for name in environment.unknown(variables, known)
    ]
    wrong += environment.without_prefix(found[".env"], [name for of in found.values() for name in of], known)
    if wrong:
        raise InvalidInput("; ".join(wrong))


def load() -> Settings:
    """The settings of this process. Raises InvalidInput, whose text lists all problems in one line."""
    try:
        _refuse_unknown()
        return Settings()
    except ValidationError as error:
        wrong = (
            f"{PREFIX}{'.'.join(map(str, item['loc'])).upper()}: {_said(item)}" for item in error.errors()
        )
        raise InvalidInput("; ".join(text.replace(f"{PREFIX}: ", "settings: ") for text in wrong)) from None


def _said(wrong: ErrorDetails) -> str:
    """What is wrong with a value; it is shown if its kind is never a secret."""
    match wrong["type"]:
        case "bool_parsing":
            return f"write true or false, not {wrong['input']!r}"
        case "int_parsing" | "float_parsing" | "literal_error":
            return f"{wrong['msg']}, not {wrong['input']!r}"
        case _:
            return wrong["msg"].removeprefix("Value error, ")


def load_or_exit() -> Settings:
    """The settings, for a module that another program imports: invalid ones end the process with one line."""
    try:
        return load()
    except InvalidInput as error:
        raise refusal(str(error)) from None


def refusal(problem: str) -> SystemExit:
    """Ends a process whose settings cannot be used, with one line: JSON if logs are."""
    if wants_json():
        return SystemExit(json.dumps({"event": "settings.refused", "problem": problem, "level": "critical"}))
    return SystemExit(f"error: {problem}")


def wants_json() -> bool:
    """Whether LOG_FORMAT is json, even if other settings are invalid."""
    variables: list[Mapping[str, str | None]] = [EnvSettingsSource(Settings).env_vars]
    with suppress(InvalidInput):  # a `.env` that is broken says nothing
        variables.insert(0, _variables()[".env"])
    found = [one.get(f"{PREFIX}LOG_FORMAT".lower()) for one in variables]
    return [value.lower() for value in found if value][-1:] == ["json"]
