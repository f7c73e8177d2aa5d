"""What a viewer must not see, and what nobody may find in logs or in Redis."""

import json
import re
import threading
from urllib.parse import urlencode

import pytest

from tasks.console.words import masked
from tests.console.conftest import Visits, World
from tests.console.hostile import NUMBER, OF_BODY, SECRET_HEADER, TOKEN, Hostile
from tests.console.world import ask, get, session

PAGES = (
    "/", "/endpoints", "/callbacks?state=failed", "/live", "/rejected", "/workspaces", "/workspace?id=acme", "/log",
    "/subscription?workspace=acme&subscription=default",
    "/search?q=m-hostile", "/work",
)  # fmt: skip


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


@pytest.mark.parametrize(
    "text",
    ["+233200004711", "233 20 000 4711", "(233) 20-000-4711", "233.20.000.4711", "%2B233%2020%20000%204711",
     "+233\N{NO-BREAK SPACE}20\N{NARROW NO-BREAK SPACE}000\N{NON-BREAKING HYPHEN}4711", "233/20/000/4711", r"\u0032\u0033\u0033200004711",
     "+233_20_000_4711", "233_200_004_711", "2026-06-09T233200004711", "%32%33%33200004711", "233  20  000  4711", "\N{ARABIC-INDIC DIGIT TWO}33200004711"],
)  # fmt: skip
def test_a_number_is_masked_however_it_is_written(text: str) -> None:
    assert sum(one.isdigit() for one in re.sub(r"%2\w|u00|^2026-.*T", "", masked(text))) <= 6
    assert "4711" not in masked(text)
    assert "711" in masked(text)


def test_moments_and_short_numbers_are_not_masked() -> None:
    text = '{"timestamp":"2026-06-09T13:04:57Z","part":12,"cost":"0.10"} http_404, stopped since 2026-06-09 13:04:57Z'
    assert masked(text) == text


def test_masking_takes_no_more_than_linear_time() -> None:
    for text in ("%20" * 50_000, "1 " * 50_000, "1-- " * 50_000, "1%2" * 50_000, "2026-06-09T" * 20_000):
        masked(text)  # would not end


def test_a_viewer_sees_no_whole_number_on_any_page(hostile: Hostile) -> None:
    cookie = session(hostile.url, hostile.keys["viewer"])
    event = f"/callback?{urlencode({'workspace': 'acme', 'id': hostile.failed})}"
    port = hostile.stack.cli_json("endpoint", "list")[0]
    endpoint = f"/endpoint?{urlencode({'owner': 'acme', 'url': port['endpoint']})}"
    for path in (*PAGES, event, endpoint, f"/rejected?entry={hostile.entry}"):
        status, _, text = get(hostile.url + path, Cookie=cookie)
        assert status in (200, 303), (path, text)
        for hidden in (NUMBER, NUMBER[2:], "4711", OF_BODY, TOKEN, SECRET_HEADER):
            assert hidden not in text, (path, hidden)


def test_a_receivers_own_header_values_are_shown_to_nobody(hostile: Hostile) -> None:
    event = f"/callback?{urlencode({'workspace': 'acme', 'id': hostile.failed})}"
    for role in ("operator", "admin"):
        status, _, text = get(hostile.url + event, Cookie=session(hostile.url, hostile.keys[role]))
        assert status == 200
        assert "X-Api-Token" in text
        assert SECRET_HEADER not in text


def test_a_long_rejected_entry_is_shown_whole_on_a_page_of_its_own(world: World) -> None:
    end = "the-very-end"
    world.stack.redis.xadd("dispatcher:events", {"event": json.dumps({"x": "y" * 60_000 + end})})
    cookie = world.cookie("operator")

    def entry() -> str:
        found = re.search(r'entry=([0-9-]+)">Show all', get(f"{world.url}/rejected", Cookie=cookie)[2])
        return found[1] if found else ""

    from tests.acceptance.stack import wait_until

    id_ = wait_until(entry, 20, "it was rejected")
    assert end not in get(f"{world.url}/rejected", Cookie=cookie)[2]
    assert end in get(f"{world.url}/rejected?entry={id_}", Cookie=cookie)[2]
    world.stack.redis.xtrim("dispatcher:rejected", maxlen=1)


def test_no_secret_is_in_a_log_or_in_clear_in_redis(hostile: Hostile) -> None:
    heard: list[str] = []
    done = threading.Event()

    def listen() -> None:
        with hostile.stack.redis.monitor() as monitor:
            done.set()
            for said in monitor.listen():
                heard.append(str(said["command"]))
                if "END-OF-TEST" in heard[-1]:
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    done.wait(10)
    cookie = session(hostile.url, hostile.keys["admin"])
    linked = session(hostile.url, hostile.console.token)
    form = {"workspace": "acme", "subscription": "default"}
    _, _, page = ask("POST", f"{hostile.url}/subscription/rotate", form, Cookie=cookie)
    found = re.search(r"whsec_[\w+/=]+", page)
    assert found
    given = {
        "headers": "webhook-id: a\nwebhook-timestamp: 1\nwebhook-signature: v1,x",
        "body": "b",
        "secret": found[0],
    }
    assert ask("POST", f"{hostile.url}/signature", given, Cookie=cookie)[0] == 200
    ask("POST", f"{hostile.url}/login", {"key": "wrong-key-s3cr3t"})
    get(f"{hostile.url}/work/%00?q={hostile.keys['admin']}", Cookie=cookie)
    hostile.stack.redis.echo("END-OF-TEST")
    listener.join(20)
    commands, log = (
        "\n".join(heard),
        hostile.console.log.read_text().replace(f"#token={hostile.console.token}", ""),
    )
    audit = str(hostile.stack.redis.xrange("dispatcher:audit"))
    secrets = [
        cookie.partition("=")[2],
        linked.partition("=")[2],
        hostile.keys["admin"],
        hostile.console.token,
        "wrong-key-s3cr3t",
    ]
    for secret in secrets:
        assert secret not in commands
    for secret in (*secrets, found[0], found[0].removeprefix("whsec_")):
        assert secret not in log
        assert secret not in audit


def test_after_logging_out_back_shows_nothing(world: World, browser: Visits) -> None:
    watched = browser.as_("operator")
    page = watched.page
    page.goto(f"{world.url}/callback?workspace=acme&id={world.failed[0]}")
    page.goto(f"{world.url}/account")
    page.get_by_role("button", name="Log out", exact=True).click()
    page.wait_for_url("**/login**")
    for _ in range(2):
        page.go_back()
        assert "no such hook" not in page.content()
        assert page.get_by_label("Key").count() == 1


def test_no_page_tells_another_site_where_it_was(world: World, browser: Visits) -> None:
    watched = browser.as_("admin")
    urls: list[str] = []
    watched.page.on("request", lambda asked: urls.append(asked.url + str(asked.headers.get("referer", ""))))
    watched.page.goto(f"{world.url}/login#token={world.console.token}")
    watched.page.wait_for_url(f"{world.url}/")
    text = watched.page.context.cookies()[0]["value"]
    assert not [url for url in urls if text in url or world.console.token in url.partition("#")[0]]
