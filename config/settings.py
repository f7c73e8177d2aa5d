"""Every setting, once: default, unit, meaning. `.env.example` and the README table are made from here."""

import base64
import ipaddress
import json
import ssl
from collections.abc import Mapping
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
)

from config import broker, environment
from config.environment import PREFIX
from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import parse_callback_url, without_userinfo
from dispatcher.rules.networks import nat64_prefix
from dispatcher.signing import key_of
from dispatcher.store.connection import safe_url
from dispatcher.store.redis_url import RedisUrl, split_url

Commas = NoDecode
Positive = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=1, le=65_535)]


FERNET_KEY_BYTES = 32
NEW_FERNET_KEY = "head -c 32 /dev/urandom | base64 | tr +/ -_"
"""Makes a key for SECRET_KEYS, in a shell."""


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

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis that holds queue and ledger (redis://, rediss://, unix://)",
    )
    redis_ca_file: str | None = Field(
        None,
        description="file of certificate authorities (PEM) to trust for rediss:// beside the system's; empty: none",
    )
    broker_url: SecretStr | None = Field(None, description="Celery's broker; empty: the same Redis")
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
    allowed_networks: Annotated[tuple[str, ...], Commas] = Field(
        (),
        description="networks that may be connected to though they are not public, e.g. 127.0.0.0/8,10.1.0.0/16",
    )
    denied_networks: Annotated[tuple[str, ...], Commas] = Field(
        (),
        description="networks that no callback may go to, whatever else is allowed, e.g. 203.0.113.0/24,2001:db8:5::/48",
    )
    nat64_prefixes: Annotated[tuple[str, ...], Commas] = Field(
        (),
        description="prefixes of this network's NAT64 beside 64:ff9b::/96; the IPv4 address inside is what is checked",
    )
    allowed_ports: Annotated[tuple[Port, ...], Commas] = Field(
        (), description="ports that may be connected to; empty: any"
    )
    proxy_url: SecretStr | None = Field(
        None,
        description="egress proxy that makes all connections and guards addresses itself (e.g. smokescreen); empty: none",
    )
    dns_servers: Annotated[tuple[str, ...], Commas] = Field(
        (),
        description="name servers that look up callback URLs' names, e.g. 10.0.0.53,[fd00::53]:5353; empty: the system's",
    )
    ca_file: str | None = Field(
        None, description="file of certificate authorities (PEM) to trust beside the system's; empty: none"
    )
    secret_keys: SecretStr | None = Field(
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
    alert_url: SecretStr | None = Field(
        None,
        description="the operator's own URL, told once a minute of what ended failed or expired, of endpoints that are "
        "down and of falling success rates; empty: log events only",
    )
    alert_secret: SecretStr | None = Field(
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

    @field_validator(
        "allowed_networks", "denied_networks", "nat64_prefixes", "allowed_ports", "dns_servers", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator(
        "broker_url",
        "redis_ca_file",
        "secret_keys",
        "proxy_url",
        "ca_file",
        "alert_url",
        "alert_secret",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("allowed_networks", "denied_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value

    @field_validator("nat64_prefixes")
    @classmethod
    def _prefixes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in value:
            nat64_prefix(prefix)
        return value

    @field_validator("dns_servers")
    @classmethod
    def _servers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for server in value:
            parts = urlsplit(f"//{server}" if server.count(":") < 2 or "[" in server else f"//[{server}]")
            try:
                _ = ipaddress.ip_address(parts.hostname or "")
                if parts.port == 0:
                    raise ValueError("port 0")
            except ValueError:
                raise ValueError(
                    f"{server!r} is no name server's address, such as 10.0.0.53 or [fd00::53]:5353"
                ) from None
        return value

    @field_validator("secret_keys")
    @classmethod
    def _fernet_keys(cls, value: SecretStr | None) -> SecretStr | None:
        """What cryptography's Fernet takes, without loading it for every command."""
        if value is None:
            return None
        keys = fernet_keys(value)
        if not keys:
            raise ValueError("names no key; leave it empty for secrets that are readable in Redis")
        for number, key in enumerate(keys, 1):
            try:
                size = len(base64.urlsafe_b64decode(key))
            except ValueError:
                size = 0
            if size != FERNET_KEY_BYTES:
                raise ValueError(
                    f"key {number} of {len(keys)} is no Fernet key, which is 32 bytes in URL-safe base64; "
                    f"make one: {NEW_FERNET_KEY}"
                )
        return value

    @field_validator("alert_secret")
    @classmethod
    def _alert_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value:
            key_of(value.get_secret_value())
        return value

    @field_validator("proxy_url", "alert_url")
    @classmethod
    def _http_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if not value:
            return value
        url = value.get_secret_value()
        if info.field_name == "proxy_url":
            split_url(url)
            url, _ = without_userinfo(url)
        if not url.lower().startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https:// and name a host")
        try:
            parse_callback_url(url, allow_http=True)
        except InvalidInput as error:
            raise ValueError(str(error).removeprefix("callback ")) from None
        return value

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _redis(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            url = value.get_secret_value()
            where = RedisUrl.parse(url) if info.field_name == "redis_url" else broker.redis_of(url)
            if where:
                where.check_files()
        return value

    @field_validator("ca_file", "redis_ca_file")
    @classmethod
    def _authorities(cls, value: str | None) -> str | None:
        if value:
            try:
                ssl.create_default_context(cafile=value)
            except OSError as error:
                raise ValueError(f"cannot be used: {error.strerror or error}") from None
        return value

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


def fernet_keys(value: SecretStr | None) -> list[str]:
    """The keys of SECRET_KEYS, newest first."""
    return [key.strip() for key in value.get_secret_value().split(",") if key.strip()] if value else []


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


def rows() -> list[tuple[str, str, str]]:
    """Name, default and meaning of every setting, for documents."""
    return [
        (PREFIX + name.upper(), _default(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def env_example() -> str:
    """The text of `.env.example`."""
    head = "# Every setting with its default. Copy to .env and change what you need.\n"
    return head + "".join(f"\n# {meaning}\n# {name}={default}\n" for name, default, meaning in rows())


def readme_table() -> str:
    """The table of the README."""
    lines = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |" for name, default, meaning in rows()
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *lines]) + "\n"


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or value == () else f"{value:g}" if isinstance(value, float) else str(value)
