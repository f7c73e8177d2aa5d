"""Which settings of the console go together."""

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr


class _Console(Protocol):
    """The settings that these rules are about."""

    @property
    def console_url(self) -> str | None: ...
    @property
    def console_roles(self) -> Sequence[str]: ...
    @property
    def console_proxies(self) -> Sequence[str]: ...
    @property
    def console_oidc_issuer(self) -> SecretStr | None: ...
    @property
    def console_oidc_client_id(self) -> str: ...


def problem(settings: _Console) -> str:
    """What does not fit together, and what to set; empty if nothing is wrong."""
    if (settings.console_proxies or settings.console_oidc_issuer) and not settings.console_roles:
        return "set DISPATCHER_CONSOLE_ROLES too: without it nobody whom a proxy or the provider names has a role"
    if settings.console_oidc_issuer and not _is_private(settings.console_oidc_issuer.get_secret_value()):
        return "write DISPATCHER_CONSOLE_OIDC_ISSUER with https://: who can change its answers could log in as anyone"
    if settings.console_oidc_issuer and not settings.console_oidc_client_id:
        return "DISPATCHER_CONSOLE_OIDC_ISSUER needs DISPATCHER_CONSOLE_OIDC_CLIENT_ID"
    if settings.console_oidc_issuer and not settings.console_url:
        return "DISPATCHER_CONSOLE_OIDC_ISSUER needs DISPATCHER_CONSOLE_URL, to which the provider sends people back"
    return ""


def _is_private(issuer: str) -> bool:
    """Whether nobody on the way can change what an issuer answers: https, or this machine."""
    url = urlsplit(issuer)
    return url.scheme.lower() == "https" or url.hostname in ("localhost", "127.0.0.1", "::1")
