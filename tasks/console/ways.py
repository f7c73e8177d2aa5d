"""The ways to log in: a console key, a link that the command prints, an identity provider, or a proxy's header."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from starlette.requests import Request

from config.settings import Settings
from dispatcher.store.sessions import Session
from tasks.console.access import Person, Role

if TYPE_CHECKING:
    from tasks.console.oidc import Oidc

ANYONE = "*"
"""In DISPATCHER_CONSOLE_ROLES: every user whom the provider or the proxy vouches for."""
GROUP = "group:"
"""Before a group's name in DISPATCHER_CONSOLE_ROLES: so nobody gets a group's role by naming themselves like it."""
MOST_NAME = 200
OPERATORS_SECONDS = 12 * 3600
"""How long an operator's session is."""


@dataclass(frozen=True)
class Ways:
    """What this process accepts."""

    token: str = field(default="", repr=False)
    """The text of the link that the command prints; empty: it prints none."""
    oidc: "Oidc | None" = None
    proxies: Sequence[IPv4Network | IPv6Network] = ()
    user_header: str = ""
    groups_header: str = ""
    roles: Mapping[str, Role] = field(default_factory=dict)
    """Users and groups -> role."""

    @classmethod
    def of(cls, settings: Settings, token: str = "", oidc: "Oidc | None" = None) -> "Ways":
        """The ways that the settings name."""
        return cls(
            token,
            oidc,
            [ip_network(one) for one in settings.console_proxies],
            settings.console_user_header,
            settings.console_groups_header,
            roles_of(settings.console_roles),
        )

    def role_of(self, user: str, groups: Sequence[str]) -> Role | None:
        """The highest role that a user has by name, by a group, or as anyone; None: none."""
        named = (*([] if user.startswith(GROUP) else [user]), *(GROUP + one for one in groups), ANYONE)
        found = [self.roles[name] for name in named if name in self.roles]
        return max(found, default=None)

    def by_token(self, given: str, now_ms: int) -> Session | None:
        """The session of somebody who has the printed link: they run the command, and may do everything."""
        if not self.token or not hmac.compare_digest(given.encode(), self.token.encode()):
            return None
        return new_session("link", "printed link", Role.ADMIN, now_ms)

    def by_proxy(self, request: Request) -> Person | None:
        """Who a listed proxy says that asks; None if none does."""
        if not self.proxies or request.client is None or not self._is_proxy(request.client.host):
            return None
        user = self._one(request, self.user_header)
        if not 0 < len(user) <= MOST_NAME or not user.isprintable():
            return None
        groups = [one.strip() for one in self._one(request, self.groups_header).split(",")]
        role = self.role_of(user, [one for one in groups if one])
        return Person(f"proxy:{user}", user, role, by_proxy=True) if role else None

    @staticmethod
    def _one(request: Request, header: str) -> str:
        """The value of a header that came once. Of several one may be the client's own: then none counts."""
        values = request.headers.getlist(header)
        return values[0].strip() if len(values) == 1 else ""

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:  # a Unix socket
            return False
        return any(found in network for network in self.proxies if network.version == found.version)


def new_session(who: str, name: str, role: Role, now_ms: int) -> Session:
    """An operator's session that begins now."""
    return Session(who, name, role.word, now_ms, now_ms + OPERATORS_SECONDS * 1000)


def roles_of(given: Sequence[str]) -> dict[str, Role]:
    """The roles of the setting: `admin:alice@example.com` and so on."""
    found: dict[str, Role] = {}
    for one in given:
        word, _, name = one.partition(":")
        role = Role.of(word)
        assert role  # the setting was checked
        found[name] = max(role, found.get(name, role))
    return found
