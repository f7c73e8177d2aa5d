"""Every setting, once: default, unit, meaning. How a value is read is in `kinds.py`; `.env.example` and the README's table are made from here."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from config import environment
from config.environment import PREFIX
from config.kinds import (
    Authorities,
    Broker,
    FernetKeys,
    HttpUrl,
    NameServers,
    Nat64Prefixes,
    Networks,
    Ports,
    Positive,
    ProxyUrl,
    RedisServer,
    SigningSecret,
)
from dispatcher.errors import InvalidInput
from dispatcher.store.connection import safe_url


class Settings(BaseSettings):
    """Read from the environment (prefix `DISPATCHER_`) and `.env`. An empty value there is as if it was not there."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    redis_url: RedisServer = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis that holds queue and ledger (redis://, rediss://, unix://)",
    )
    redis_ca_file: Authorities = Field(
        None,
        description="file of certificate authorities (PEM) to trust for rediss:// beside the system's; empty: none",
    )
    broker_url: Broker = Field(None, description="Celery's broker; empty: the same Redis")
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = Field(
        "dispatcher", description="what every Redis key starts with"
    )
    max_attempts: Annotated[int, Field(ge=1, le=20)] = Field(5, description="POSTs per callback, in all")
    backoff_base_seconds: Positive = Field(15, description="wait after the first attempt")
    backoff_factor: Annotated[float, Field(ge=1)] = Field(
        16, description="each further wait is this many times longer"
    )
    backoff_jitter: Annotated[float, Field(ge=0, le=1)] = Field(0.1, description="waits vary by ± this share")
    expiry_seconds: Annotated[int, Field(ge=1, le=604_800)] = Field(
        172_800, description="age at which a callback is given up, where the status change sets no ttlSeconds"
    )
    request_timeout_seconds: Positive = Field(10, description="one attempt, from DNS to the last byte")
    retry_after_max_seconds: Annotated[float, Field(ge=0)] = Field(
        3600, description="longest Retry-After that is heeded"
    )
    max_concurrency: Annotated[int, Field(ge=1, le=1000)] = Field(
        20, description="POSTs in flight to one endpoint, where the workspace sets none"
    )
    max_in_flight: Annotated[int, Field(ge=1)] = Field(4000, description="POSTs in flight from one worker")
    allow_http: bool = Field(False, description="allow callback URLs with http://")
    allowed_networks: Networks = Field(
        (),
        description="networks that may be connected to though they are not public, e.g. 127.0.0.0/8,10.1.0.0/16",
    )
    denied_networks: Networks = Field(
        (),
        description="networks that no callback may go to, whatever else is allowed, e.g. 203.0.113.0/24,2001:db8:5::/48",
    )
    nat64_prefixes: Nat64Prefixes = Field(
        (),
        description="prefixes of this network's NAT64 beside 64:ff9b::/96; the IPv4 address inside is what is checked",
    )
    allowed_ports: Ports = Field((), description="ports that may be connected to; empty: any")
    proxy_url: ProxyUrl = Field(
        None,
        description="egress proxy that makes all connections and guards addresses itself (e.g. smokescreen); empty: none",
    )
    dns_servers: NameServers = Field(
        (),
        description="name servers that look up callback URLs' names, e.g. 10.0.0.53,[fd00::53]:5353; empty: the system's",
    )
    ca_file: Authorities = Field(
        None, description="file of certificate authorities (PEM) to trust beside the system's; empty: none"
    )
    secret_keys: FernetKeys = Field(
        None,
        description="Fernet keys that encrypt signing secrets in Redis, newest first, comma-separated; empty: readable",
    )
    secret_grace_seconds: Annotated[int, Field(ge=0, le=2_592_000)] = Field(
        86_400, description="how long an old secret goes on signing after `workspace rotate-secret`"
    )
    ledger_retention_seconds: Annotated[int, Field(ge=1)] = Field(
        604_800,
        description="how long the ledger remembers a callback after its end; at least the longest expiry",
    )
    status_retention_seconds: Annotated[int, Field(ge=0)] = Field(
        604_800,
        description="how long the status API knows a message after its last status change; 0: nothing is kept for it",
    )
    delivered_body_seconds: Annotated[int, Field(ge=0)] = Field(
        3600, description="how long a delivered body is kept"
    )
    max_waiting_per_endpoint: Annotated[int, Field(ge=0)] = Field(
        0,
        description="callbacks that may wait for one endpoint; newer ones go to `rejected` (endpoint_full); 0: no limit",
    )
    turn_seconds: Positive = Field(
        5, description="how long one worker serves one endpoint before others get a turn"
    )
    lease_seconds: Positive = Field(
        30, description="how long a claimed callback is a worker's own; at least the request time-out + 2 s"
    )
    wake_seconds: Positive = Field(0.25, description="how often a worker looks for what is due")
    breaker_failures: Annotated[int, Field(ge=1)] = Field(
        10, description="failures in a row (down or overloaded) after which an endpoint pauses"
    )
    breaker_pause_seconds: Positive = Field(
        10, description="first pause of an endpoint; each failed probe doubles it"
    )
    breaker_max_pause_seconds: Positive = Field(600, description="longest pause of an endpoint")
    remote_control: bool = Field(
        False,
        description="let Celery's remote control (celery inspect, celery control) reach workers; whoever can write to the "
        "broker can then stop them",
    )
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        0, description="port at which each worker shows its metrics to Prometheus; 0: none"
    )
    api_rate_per_second: Annotated[int, Field(ge=1, le=10_000)] = Field(
        50, description="calls a second with one API key, where the key sets none"
    )
    api_max_queued: Annotated[int, Field(ge=1)] = Field(
        100_000,
        description="status changes on the queue above which POST /v1/status-changes takes no more for now (503)",
    )
    api_request_seconds: Positive = Field(
        30, description="one call of the API, from its first byte to the last of its answer; then it is cut"
    )
    api_max_connections: Annotated[int, Field(ge=1, le=100_000)] = Field(
        500, description="connections to one process of the API; more are told 503"
    )
    api_docs: bool = Field(False, description="show the API's documentation at /docs")
    webhook_changes_per_minute: Annotated[int, Field(ge=1, le=10_000)] = Field(
        10, description="changes of a workspace's callback URL by its customer a minute (Qlara's webhook)"
    )
    alert_url: HttpUrl = Field(
        None,
        description="the operator's own URL, told once a minute of what ended failed or expired, of endpoints that are "
        "down and of falling success rates; empty: log events only",
    )
    alert_secret: SigningSecret = Field(
        None, description="signs those POSTs as callbacks are signed (whsec_…); empty: they are not signed"
    )
    alert_down_seconds: Positive = Field(
        900, description="how long an endpoint does not answer before that is told"
    )
    alert_success_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.9,
        description="delivered share of a workspace's ends, this hour and the last, below which that is told",
    )
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = Field(
        "INFO", description="DEBUG, INFO, WARNING or ERROR"
    )
    log_format: Annotated[str, Field(pattern="^(auto|console|json)$")] = Field(
        "auto", description="console, json, or auto: console on a terminal, else json"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.lease_seconds < self.request_timeout_seconds + 2:
            raise ValueError(
                f"LEASE_SECONDS ({self.lease_seconds:g}) must be at least REQUEST_TIMEOUT_SECONDS + 2 "
                f"({self.request_timeout_seconds + 2:g}), or a callback could be sent twice at once"
            )
        longest = max(self.expiry_seconds, 604_800)
        if self.ledger_retention_seconds < longest:
            raise ValueError(
                f"LEDGER_RETENTION_SECONDS ({self.ledger_retention_seconds}) must be at least the longest expiry "
                f"a status change may have ({longest}), or a repeated eventId could be sent twice"
            )
        return self

    @property
    def celery_url(self) -> str:
        """Celery's broker, with its password."""
        return (self.broker_url or self.redis_url).get_secret_value()

    def shown(self) -> dict[str, Any]:
        """The settings by their environment names, secrets hidden and URLs without credentials."""
        found = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name == "alert_url" and value is not None:  # its path may be what lets in
                value = safe_url(value.get_secret_value()).partition("://")[2].partition("/")[0] or "********"
            elif name.endswith("_url") and value is not None:
                value = safe_url(value.get_secret_value())
            elif isinstance(value, SecretStr):
                value = "********"
            found[PREFIX + name.upper()] = list(value) if isinstance(value, tuple) else value
        return found


def names() -> list[str]:
    """The names of all settings, as the environment has them."""
    return [PREFIX + name.upper() for name in Settings.model_fields]


def sources() -> dict[str, str]:
    """Where each setting that is not at its default has its value from: the environment, or .env."""
    found: dict[str, str] = {}
    for where, variables in _variables().items():
        found |= {name.upper(): where for name in variables if name.upper() in names()}
    return found


def _variables() -> dict[str, Mapping[str, str | None]]:
    """What is set, by where; the later ones win. Raises UnicodeDecodeError."""
    return {
        ".env": DotEnvSettingsSource(Settings).env_vars,
        "the environment": EnvSettingsSource(Settings).env_vars,
    }


def _refuse_unknown() -> None:
    """Raises InvalidInput for names that nobody reads: a typo would leave a setting at its default."""
    known = names()
    wrong = [
        environment.problem(name, where, known)
        for where, variables in _variables().items()
        for name in environment.unknown(variables, known)
    ]
    if wrong:
        raise InvalidInput("; ".join(wrong))


def load() -> Settings:
    """The settings of this process. Raises InvalidInput, in one line, for what is wrong with them."""
    try:
        _refuse_unknown()
        return Settings()
    except UnicodeDecodeError:
        raise InvalidInput(".env is not UTF-8; write it as that, or take it away") from None
    except ValidationError as error:
        wrong = (
            f"{PREFIX}{'.'.join(map(str, item['loc'])).upper()}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise InvalidInput("; ".join(text.replace(f"{PREFIX}: ", "settings: ") for text in wrong)) from None


def load_or_exit() -> Settings:
    """The settings, for a module that another program imports: wrong ones end it with one line."""
    try:
        return load()
    except InvalidInput as error:
        if wants_json():
            line = {"event": "settings.refused", "problem": str(error), "level": "critical"}
            raise SystemExit(json.dumps(line)) from None
        raise SystemExit(f"error: {error}") from None


def wants_json() -> bool:
    """Whether LOG_FORMAT says json, though other settings may be wrong."""
    try:
        found = [variables.get(f"{PREFIX}LOG_FORMAT".lower()) for variables in _variables().values()]
    except UnicodeDecodeError:
        return False
    return [value for value in found if value][-1:] == ["json"]
