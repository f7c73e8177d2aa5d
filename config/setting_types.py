"""Types for the fields of Settings: how each kind of value is parsed, and what is refused."""

import base64
import ipaddress
import ssl
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from config import broker
from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import parse_callback_url, without_userinfo
from dispatcher.rules.networks import nat64_prefix
from dispatcher.rules.source_addresses import source_addresses
from dispatcher.signing import key_of
from dispatcher.store.archive.url import check_url
from dispatcher.store.redis_url import split_url
from dispatcher.store.topology import Topology

FERNET_KEY_BYTES = 32
NEW_FERNET_KEY = "head -c 32 /dev/urandom | base64 | tr +/ -_"
"""The shell command that makes a key for SECRET_KEYS."""


def fernet_keys(value: SecretStr | None) -> list[str]:
    """The keys of SECRET_KEYS, newest first."""
    return [key.strip() for key in value.get_secret_value().split(",") if key.strip()] if value else []


def _parts(value: object) -> object:
    """Splits a text at commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def none_if_empty(value: object) -> object:
    """None for an empty text."""
    return None if value == "" else value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        ipaddress.ip_network(network)
    return value


CONSOLE_URL = "write https://HOST, as browsers reach it; https://HOST/console where `dispatcher api --console` serves it"


def _console_url(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:  # its text quotes a part of the URL
        raise ValueError(CONSOLE_URL) from None
    is_local = url.hostname in ("localhost", "127.0.0.1", "::1")
    is_plain = not (url.query or url.fragment or url.username) and url.path in (
        "",
        "/",
        "/console",
        "/console/",
    )
    if (
        url.scheme not in ("https", "http")
        or not url.hostname
        or not is_plain
        or not value.isprintable()
        or " " in value
    ):
        raise ValueError(CONSOLE_URL)
    if not url.hostname.isascii():
        raise ValueError("write the host as browsers send it, in ASCII (xn--…)")
    if port == 0:
        raise ValueError("port 0 is none")
    if url.scheme == "http" and not is_local:
        raise ValueError("write https://: keys and sessions would be readable on their way")
    return value.rstrip("/")


ROLES = "viewer", "operator", "admin"


def _roles(value: tuple[str, ...]) -> tuple[str, ...]:
    for one in value:
        role, colon, name = one.partition(":")
        if role not in ROLES or not (colon and name):
            raise ValueError(f"write {', '.join(f'{role}:NAME' for role in ROLES)}, not {one!r}")
    return value


def _nat64_prefixes(value: tuple[str, ...]) -> tuple[str, ...]:
    for prefix in value:
        nat64_prefix(prefix)
    return value


def _source_addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    source_addresses(value)
    return value


def _name_servers(value: tuple[str, ...]) -> tuple[str, ...]:
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


def _fernet(value: SecretStr | None) -> SecretStr | None:
    """Checks what cryptography's Fernet would check, without loading it for every command."""
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


def _signing_secret(value: SecretStr | None) -> SecretStr | None:
    if value:
        key_of(value.get_secret_value())
    return value


def _http_url(value: SecretStr | None) -> SecretStr | None:
    if value:
        _check_http(value.get_secret_value())
    return value


def _proxy_url(value: SecretStr | None) -> SecretStr | None:
    """As `_http_url`, but a user and a password are allowed."""
    if value:
        url = value.get_secret_value()
        split_url(url)
        _check_http(without_userinfo(url)[0])
    return value


def _check_http(url: str) -> None:
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https:// and name a host")
    try:
        parse_callback_url(url, allow_http=True)
    except InvalidInput as error:
        raise ValueError(str(error).removeprefix("callback ")) from None


def _redis_url(value: SecretStr) -> SecretStr:
    Topology.parse(value.get_secret_value()).check_files()
    return value


def _broker_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        where = broker.redis_of(value.get_secret_value())
        if where:
            where.check_files()
    return value


def _archive_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        check_url(value.get_secret_value())
    return value


def _authorities(value: str | None) -> str | None:
    if value:
        try:
            ssl.create_default_context(cafile=value)
        except OSError as error:
            raise ValueError(f"cannot be used: {error.strerror or error}") from None
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


_EMPTY: Any = BeforeValidator(none_if_empty)
_COMMAS: Any = BeforeValidator(_parts)

LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]
LogFormat = Annotated[Literal["auto", "console", "json"], BeforeValidator(_lower)]
MAX_SECONDS = 1e9
"""Some 30 years. What is much longer overflows timers and times in Redis."""

Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
Networks = Annotated[tuple[str, ...], NoDecode, _COMMAS, AfterValidator(_networks)]
ConsoleUrl = Annotated[str | None, _EMPTY, AfterValidator(_console_url)]
Roles = Annotated[tuple[str, ...], NoDecode, _COMMAS, AfterValidator(_roles)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Nat64Prefixes = Annotated[tuple[str, ...], NoDecode, _COMMAS, AfterValidator(_nat64_prefixes)]
Ports = Annotated[tuple[Annotated[int, Field(ge=1, le=65_535)], ...], NoDecode, _COMMAS]
NameServers = Annotated[tuple[str, ...], NoDecode, _COMMAS, AfterValidator(_name_servers)]
SourceAddresses = Annotated[tuple[str, ...], NoDecode, _COMMAS, AfterValidator(_source_addresses)]
FernetKeys = Annotated[SecretStr | None, _EMPTY, AfterValidator(_fernet)]
SigningSecret = Annotated[SecretStr | None, _EMPTY, AfterValidator(_signing_secret)]
HttpUrl = Annotated[SecretStr | None, _EMPTY, AfterValidator(_http_url)]
ProxyUrl = Annotated[SecretStr | None, _EMPTY, AfterValidator(_proxy_url)]
RedisServer = Annotated[SecretStr, AfterValidator(_redis_url)]
Broker = Annotated[SecretStr | None, _EMPTY, AfterValidator(_broker_url)]
ArchiveUrl = Annotated[SecretStr | None, _EMPTY, AfterValidator(_archive_url)]
Authorities = Annotated[str | None, _EMPTY, AfterValidator(_authorities)]
"""A file of certificate authorities."""
