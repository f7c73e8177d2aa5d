"""Who may do what: roles, persons, and the rules on requests from other sites."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import urlsplit

from dispatcher.store.across.absent import Absent
from dispatcher.store.audit import Who
from dispatcher.store.sessions import Session

SAFE_METHODS = frozenset({"GET", "HEAD"})

ANY_SITE = "*"
"""Who may frame a page of the portal that only says why there is none: it shows nothing of anybody, and nothing can be clicked.

Without it the frame of a site whose session is over would be blank.
"""
NOT_NOW = "not available now, try again"
"""What a customer is told of a server of ours that does not answer."""


def missing(absent: Absent, *, for_customer: bool) -> str:
    """What is said where partitions did not answer, so that what was read may lack something; empty if all did."""
    if not absent.partitions:
        return ""
    which = "a server of ours does not answer" if for_customer else absent.named()
    return f"Something may be missing here: {which}."


class Role(IntEnum):
    """What a person may do; each role may do what those before it may."""

    CUSTOMER = 0
    """Sees and acts on one workspace, in the portal."""
    VIEWER = 1
    """Sees everything, with numbers and bodies masked."""
    OPERATOR = 2
    """Also sees numbers and bodies, and acts on callbacks and endpoints."""
    ADMIN = 3
    """Also changes secrets, and ends others' sessions."""

    @property
    def word(self) -> str:
        """As it is written in settings and commands."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> "Role | None":
        """The role of a word."""
        return next((one for one in cls if one.word == word), None)


OPERATORS = tuple(one.word for one in Role if one is not Role.CUSTOMER)
"""The roles that operators can have, in words."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks."""

    who: str
    name: str
    role: Role
    workspace: str = ""
    """A customer's only workspace."""
    frame: str = ""
    """The site that may show a customer's pages in a frame."""
    by_proxy: bool = False
    """A proxy says who it is with each request: there is no session to end here."""
    since_ms: int = 0
    """When a customer's workspace was made: what one of the same name did before is of somebody else. 0: it cannot be read."""

    @classmethod
    def of(cls, session: Session) -> "Person | None":
        """The person of a session; None for a role of another version."""
        role = Role.of(session.role)
        if role is None or (role is Role.CUSTOMER) != bool(session.workspace):
            return None
        return cls(session.who, session.name, role, session.workspace, session.frame)

    @property
    def sees_numbers(self) -> bool:
        """Whether phone numbers and bodies are shown: a customer's are their own."""
        return self.role is not Role.VIEWER

    def may(self, role: Role) -> bool:
        """Whether the person has at least this role. A customer has none of an operator's."""
        return self.role >= role

    @property
    def author(self) -> Who:
        """As the log of actions names them."""
        if self.role is Role.CUSTOMER:
            return Who("portal", f"{self.name} (portal:{self.workspace})")
        return Who("console", f"{self.name} ({self.who})" if self.name != self.who else self.name)


def is_from_elsewhere(method: str, headers: Mapping[str, str], host: str) -> bool:
    """Whether a request that may change something comes from another site's page, or cannot prove that it does not.

    Browsers send `Sec-Fetch-Site` (W3C Fetch Metadata §2.4); those that do not send `Origin` with each POST (Fetch §3.2).
    """
    if method in SAFE_METHODS:
        return False
    if site := headers.get("sec-fetch-site"):
        return site != "same-origin"
    try:
        return urlsplit(headers.get("origin", "")).netloc != host or not host
    except ValueError:
        return True


def safe_path(given: str) -> str:
    """A path of ours to go to after the log-in; `/` for anything that could lead to another site."""
    if not given.startswith("/") or given.startswith("//") or "\\" in given:
        return "/"
    return given if given.isprintable() and not urlsplit(given).netloc else "/"
