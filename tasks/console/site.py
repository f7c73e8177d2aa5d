"""The table of pages: each has a path, who may ask for it, and a function that answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import Response

from tasks.console.access import Role

if TYPE_CHECKING:
    from tasks.console.asking import Ask

PORTAL = "/portal"
"""What stands before the paths of customers' pages."""

Answer = Callable[["Ask"], Awaitable[Response]]


@dataclass(frozen=True)
class Page:
    """A page, or an action of one."""

    path: str
    answer: Answer
    role: Role
    """The least role that may ask for it; CUSTOMER: it is a page of the portal alone."""
    customers: bool
    """Whether it is in the portal too, for a customer's own workspace."""
    methods: tuple[str, ...]
    public: bool
    """Whether nobody need be logged in."""
    has_long_form: bool = False
    """Whether what people paste into its form may be long."""


PAGES: list[Page] = []


def page(
    path: str, *, role: Role = Role.VIEWER, customers: bool = False, public: bool = False
) -> Callable[[Answer], Answer]:
    """Adds a page that is looked at."""
    return _adding(path, role, customers, ("GET",), public)


def action(
    path: str,
    *,
    role: Role = Role.OPERATOR,
    customers: bool = False,
    public: bool = False,
    has_long_form: bool = False,
) -> Callable[[Answer], Answer]:
    """Adds something that a form does."""
    return _adding(path, role, customers, ("POST",), public, has_long_form)


def _adding(
    path: str,
    role: Role,
    customers: bool,
    methods: tuple[str, ...],
    public: bool,
    has_long_form: bool = False,
) -> Callable[[Answer], Answer]:
    def add(answer: Answer) -> Answer:
        PAGES.append(Page(path, answer, role, customers, methods, public, has_long_form))
        return answer

    return add
