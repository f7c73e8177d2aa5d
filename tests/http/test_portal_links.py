"""`POST /v1/portal-links`: a link that opens a customer's portal once."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from dispatcher.store.sessions import Session
from tasks.redis_server import RedisServer
from tests.http.api import Api


@pytest.fixture(scope="module")
def api(redis_server: RedisServer) -> Iterator[Api]:
    """The HTTP API on an empty Redis."""
    found = Api(_emptied(redis_server))
    yield found
    found.close()


def _emptied(server: RedisServer) -> str:
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


def ask(api: Api, key: str = "producer", **wanted: Any) -> httpx.Response:
    """Asks for a link."""
    headers = {"Authorization": f"Bearer {api.api_keys[key]}", "Content-Type": "application/json"}
    return api.ask("POST", "/v1/portal-links", headers, json.dumps(wanted).encode())


def taken(api: Api, link: str) -> Session | None:
    """What a link begins."""
    return api.run(api.parts.sessions.take(parse_qs(urlsplit(link).query)["link"][0]))


def test_a_link_begins_a_session_of_the_workspace_once(api: Api) -> None:
    answer = ask(
        api, workspace="acme-zeckta", name="jane@acme.example", frameOrigin="https://App.acme.example"
    )
    assert 201 == answer.status_code
    link = answer.json()["url"]
    assert link.startswith("https://callbacks.example.com/portal/enter?link=")
    session = taken(api, link)
    assert session
    assert ("portal:acme-zeckta:jane@acme.example", "jane@acme.example", "customer", "acme-zeckta", "https://app.acme.example") == (
        session.who, session.name, session.role, session.workspace, session.frame,
    )  # fmt: skip
    assert 3_600_000 == session.ends_ms - session.created_ms
    assert None is taken(api, link)


def test_without_a_name_the_log_has_the_workspace_and_no_site_may_show_it(api: Api) -> None:
    session = taken(api, ask(api, workspace="acme-qlara").json()["url"])
    assert session
    assert ("acme-qlara", "") == (session.name, session.frame)


def test_a_link_lives_five_minutes_and_its_text_is_nowhere_in_redis(api: Api) -> None:
    api.run(api.client.flushdb())
    api.run(api._fill())
    text = parse_qs(urlsplit(ask(api, workspace="acme-zeckta").json()["url"]).query)["link"][0]
    (key,) = api.run(api.client.keys(api.keys.portal_link("*")))
    assert 290_000 < api.run(api.client.pttl(key)) <= 300_000
    assert text not in key.decode() + api.run(api.client.get(key)).decode()


def test_who_asked_is_in_the_trail_and_the_link_is_not(api: Api) -> None:
    link = ask(api, workspace="acme-zeckta", name="jane@acme.example").json()["url"]
    latest = api.run(api.parts.audit.latest(1))[0]
    key = api.api_keys["producer"].partition(".")[0]
    assert ("api", f"{key} (billing)", "portal_link.add", "acme-zeckta", {"name": "jane@acme.example"}) == (
        latest.who.via, latest.who.name, latest.what, latest.workspace, latest.after,
    )  # fmt: skip
    assert parse_qs(urlsplit(link).query)["link"][0] not in repr(latest)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, "workspace: is required"),
        ({"workspace": ""}, "workspace: "),
        ({"workspace": 7}, "workspace: must be text"),
        ({"workspace": "a" * 201}, "workspace: "),
        ({"workspace": "acme-zeckta", "name": ""}, "name: "),
        ({"workspace": "acme-zeckta", "name": "a\nb"}, "name: must be printable"),
        ({"workspace": "acme-zeckta", "name": " jane"}, "name: must be printable"),
        ({"workspace": "acme-zeckta", "name": "a" * 201}, "name: "),
        ({"workspace": "acme-zeckta", "name": 7}, "name: must be text"),
        ({"workspace": "acme-zeckta", "frameOrigin": 7}, "frameOrigin: must be text"),
        ({"workspace": "acme-zeckta", "frameOrigin": "*"}, "frameOrigin: write https://HOST"),
        ({"workspace": "acme-zeckta", "frameOrigin": ""}, "frameOrigin: write https://HOST"),
        ({"workspace": "acme-zeckta", "frameOrigin": "http://acme.example"}, "frameOrigin: must be https://"),
        ({"workspace": "acme-zeckta", "frame": "https://acme.example"}, "frame: there is no such field"),
    ],
)
def test_wrong_input_is_refused_in_one_line(api: Api, wanted: dict[str, Any], said: str) -> None:
    answer = ask(api, **wanted)
    assert 400 == answer.status_code, answer.text
    assert said in answer.json()["error"]
    assert 1 == len(answer.json()["error"].splitlines())


def test_an_unknown_workspace_is_not_found(api: Api) -> None:
    answer = ask(api, workspace="nobody")
    assert (404, {"error": "there is no workspace 'nobody'"}) == (answer.status_code, answer.json())


def test_a_customers_key_opens_no_portal(api: Api) -> None:
    assert 401 == ask(api, "acme-zeckta", workspace="acme-zeckta").status_code
    assert 401 == ask(api, "acme-zeckta", workspace="rival-zeckta").status_code


def test_without_a_console_the_setting_is_named(api: Api) -> None:
    api.app.state.parts = replace(api.parts, console_url="")
    try:
        answer = ask(api, workspace="acme-zeckta")
    finally:
        api.app.state.parts = api.parts
    assert 503 == answer.status_code
    assert "DISPATCHER_CONSOLE_URL is not set" in answer.json()["error"]


def test_a_body_that_is_too_long_is_refused(api: Api) -> None:
    assert 413 == ask(api, workspace="a" * 20_000).status_code
