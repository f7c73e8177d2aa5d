"""The customers' portal over plain HTTP: a customer sees and changes one workspace, and nothing of who runs it."""

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from dispatcher.errors import RedisUnavailable
from dispatcher.store.keys import Keys
from tasks.actions.event_pages import cursor_of
from tasks.actions.events import Filter
from tasks.console import pages
from tasks.console.access import Person, Role
from tasks.console.jobs import Chosen, Job, Jobs, Progress
from tasks.console.pings import MOST_OF_WORKSPACE
from tasks.console.portal_rate import MOST
from tasks.console.site import PAGES
from tests.acceptance.stack import Stack, free_port, running_stack, wait_until
from tests.console.portal_world import (
    JANE,
    SECRETS,
    Portal,
    entered,
    first_rows,
    operators_cookie,
    portal,
    two_customers,
)
from tests.console.world import ask, get, run_apart

assert pages.ALL
CUSTOMERS = [one for one in PAGES if one.customers]
KEYS = Keys()


@dataclass
class Rivals:
    """Two customers of one installation."""

    portal: Portal
    acme: str
    """Cookie of acme's customer."""
    globex: str
    own: list[str]
    """eventIds of acme."""
    others: list[str]
    """eventIds of globex."""
    admin: str
    """Cookie of an operator, for the console."""
    work: dict[str, str]
    """Paths of work that globex's customer (`customer`) and an operator (`operator`) have begun for globex."""

    @property
    def stack(self) -> Stack:
        """What all runs on."""
        return self.portal.stack

    @cached_property
    def endpoint(self) -> str:
        """globex's endpoint that refuses."""
        found = self.stack.cli_json("endpoint", "list", "--workspace", "globex.no")
        return str(found[0]["endpoint"])

    @cached_property
    def markers(self) -> set[str]:
        """What must not be in an answer to acme, unless acme wrote it."""
        return {"globex", "eve@", *SECRETS, *self.others, self.endpoint}


@pytest.fixture(scope="module")
def rivals(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rivals]:
    """acme and globex, a customer of each, and an operator."""
    with two_customers(tmp_path_factory.mktemp("portal")) as (stack, own, others), portal(stack) as found:
        acme, globex = found.customer("acme"), found.customer("globex", "eve@globex.example")
        admin = operators_cookie(found.url, stack)
        work = {
            "customer": found.act("/callbacks/replay", globex, state="failed")[1]["location"],
            "operator": ask(
                "POST",
                f"{found.url}/callbacks/replay",
                {"state": "failed", "workspace": "globex"},
                Cookie=admin,
            )[1]["location"],
        }
        yield Rivals(found, acme, globex, own, others, admin, work)


def tries(of: Rivals) -> dict[tuple[str, str], list[dict[str, str]]]:
    """For each page (GET) and action (POST) of the portal: parameters that name what is another's."""
    event, url = of.others[0], of.endpoint
    named = [{"workspace": "acme", "id": event}, {"workspace": "globex", "id": event}]
    named += [{"workspace": "acme", "id": f"{event}.no"}, {"workspace": "globex", "id": of.own[0]}]
    owners = ["globex", "globex.no", ".globex", "acme.globex", "acme globex", " globex", "acme\tglobex"]
    where = [{"owner": one, "url": url} for one in [*owners, "acme", "acme.no"]]
    where.append({"owner": ".", "url": f"globex.no {url}"})
    filters = [
        {"workspace": "globex"},
        {"workspace": "globex", "state": "delivered"},
        {"message": "m90"},
        {"message": "m100", "workspace": "globex"},
        {"endpoint": url},
        {"endpoint": url, "subscription": "no"},
        {"workspace": "acme", "endpoint": url, "state": "waiting"},
        {"subscription": "globex"},
        {"subscription": "no", "workspace": "globex"},
    ]
    words = [
        *SECRETS,
        "globex",
        *of.others[:2],
        f"{event}.no",
        url,
        "233299999999",
        f"acme:{event}",
        f"../{event}",
    ]
    subscriptions = [{"workspace": w, "subscription": s} for w in ("globex", "") for s in ("default", "no")]
    subscriptions += [{"workspace": "acme", "subscription": s} for s in ("globex", "globex.no", "../globex")]
    return {
        ("GET", "/"): [{"workspace": "globex"}],
        ("GET", "/enter"): [{"workspace": "globex"}, {"link": event}],
        ("GET", "/account"): [{"workspace": "globex"}],
        ("POST", "/logout"): [],  # it ends the session: tried on its own
        ("GET", "/log"): [{"workspace": "globex"}, {"workspace": "acme"}],
        ("GET", "/search"): [{"q": word} for word in words] + [{"q": "m90", "workspace": "globex"}],
        ("GET", "/work"): [{}],
        ("GET", "/work/{id}"): [{}],
        ("POST", "/work/{id}/begin"): [{"count": str(count)} for count in (0, 56, 112)],
        ("POST", "/work/{id}/stop"): [{}],
        ("GET", "/live"): [{"workspace": "globex"}, {"q": url}, {"q": event}, {}],
        ("GET", "/live/events"): [{"workspace": "globex"}],
        ("GET", "/callbacks"): filters,
        ("POST", "/callbacks/replay"): filters,
        ("GET", "/callback"): named,
        ("POST", "/callback/replay"): named,
        ("GET", "/workspace"): [{"id": "globex"}, {"id": "globex", "span": "week"}, {"workspace": "globex"}],
        ("GET", "/subscription"): subscriptions,
        ("POST", "/subscription/rotate"): subscriptions,
        ("POST", "/subscription/pause"): subscriptions,
        ("POST", "/subscription/resume"): subscriptions,
        ("POST", "/subscription/ping"): subscriptions,
        ("GET", "/endpoints"): [{"workspace": "globex"}, {"q": url}, {"q": "rival"}, {"from": "0"}],
        ("GET", "/endpoint"): where,
        ("POST", "/endpoint/retry"): where,
        ("POST", "/endpoint/ping"): where,
        ("GET", "/signature"): [{"workspace": "globex"}],
        ("POST", "/signature"): [
            {"headers": "webhook-id: a\nwebhook-timestamp: 1\nwebhook-signature: v1,x", "body": "b"} | more
            for more in (
                {"workspace": "globex"},
                {"subscription": "globex"},
                {"workspace": "globex", "secret": "s"},
            )
        ],
    }


def followed(of: Rivals, status: int, headers: dict[str, str], text: str) -> tuple[int, str]:
    """The page that an answer leads to, if it leads to one; all of it belongs to what the customer sees."""
    if status != 303:
        return status, text
    assert headers["location"].startswith("/portal/"), headers["location"]
    status, _, more = of.portal.look(headers["location"].removeprefix("/portal"), of.acme)
    if "/work/" in headers["location"]:
        path = headers["location"].removeprefix("/portal")
        wait_until(lambda: "Counting" not in of.portal.look(path, of.acme)[2], 30, "counted")
        status, _, more = of.portal.look(path, of.acme)
        of.portal.act(f"{path}/stop", of.acme)
    return status, text + headers["location"] + more


def test_every_page_and_action_is_tried_with_anothers_ids(rivals: Rivals) -> None:
    """A page that is added to the portal is added to `tries` too."""
    assert {(method, one.path) for one in CUSTOMERS for method in one.methods} == set(tries(rivals))


@pytest.mark.parametrize("page", CUSTOMERS, ids=lambda one: f"{one.methods[0]} {one.path}")
def test_nothing_of_another_is_shown_or_changed(rivals: Rivals, page: Any) -> None:
    """Whatever of globex acme's customer names, no answer has more of globex than was asked, and globex stays as it was."""
    before = state_of(rivals)
    paths = [page.path]
    if "{id}" in page.path:
        paths = [page.path.replace("{id}", one.rpartition("/")[2]) for one in rivals.work.values()]
    for path in paths:
        for given in tries(rivals)[page.methods[0], page.path]:
            if page.methods == ("GET",):
                answer = rivals.portal.look(f"{path}?{urlencode(given)}", rivals.acme)
            else:
                answer = rivals.portal.act(path, rivals.acme, **given)
            status, text = followed(rivals, *answer)
            asked = " ".join(given.values())
            if page.path == "/work":  # the titles are what this customer wrote in other tests
                text = re.sub(r">[^<]*</a>", "", text)
            shown = {one for one in rivals.markers if one in text and one not in asked}
            assert not shown, (path, given, status, shown)
            assert status < 500, (path, given, status, text)
            if given.get("workspace") == "globex" and page.path not in (
                "/",
                "/account",
                "/enter",
                "/workspace",
            ):
                assert status in (404, 200), (path, given, status)
                assert (
                    status == 404
                    or "globex" not in text.replace("jane@globex", "")
                    or page.path == "/signature"
                )
    assert before == state_of(rivals)


def state_of(of: Rivals) -> tuple[Any, ...]:
    """What an action on globex would change."""
    kept = of.stack.redis
    of_work = [
        re.findall(r'<p[^>]*role="status">(.*?)</p>', get(of.portal.url + path, Cookie=cookie)[2])
        for path, cookie in ((of.work["customer"], of.globex), (of.work["operator"], of.admin))
    ]
    trail = [fields for _, fields in kept.xrevrange(KEYS.audit) if fields[b"workspace"] == b"globex"]
    return kept.hgetall(KEYS.workspace("globex")), trail, of_work


def test_work_of_another_is_not_found(rivals: Rivals) -> None:
    """Neither the other customer's work nor an operator's is there, and its owner finds it untouched."""
    for path in rivals.work.values():
        path = f"/work/{path.rpartition('/')[2]}"
        assert 404 == rivals.portal.look(path, rivals.acme)[0]
        assert 404 == rivals.portal.act(f"{path}/begin", rivals.acme, count="56")[0]
        assert 404 == rivals.portal.act(f"{path}/stop", rivals.acme)[0]
    assert 200 == get(rivals.portal.url + rivals.work["customer"], Cookie=rivals.globex)[0]


def test_cursors_of_another_and_forged_ones_show_nothing_of_another(rivals: Rivals) -> None:
    """Another's cursor is refused; one that is made by hand only says where in one's own list to go on."""
    page = rivals.portal.look("/callbacks?state=failed", rivals.globex)[2]
    (theirs,) = re.findall(r'rel="next" href="([^"]+)"', page)
    after = parse_qs(urlsplit(theirs.replace("&amp;", "&")).query)["after"][0]
    status, _, text = rivals.portal.look(f"/callbacks?{urlencode({'after': after})}", rivals.acme)
    assert 400 == status
    assert not {one for one in rivals.markers if one in text}
    for filter_ in (
        Filter("failed", workspace="acme"),
        Filter("failed", workspace="globex"),
        Filter("failed"),
    ):
        for place in (
            (10**13, "globex", rivals.others[0]),
            (0, "globex", ""),
            (10**13, "", ""),
            (-1, "a", "b"),
        ):
            query = urlencode({"state": "failed", "after": cursor_of(place, filter_)})
            status, _, text = rivals.portal.look(f"/callbacks?{query}", rivals.acme)
            assert status in (200, 400), text
            assert not {one for one in rivals.markers if one in text}, (filter_, place)


def test_search_finds_ones_own_and_nothing_of_another(rivals: Rivals) -> None:
    """The number that both wrote to finds only one's own messages; the other's finds nothing."""
    shared = rivals.portal.look(f"/search?{urlencode({'q': '+233200000001'})}", rivals.acme)
    text = followed(rivals, *shared)[1]
    assert "m0" in text or "m1" in text or "Message" in text
    assert not {one for one in rivals.markers if one in text}
    for word in SECRETS - {"rival-hooks"}:
        assert "Nothing is known" in rivals.portal.look(f"/search?{urlencode({'q': word})}", rivals.acme)[2]
    theirs = rivals.portal.look(f"/search?{urlencode({'q': '+233299999999'})}", rivals.globex)
    assert "m90" in followed_as(rivals, rivals.globex, theirs), "it is there, for whose it is"


def followed_as(of: Rivals, cookie: str, answer: tuple[int, dict[str, str], str]) -> str:
    """An answer's text, or that of the page it leads to."""
    status, headers, text = answer
    return get(of.portal.url + headers["location"], Cookie=cookie)[2] if status == 303 else text


def test_live_attempts_are_ones_own(rivals: Rivals) -> None:
    """Neither the page nor its stream has another's attempts, whatever stands in its URL."""
    made = dict[str, list[str]]()

    def enqueue() -> None:
        made["globex"] = rivals.stack.enqueue(3, first=300, workspace="globex", status="DELIVERED")
        wait_until(lambda: rivals.stack.wait_ended(made["globex"], "globex"), 30, "globex's are over")
        made["acme"] = rivals.stack.enqueue(1, first=400, status="DELIVERED")

    said = first_rows(f"{rivals.portal.url}/portal/live/events", rivals.acme, "/portal/callback", enqueue)
    assert made["acme"][0] in said
    wait_until(
        lambda: made["acme"][0] in rivals.portal.look("/live", rivals.acme)[2], 20, "it is on the page"
    )
    for text in (said, rivals.portal.look("/live", rivals.acme)[2]):
        assert not {one for one in (*rivals.markers, *made["globex"]) if one in text}


def test_each_cookie_opens_only_what_it_is_for(rivals: Rivals) -> None:
    """A customer's session opens no page of the console under any name, an operator's none of the portal."""
    url, admin, acme = rivals.portal.url, rivals.admin.partition("=")[2], rivals.acme.partition("=")[2]
    for path in ("/", "/workspaces", "/workspace?id=acme", "/callbacks", "/account"):
        for cookie in (rivals.acme, f"dispatcher_console={acme}"):
            assert 303 == get(url + path, Cookie=cookie)[0], path
            assert "/login" in get(url + path, Cookie=cookie)[1]["location"]
    for cookie in (
        rivals.admin,
        f"dispatcher_portal={admin}",
        "dispatcher_portal=",
        "dispatcher_portal=x",
        "",
    ):
        status, _, text = rivals.portal.look("/workspace?id=acme", cookie)
        assert 401 == status
        assert "acme" not in text
    assert (
        401 == rivals.portal.act("/subscription/pause", rivals.admin, workspace="acme", subscription="no")[0]
    )


def test_another_sites_page_cannot_act_in_the_portal(rivals: Rivals) -> None:
    """A form that another site's page sends with the customer's cookie is refused."""
    where, form = (
        f"{rivals.portal.url}/portal/subscription/pause",
        {"workspace": "acme", "subscription": "no"},
    )
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "", "Origin": "null"},
    ):
        assert 403 == ask("POST", where, form, Cookie=rivals.acme, **headers)[0]


def test_a_link_opens_once(rivals: Rivals) -> None:
    """HEAD and what fetches ahead do not use it up; the first GET does, and the second says so."""
    link = rivals.portal.link()
    assert 200 == ask("HEAD", link, None)[0]
    assert 503 == get(link, **{"Sec-Purpose": "prefetch;prerender"})[0]
    cookie = entered(link)
    assert 200 == rivals.portal.look("/workspace", cookie)[0]
    status, headers, text = get(link)
    assert 410 == status
    assert "this link was used" in text
    assert "set-cookie" not in headers


def test_a_link_opens_one_session_to_two_who_open_it_at_once(rivals: Rivals) -> None:
    link = rivals.portal.link()
    with ThreadPoolExecutor(8) as together:
        answers = list(together.map(lambda _: get(link), range(8)))
    assert [303] + [410] * 7 == sorted(status for status, _, _ in answers)
    assert 1 == sum("set-cookie" in headers for _, headers, _ in answers)


def test_an_unknown_page_is_shown_in_the_frame_that_the_portal_is_in(rivals: Rivals) -> None:
    """Else the frame would be blank; where nobody is logged in it says so in any frame, and without a frame's link in none."""
    site = "https://site.example"
    framed, plain = entered(rivals.portal.link(frameOrigin=site)), rivals.portal.customer()
    for path, status in (("/nothing", 404), ("/callbacks/replay", 405)):
        for cookie, shown in ((framed, site), ("x=y", "*"), (plain, "'none'")):
            found, headers, _ = rivals.portal.look(path, cookie)
            assert (status, True) == (found, f"frame-ancestors {shown}" in headers["content-security-policy"])
            assert ("x-frame-options" in headers) is (shown == "'none'")


def test_few_test_callbacks_of_a_workspace_are_under_way(rivals: Rivals) -> None:
    """Each waits for its receiver: one more is refused, and others' are sent."""
    stack, answer, gate = rivals.stack, rivals.stack.answer, threading.Event()

    async def waiting(request: Any, number: int) -> Any:
        arrived.append(number)
        while not gate.is_set():
            await asyncio.sleep(0.01)
        return await answer(request, number)

    people = [rivals.portal.customer("globex", f"person-{n}") for n in range(MOST_OF_WORKSPACE + 1)]
    of = {"workspace": "globex", "subscription": "no"}
    where = {
        "owner": "globex.no",
        "url": stack.cli_json("subscription", "show", "globex", "no")["callbackUrl"],
    }
    arrived, stack.answer = list[int](), waiting
    with ThreadPoolExecutor(MOST_OF_WORKSPACE) as together:
        try:
            first = [
                together.submit(rivals.portal.act, "/subscription/ping", one, **of) for one in people[:-1]
            ]
            wait_until(lambda: len(arrived) == MOST_OF_WORKSPACE, 10, "they are under way")
            status, _, text = rivals.portal.act("/subscription/ping", people[-1], **of)
            assert (429, True) == (status, "too many test callbacks are under way" in text)
            refused = rivals.portal.act("/endpoint/ping", people[-1], **where)
            assert 429 == refused[0]
        finally:
            gate.set()
            stack.answer = answer
    assert {200} == {one.result()[0] for one in first}
    assert 200 == rivals.portal.act("/subscription/ping", people[-1], **of)[0]


def test_a_workspaces_customers_change_few_things_a_minute(rivals: Rivals) -> None:
    """Other workspaces' go on, and a session can be ended; what is refused counts for nothing."""
    stack, portal = rivals.stack, rivals.portal
    stack.add_workspace("busy", "qlara")
    one, other = portal.customer("busy", "one"), portal.customer("busy", "other")
    assert 404 == portal.act("/subscription/pause", one, workspace="acme", subscription="no")[0]
    turns = [(what, cookie) for cookie in (one, other) for what in ("pause", "resume")] * (MOST // 4)
    turns += [("pause", one), ("resume", one)][: MOST % 4]
    statuses = [
        portal.act(f"/subscription/{what}", cookie, workspace="busy", subscription="default")[0]
        for what, cookie in turns
    ]
    assert [303] * MOST == statuses
    status, _, text = portal.act("/subscription/pause", one, workspace="busy", subscription="default")
    assert (429, True) == (status, "30 times within a minute" in text)
    assert 303 == portal.act("/subscription/pause", rivals.acme, workspace="acme", subscription="no")[0]
    assert 303 == portal.act("/subscription/resume", rivals.acme, workspace="acme", subscription="no")[0]
    assert 200 == portal.act("/logout", one)[0]


def test_a_full_redis_ends_no_session_and_uses_up_no_link(rivals: Rivals) -> None:
    """What ends a session or a link is done after what such a Redis refuses; the link opens once there is room."""
    link, redis = rivals.portal.link(), rivals.portal.stack.redis
    cookie, operators = rivals.portal.customer(), operators_cookie(rivals.portal.url, rivals.portal.stack)
    again, key = operators_cookie(rivals.portal.url, rivals.portal.stack), rivals.portal.console.token
    redis.config_set("maxmemory", 100_000)
    try:
        assert 503 == get(link, Cookie=cookie)[0]
        assert 503 == ask("POST", f"{rivals.portal.url}/login", {"key": key}, Cookie=operators)[0]
        assert 200 == rivals.portal.look("/workspace", cookie)[0]
        assert 200 == get(f"{rivals.portal.url}/work", Cookie=operators)[0]
        everywhere = {"everywhere": "1"}
        assert 503 == ask("POST", f"{rivals.portal.url}/logout", everywhere, Cookie=again)[0]
        assert 303 == get(f"{rivals.portal.url}/work", Cookie=again)[0], "at least this session has ended"
    finally:
        redis.config_set("maxmemory", 0)
    assert 200 == rivals.portal.look("/workspace", entered(link))[0]
    assert 410 == get(link)[0]


def test_the_cookie_is_for_scripts_of_nobody_and_new_each_time(rivals: Rivals) -> None:
    """A session that somebody prepared in the browser is not taken over: the link's gets a text of its own."""
    status, headers, _ = get(rivals.portal.link(), Cookie="dispatcher_portal=prepared")
    assert 303 == status
    assert "prepared" not in headers["set-cookie"]
    for flag in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="):
        assert flag in headers["set-cookie"]


def key_of(link: str) -> str:
    """Where Redis keeps what a link begins."""
    text = parse_qs(urlsplit(link).query)["link"][0]
    return KEYS.portal_link(hashlib.sha256(text.encode()).hexdigest())


def test_a_link_that_is_too_old_opens_nothing(rivals: Rivals) -> None:
    link = rivals.portal.link()
    key = key_of(link)
    rivals.stack.redis.pexpire(key, 1)
    wait_until(lambda: not rivals.stack.redis.exists(key), 5, "its time is over")
    assert 410 == get(link)[0]


def test_links_and_sessions_end_with_their_workspace(rivals: Rivals) -> None:
    """A removed workspace's link and session open nothing, nor one of that name that is made later."""
    rivals.stack.add_workspace("gone")
    unused, session = rivals.portal.link("gone"), rivals.portal.customer("gone")
    later = rivals.portal.link("gone")
    assert 200 == rivals.portal.look("/workspace", session)[0]
    assert 0 == rivals.stack.cli("workspace", "remove", "gone").returncode
    assert 401 == rivals.portal.look("/callbacks", session)[0]
    assert 410 == get(unused)[0]
    rivals.stack.add_workspace("gone")
    assert 401 == rivals.portal.look("/workspace", session)[0]
    assert 410 == get(later)[0]
    assert 200 == rivals.portal.look("/workspace", rivals.portal.customer("gone"))[0]


def test_work_and_log_are_not_those_of_a_workspace_of_the_same_name(rivals: Rivals) -> None:
    """Another customer may have it now."""
    rivals.stack.add_workspace("again")
    session = rivals.portal.customer("again", "jane@again.example")
    assert 303 == rivals.portal.act("/callbacks/replay", session, state="failed")[0]
    assert "Replay all failed callbacks" in rivals.portal.look("/work", session)[2]
    assert "workspace.add" in rivals.portal.look("/log", session)[2]
    assert 0 == rivals.stack.cli("workspace", "remove", "again").returncode
    rivals.stack.add_workspace("again")
    session = rivals.portal.customer("again", "jane@again.example")
    assert "Replay all failed callbacks" not in rivals.portal.look("/work", session)[2]
    log = rivals.portal.look("/log", session)[2]
    assert "workspace.remove" not in log


def test_an_admin_ends_all_sessions_and_unused_links(rivals: Rivals) -> None:
    session, unused = rivals.portal.customer(), rivals.portal.link()
    assert 303 == ask("POST", f"{rivals.portal.url}/logout", {"everybody": "1"}, Cookie=rivals.admin)[0]
    assert 401 == rivals.portal.look("/workspace", session)[0]
    assert 401 == rivals.portal.look("/workspace", entered(unused))[0]
    rivals.acme = rivals.portal.customer("acme")
    rivals.globex = rivals.portal.customer("globex", "eve@globex.example")
    rivals.admin = operators_cookie(rivals.portal.url, rivals.stack)


def test_a_customer_logs_out(rivals: Rivals) -> None:
    """Their session is over, others' are not."""
    cookie = rivals.portal.customer()
    assert 403 == rivals.portal.act("/logout", cookie, everybody="1")[0]
    status, headers, _ = rivals.portal.act("/logout", cookie)
    assert (200, True) == (status, "Max-Age=0" in headers["set-cookie"])
    assert 401 == rivals.portal.look("/workspace", cookie)[0]
    assert 200 == rivals.portal.look("/workspace", rivals.acme)[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("role", "admin"),
        ("role", "operator"),
        ("role", "viewer"),
        ("role", "ADMIN"),
        ("role", "root"),
        ("role", ""),
        ("role", 3),
        ("workspace", ""),
        ("workspace", ["globex"]),
        ("workspace", "*"),
        ("ends_ms", 0),
    ],
)
def test_a_record_that_was_changed_in_redis_opens_nothing(rivals: Rivals, field: str, value: Any) -> None:
    """A customer's session with an operator's role or without a workspace is none, in the portal and in the console."""
    cookie = rivals.portal.customer()
    text = cookie.partition("=")[2]
    key = KEYS.session(hashlib.sha256(text.encode()).hexdigest())
    kept = json.loads(rivals.stack.redis.get(key))
    rivals.stack.redis.set(key, json.dumps(kept | {field: value}), keepttl=True)
    assert 401 == rivals.portal.look("/workspace?id=acme", cookie)[0]
    is_operators = field == "workspace" and value == ""
    assert 303 == get(f"{rivals.portal.url}/", Cookie=f"dispatcher_console={text}")[0], is_operators
    link = rivals.portal.link()
    of_link = key_of(link)
    rivals.stack.redis.set(of_link, json.dumps(kept | {field: value}), keepttl=True)
    if field != "ends_ms":  # of a link it is set when it is opened
        assert 410 == get(link)[0]
    rivals.stack.redis.delete(of_link)


OPERATORS = [one for one in PAGES if not one.customers]


@pytest.mark.parametrize("page", OPERATORS, ids=lambda one: f"{one.methods[0]} {one.path}")
def test_what_operators_do_is_not_in_the_portal(rivals: Rivals, page: Any) -> None:
    """Stop, cancel, requeue, move and the rest are not there at all."""
    status, _, text = (
        rivals.portal.look(page.path, rivals.acme)
        if page.methods == ("GET",) and page.path != "/"
        else rivals.portal.act(page.path, rivals.acme, workspace="acme", id=rivals.own[0])
    )
    assert status in (404, 405)
    assert 'href="/portal/"' in text, "the way back is the portal's"


def test_nothing_of_who_runs_it_is_shown(rivals: Rivals) -> None:
    """No operator's name, no command, setting or server is on any page that a customer reaches, nor in what it refuses."""
    stack, seen, to_see = rivals.stack, dict[str, str](), ["/portal/", "/portal/nothing-there"]
    stack.cli("subscription", "pause", "acme", "no")
    ask(
        "POST",
        f"{rivals.portal.url}/endpoint/retry",
        {"owner": "acme", "url": acme_url(stack)},
        Cookie=rivals.admin,
    )
    stack.enqueue(1, first=500, status="DELIVERED")
    to_see += [
        f"/portal/callback?{urlencode({'workspace': 'acme', 'id': f'{one}.no'})}" for one in rivals.own[:2]
    ]
    to_see += [f"/portal/callback?{urlencode({'workspace': 'acme', 'id': 'nothing'})}"]
    to_see += [
        "/portal/callbacks?state=delivered",
        "/portal/callbacks?state=waiting",
        "/portal/callbacks?since=x",
    ]
    to_see += [
        "/portal/endpoint?owner=acme&url=https://nowhere.example",
        "/portal/endpoint?owner=acme.x&url=y",
    ]
    to_see += [
        "/portal/callbacks?error=x&subscription=nothing",
        "/portal/callbacks?endpoint=nothing",
        "/portal/callback",
    ]
    name = stack.cli_json("audit", "list")[0]["who"]
    for path in to_see:
        status, headers, text = get(rivals.portal.url + path, Cookie=rivals.acme)
        seen[path] = text
        if status == 303:
            to_see.append(headers["location"])
        for link in re.findall(r'href="(/portal/[^"#]*)"', text):
            pattern = re.sub(r"evt|[0-9a-f]{8,}|[0-9]+", "*", link)
            if len(to_see) < 90 and not any(
                pattern == re.sub(r"evt|[0-9a-f]{8,}|[0-9]+", "*", one) for one in to_see
            ):
                to_see.append(link.replace("&amp;", "&"))
    for form in ({}, {"workspace": "acme"}, {"workspace": "acme", "subscription": "nothing"}):
        for page in (one for one in CUSTOMERS if one.methods == ("POST",) and one.path != "/logout"):
            seen[f"{page.path} {form}"] = rivals.portal.act(page.path, rivals.acme, **form)[2]
    stack.cli("subscription", "resume", "acme", "no")
    assert len(seen) > 40
    wrong = ["dispatcher ", "DISPATCHER_", name, "admin's", "billing", stack.server.url, "redis", "Redis"]
    assert [] == [(path, word) for path, text in seen.items() for word in wrong if word in text]


def acme_url(stack: Stack) -> str:
    """The URL of an endpoint of acme's default subscription."""
    found = stack.cli_json("endpoint", "list", "--workspace", "acme")
    return next(str(one["endpoint"]) for one in found if "subscription" not in one)


def test_a_customer_acts_and_the_log_names_them(rivals: Rivals) -> None:
    """Each action of the portal works, and stands in the log as via `portal`, with the name of the link."""
    stack, acme, url = rivals.stack, rivals.acme, acme_url(rivals.stack)
    of = {"workspace": "acme", "subscription": "no"}
    failed = f"{rivals.own[3]}.no"
    done = {
        "callback replay": rivals.portal.act("/callback/replay", acme, workspace="acme", id=failed),
        "endpoint retry": rivals.portal.act("/endpoint/retry", acme, owner="acme", url=url),
        "endpoint ping": rivals.portal.act("/endpoint/ping", acme, owner="acme", url=url),
        "subscription ping": rivals.portal.act("/subscription/ping", acme, **of),
        "pause": rivals.portal.act("/subscription/pause", acme, **of),
    }
    assert "paused" == stack.cli_json("subscription", "show", "acme", "no")["state"]
    done["resume"] = rivals.portal.act("/subscription/resume", acme, **of)
    assert "active" == stack.cli_json("subscription", "show", "acme", "no")["state"]
    assert {303, 200} == {status for status, _, _ in done.values()}, done
    before = stack.redis.hgetall(KEYS.workspace("acme"))
    status, _, text = rivals.portal.act(
        "/subscription/rotate", acme, workspace="acme", subscription="default"
    )
    assert (200, True) == (status, "whsec_" in text)
    assert before != stack.redis.hgetall(KEYS.workspace("acme"))
    status, headers, _ = rivals.portal.act(
        "/callbacks/replay", acme, state="failed", subscription="no", rate="5000"
    )
    path = headers["location"].removeprefix("/portal")
    wait_until(lambda: "match" in rivals.portal.look(path, acme)[2], 30, "counted")
    page = rivals.portal.look(path, acme)[2]
    (count,) = re.findall(r'name="count" value="(\d+)"', page)
    assert int(count) >= 50
    assert 303 == rivals.portal.act(f"{path}/begin", acme, count=count)[0]
    wait_until(lambda: "are sent again" in rivals.portal.look(path, acme)[2], 60, "all are sent again")
    trail = [one for one in rivals.portal.trail() if one["via"] == "portal"]
    assert {f"{JANE} (portal:acme)"} == {one["who"] for one in trail}
    assert {
        "event.replay", "endpoint.ping", "subscription.ping", "subscription.pause", "subscription.resume",
        "workspace.rotate_secret",
    } <= {one["what"] for one in trail}  # fmt: skip
    log = rivals.portal.look("/log", acme)[2]
    assert JANE in log
    assert "whsec_" not in log


def test_without_redis_a_customer_learns_nothing_of_it(
    server_program: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """While Redis is away every page and action says to try again, and nothing else."""
    with running_stack(tmp_path_factory.mktemp("away")) as stack:
        stack.add_workspace("acme")
        with portal(stack) as found:
            cookie, unused = found.customer(), found.link()
            assert 200 == found.look("/workspace", cookie)[0]
            stack.server.kill()
            answers = {}
            for page in CUSTOMERS:
                path = page.path.replace("{id}", "x")
                answers[path, page.methods] = (
                    found.look(path, cookie) if page.methods == ("GET",) else found.act(path, cookie)
                )
            answers["link", ("GET",)] = get(unused)
            del answers["/enter", ("GET",)]  # without a link nothing is asked of Redis
            for where, (status, _, text) in answers.items():
                assert 503 == status, where
                assert "not available now, try again" in text
                assert not [
                    w for w in ("redis", "Redis", str(stack.server.url), "unix:", "DISPATCHER") if w in text
                ]
            stack.server.start()


def test_work_that_redis_breaks_off_says_nothing_of_it() -> None:
    """To a customer; an operator reads which server it was."""

    async def said(person: Person) -> str:
        async def choose(_: Progress) -> Chosen:
            raise RedisUnavailable("Redis at secret-host:6379 is not reachable")

        jobs = Jobs()
        job = jobs.count(Job("1", "Replay", "Replay", ("a", "b"), person, "/"), choose)
        assert job.task
        await job.task
        return job.said

    assert "not available now, try again" == run_apart(said(Person("a", "a", Role.CUSTOMER, "acme")))
    assert "secret-host" in run_apart(said(Person("b", "b", Role.ADMIN)))


def test_why_there_was_no_answer_is_told_by_its_meaning_alone(server_program: str, tmp_path: Path) -> None:
    """Our own text names our proxy and settings: operators read it, under a heading of its own."""
    proxy = f"127.0.0.1:{free_port()}"
    settings = {"DISPATCHER_PROXY_URL": f"http://{proxy}", "DISPATCHER_MAX_ATTEMPTS": "1"}
    with running_stack(tmp_path) as stack:
        stack.environment |= settings
        stack.add_workspace("acme", url="https://customer.example/hook")
        stack.start_worker()
        [own] = stack.enqueue(1)
        assert {"failed": 1} == stack.wait_ended([own])
        event = f"/callback?workspace=acme&id={own}"
        endpoint = f"/endpoint?{urlencode({'owner': 'acme', 'url': 'https://customer.example:443'})}"
        ours = stack.cli_json("event", "show", own, "--workspace", "acme")["lastAnswer"]
        assert ours
        with portal(stack) as found:
            cookie, operators = found.customer(), operators_cookie(found.url, stack)
            ping = found.act("/subscription/ping", cookie, workspace="acme", subscription="default")[2]
            for text in (found.look(event, cookie)[2], found.look(endpoint, cookie)[2], ping):
                assert "the egress proxy would not, or could not, connect" in text
                assert not [
                    one for one in (ours, proxy, "DISPATCHER_", "first bytes", "its answer") if one in text
                ]
            for path, heading in ((event, "<h2>Why</h2>"), (endpoint, "<dt>why</dt>")):
                text = get(found.url + path, Cookie=operators)[2]
                assert (True, True) == (heading in text, ours in text)
