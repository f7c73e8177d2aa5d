"""Each platform's API, by golden requests and answers; and that no workspace learns of another's."""

import asyncio
import base64
import gzip
import json
import os
import re
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis
from pydantic import SecretStr

from config.settings import Settings
from dispatcher.api import namirial, status_changes
from dispatcher.errors import EnqueueInterrupted, InvalidInput, NotFound, RedisFull
from dispatcher.model import StatusChange
from dispatcher.producer import AsyncDispatcher, Ready
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.store import searches
from dispatcher.store.connection import POOL
from dispatcher.store.ledger import Ledger
from dispatcher.store.searches import Searches
from dispatcher.store.wire import Argument
from tasks import api_wiring
from tasks.redis_server import RedisServer
from tests.http.api import AT, PLATFORMS, Api
from tests.messages import change

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(str(file.relative_to(GOLDEN))[:-5] for file in GOLDEN.rglob("*.http"))
VARYING = re.compile(
    r'("requestId": |"expiresAt": |"url": (?=".*\?link=)|"code": "[A-Z_]+",\n  "message": ".*",\n  "timestamp": )"[^"]*"'
)
SHOWN_HEADERS = ("content-type", "www-authenticate", "retry-after", "allow", "x-ratelimit-limit")


@pytest.fixture(scope="module")
def api(redis_server: RedisServer) -> Iterator[Api]:
    """The API with its messages; tests that change them put them back."""
    api = Api(fresh(redis_server))
    yield api
    api.close()


def fresh(server: RedisServer) -> str:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


def credential(api: Api, name: str) -> dict[str, str]:
    """The header by which a workspace (or `producer`) shows its key."""
    return header_with(api.api_keys[name], name.partition("-")[2])


def header_with(text: str, platform: str) -> dict[str, str]:
    """The header by which a platform's customers show a key."""
    match platform:
        case "namirial" | "qlara":
            return {"X-Api-Key": text}
        case "sendexa":
            return {"Authorization": "Basic " + base64.b64encode(text.replace(".", ":", 1).encode()).decode()}
    return {"Authorization": f"Bearer {text}"}


def shown(api: Api, request: str) -> str:
    """What a golden file has after its request: the answer's status, headers and body."""
    head, _, body = request.partition("\n\n")
    line, *rest = head.splitlines()
    method, _, path = line.partition(" ")
    headers: dict[str, str] = {}
    for name, value in (one.split(": ", 1) for one in rest):
        headers |= credential(api, value) if name == "As" else {name: value}
    answer = api.ask(method, path, headers, body.strip().encode() or None)
    kept = "".join(f"{name}: {answer.headers[name]}\n" for name in SHOWN_HEADERS if name in answer.headers)
    text = (
        json.dumps(json.loads(answer.text, parse_float=_Digits), indent=2, ensure_ascii=False)
        if answer.text
        else ""
    )
    return f"{answer.status_code}\n{kept}\n{VARYING.sub(_varies, text)}\n".replace('"<', "").replace('>"', "")


def _Digits(text: str) -> str:  # noqa: N802  stands for a type
    return f"<{text}>"


def _varies(match: re.Match[str]) -> str:
    return f'{match[1]}"…"'


@pytest.mark.parametrize("case", CASES)
def test_golden(api: Api, case: str) -> None:
    """The answer is the one on file."""
    file = GOLDEN / f"{case}.http"
    request, _, expected = file.read_text().partition("\n--- \n")
    found = shown(api, request)
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(f"{request}\n--- \n{found}")
    else:
        assert expected == found


@pytest.mark.parametrize("dialect", PLATFORMS)
def test_every_path_has_golden_answers(api: Api, dialect: str) -> None:
    """Every operation of every platform is asked for by some golden request that succeeds."""
    requests = [(GOLDEN / f"{case}.http").read_text() for case in CASES]
    asked = [text.splitlines()[0] for text in requests if re.search(r"\n--- \n2\d\d\n", text)]
    for path, operations in api.app.openapi()["paths"].items():
        pattern = re.sub(r"\{\w+\}", "[^/?]+", path)
        for method in operations:
            assert any(re.fullmatch(rf"{method.upper()} {pattern}(\?.*)?", line) for line in asked), (
                method,
                path,
            )


def test_amounts_are_numbers(api: Api) -> None:
    """In the OpenAPI document, as in what is answered by each of the three platforms that tell a cost."""
    shapes = api.app.openapi()["components"]["schemas"].values()
    amounts = [
        shape["properties"]["cost"]["anyOf"] for shape in shapes if "cost" in shape.get("properties", {})
    ]
    assert 3 == amounts.count([{"type": "number"}, {"type": "null"}])


OWN = {
    "zeckta": ["/v1/messaging/sms/messages/{}m-1", "/v1/messaging/sms/campaigns/{}spring"],
    "sendexa": ["/v1/sms/status/{}m-1", "/v1/sms/status/{}m-1?includeHistory=true&webhookStatus=true"],
    "namirial": ["/api/messagestatus/{}m-1"],
    "qlara": ["/partner-gateway/v1/messages/status/{}order-1?channel=SMS"],
}
LISTS = {
    "namirial": [
        "/api/messagestatus/phonenumber/+390000000001",
        "/api/messagestatus/reference/rinvoice 7",
    ],
    "qlara": [
        "/partner-gateway/v1/messages/status?ids=rorder-1,rm-2,rm-3&channel=SMS",
        "/partner-gateway/v1/messages/history?channel=SMS&from=2027-01-15T00:00:00Z&to=2027-01-16T00:00:00Z",
    ],
}


def without_what_varies(text: str) -> str:
    return re.sub(r'"(requestId|timestamp)":"[^"]*"', "", text)


@pytest.mark.parametrize(("dialect", "path"), [(name, path) for name, paths in OWN.items() for path in paths])
def test_anothers_is_like_unknown(api: Api, dialect: str, path: str) -> None:
    """An id of another workspace is answered in every byte like one that nobody has; its owner finds it."""
    acme, rival = credential(api, f"acme-{dialect}"), credential(api, f"rival-{dialect}")
    assert (
        200
        == api.ask("GET", path.format("r"), rival).status_code
        == api.ask("GET", path.format(""), acme).status_code
    )
    anothers, nobodys = api.ask("GET", path.format("r"), acme), api.ask("GET", path.format("x"), acme)
    assert (404, 404) == (anothers.status_code, nobodys.status_code)
    assert without_what_varies(nobodys.text) == without_what_varies(anothers.text)
    assert sorted(nobodys.headers) == sorted(anothers.headers)


@pytest.mark.parametrize(
    ("dialect", "path"), [(name, path) for name, paths in LISTS.items() for path in paths]
)
def test_lists_have_only_ones_own(api: Api, dialect: str, path: str) -> None:
    """A list has nothing of another workspace; for its owner it has something."""
    acme, rival = (api.ask("GET", path, credential(api, f"{name}-{dialect}")) for name in ("acme", "rival"))
    assert (200, 200) == (acme.status_code, rival.status_code)
    assert ("rm-1" in rival.text, "rm-" in acme.text) == (True, False)


MISSPELT = [
    ("zeckta", "/v1/messaging/sms/campaigns/spring?Page=2", "Page", "page"),
    ("zeckta", "/v1/messaging/sms/campaigns/spring?limits=2", "limits", "limit"),
    ("sendexa", "/v1/sms/status/m-1?includehistory=true", "includehistory", "includeHistory"),
    ("sendexa", "/v1/sms/status/m-1?webhook_status=true", "webhook_status", "webhookStatus"),
    ("sendexa", "/v1/sms/analytics?Hours=1", "Hours", "hours"),
    ("namirial", "/api/messagestatus/phonenumber/+1?senddate=2027-01-15T08:02:00Z", "senddate", "sendDate"),
    ("namirial", "/api/messagestatus/reference/a?Count=1&count=1", "Count", "count"),
    ("qlara", "/partner-gateway/v1/messages/status/order-1?channel=SMS&Channel=RCS", "Channel", "channel"),
    ("qlara", "/partner-gateway/v1/messages/status?id=a&channel=SMS", "id", "ids"),
    (
        "qlara",
        "/partner-gateway/v1/messages/history?channel=SMS&From=2027-01-15T00:00:00Z&to=2027-01-16T00:00:00Z",
        "From",
        "from",
    ),
]


@pytest.mark.parametrize(("dialect", "path", "given", "meant"), MISSPELT)
def test_a_misspelt_parameter_is_named(api: Api, dialect: str, path: str, given: str, meant: str) -> None:
    """A parameter that is almost one of the operation's is refused, with the right name."""
    answer = api.ask("GET", path, credential(api, f"acme-{dialect}"))
    text = f"{given}: there is no such parameter, did you mean {meant}?"
    assert (400, text) == (answer.status_code, answer.json()["message"])


@pytest.mark.parametrize(
    ("dialect", "path"),
    [
        ("zeckta", "/v1/messaging/sms/messages/m-1?_=1717&page=2"),
        ("zeckta", "/v1/messaging/sms/campaigns/spring?pageSize=2&sort=asc"),
        ("sendexa", "/v1/sms/status/m-1?api_version=2"),
        ("namirial", "/api/messagestatus/phonenumber/+1?offset=3"),
        ("qlara", "/partner-gateway/v1/webhooks/delivery-status?channel=SMS"),
    ],
)
def test_other_parameters_are_ignored(api: Api, dialect: str, path: str) -> None:
    """A parameter that resembles none of the operation's changes nothing: platforms' clients send such."""
    assert (
        200
        == api.ask(
            "GET", path, credential(api, f"rival-{dialect}" if dialect == "qlara" else f"acme-{dialect}")
        ).status_code
    )


def test_a_misspelt_parameter_needs_a_key(api: Api) -> None:
    """Without a key, a call is refused for that, whatever its parameters are."""
    assert 403 == api.ask("GET", "/api/messagestatus/phonenumber/+1?senddate=x").status_code


@pytest.mark.parametrize(
    "number", ["+233202007745", "233202007745", "00233202007745", "%2B233 20-200 (77)45", "%20233202007745"]
)
def test_a_number_may_be_written_in_any_way(api: Api, number: str) -> None:
    """Namirial's search finds a number's messages with +, 00 or neither, and with separators."""
    path = f"/api/messagestatus/phonenumber/{number}?count=1"
    found = api.ask("GET", path, credential(api, "acme-namirial")).json()["messages"]
    assert ["m-6"] == [one["message"]["id"] for one in found]


def test_a_number_that_a_backend_gives_without_plus_is_found(api: Api) -> None:
    """Namirial's search finds messages of a backend that gives numbers without +."""
    assert ["+39340", "39340", "0039340"] == namirial.spellings("+39340")
    assert ["0340 1234", "VODAFONE"] == [
        one for text in ("0340 1234", "VODAFONE") for one in namirial.spellings(text)
    ]


def test_analytics_are_ones_own(api: Api) -> None:
    """Figures are of the caller's workspace."""
    api.run(
        api.client.hincrby(api.keys.stats("hour", api.now // 3_600_000), "rival-sendexa messagesFailed", 7)
    )
    failed = [
        api.ask("GET", "/v1/sms/analytics", credential(api, f"{name}-sendexa")).json()["data"]["failed"]
        for name in ("acme", "rival")
    ]
    assert [2, 9] == failed


def test_webhook_is_ones_own(api: Api) -> None:
    """Creating, changing and deleting one's webhook leaves another's as it is."""
    path, acme, rival = WEBHOOK, "acme-qlara", "rival-qlara"
    before = api.ask("GET", path, credential(api, rival)).json()
    for method in ("POST", "PUT", "DELETE"):
        content = None if method == "DELETE" else b'{"callbackUrl":"https://new.example/"}'
        headers = credential(api, acme) | {"Content-Type": "application/json"}
        assert api.ask(method, path, headers, content).is_success
        assert before == api.ask("GET", path, credential(api, rival)).json()


@pytest.mark.parametrize(
    "url",
    [
        "https://1.1.1.1[v1.x]:8080/",
        "https://127.1/",
        "https://168.63.129.16/",
        "https://[64:ff9b::169.254.169.254]/",
        "https://[2002:a9fe:a9fe::1]/",
        "https://user@a.example/",
    ],
)
def test_a_webhook_is_read_as_every_callback_url(api: Api, url: str) -> None:
    """An address that is not public, or a URL that parsers read differently, is 400 and changes nothing."""
    path, rival = "/partner-gateway/v1/webhooks/delivery-status", "rival-qlara"
    before = api.ask("GET", path, credential(api, rival)).json()
    headers = credential(api, rival) | {"Content-Type": "application/json"}
    refused = api.ask("PUT", path, headers, json.dumps({"callbackUrl": url}))
    assert (400, "DISPATCHER_" in refused.text) == (refused.status_code, False)
    assert before == api.ask("GET", path, credential(api, rival)).json()


WEBHOOK = "/partner-gateway/v1/webhooks/delivery-status"


@pytest.fixture
def changeable(server_program: None, tmp_path: Path) -> Iterator[Api]:
    """An API of its own, where rival-qlara has a webhook and may change it three times a minute."""
    with RedisServer(tmp_path) as server:
        changeable = Api(server.url)
        changeable.parts = replace(changeable.parts, webhook_changes_per_minute=3)
        changeable.app.state.parts = changeable.parts
        yield changeable
        changeable.close()


def change_webhook(api: Api, method: str, url: str = "", workspace: str = "rival-qlara") -> httpx.Response:
    headers = credential(api, workspace) | {"Content-Type": "application/json"}
    return api.ask(method, WEBHOOK, headers, json.dumps({"callbackUrl": url}).encode() if url else None)


def test_change_that_changes_nothing(changeable: Api) -> None:
    """A PUT of what is there already changes no revision, and is no change that counts, however often it comes."""
    before = changeable.run(changeable.parts.workspaces.require("rival-qlara"))
    answers = [change_webhook(changeable, "PUT", before.callback_url).status_code for _ in range(5)]
    after = changeable.run(changeable.parts.workspaces.require("rival-qlara"))
    assert ([200] * 5, before.revision) == (answers, after.revision)
    assert [] == changeable.run(changeable.client.keys("*:webhook-changes:*"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://a.example:8443/", "callbackUrl: callbacks may not go to its port"),
        ("https://10.0.0.1/", "callbackUrl: its address is not public"),
        ("https://192.0.2.1:8443/", "callbackUrl: callbacks may not go to its port"),
    ],
)
def test_webhook_that_would_be_blocked(changeable: Api, url: str, says: str) -> None:
    """A URL that no delivery could go to by what it says itself is refused, and no setting is named."""
    parts = replace(changeable.parts, addresses=AddressPolicy.of((), [443]))
    changeable.app.state.parts = parts
    refused = change_webhook(changeable, "PUT", url)
    assert (400, says) == (refused.status_code, refused.json()["message"])


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://user@a.example/", "callbackUrl must not carry a user name or password"),
        ("https://a.example/#x", "callbackUrl must not have a fragment (#…)"),
        ("https://a b.example/", "callbackUrl has a blank, control or unsafe character; percent-encode it"),
        ("https:///hooks", "callbackUrl has no host"),
        ("http://a.example/", "callbackUrl must be https"),
        ("https://a..example/", "callbackUrl's host is not a valid name"),
    ],
)
def test_what_is_wrong_with_a_webhook_is_said_once(api: Api, url: str, says: str) -> None:
    """The field is named once, as customers know it."""
    refused = change_webhook(api, "PUT", url)
    assert (400, says) == (refused.status_code, refused.json()["message"])


def test_changes_of_a_minute(changeable: Api) -> None:
    """The fourth real change of a minute is refused in Qlara's form until the minute is over, whatever it is; another's is not."""
    changeable.now = AT + 17_000
    done = [change_webhook(changeable, "PUT", f"https://{n}.example/").status_code for n in range(2)]
    done += [change_webhook(changeable, "POST", "https://a.example/").status_code]
    done += [change_webhook(changeable, "DELETE").status_code]
    assert [200, 200, 409, 204] == done
    refused = change_webhook(changeable, "POST", "https://a.example/")
    assert (429, "43", 43) == (
        refused.status_code, refused.headers["Retry-After"], refused.json()["retryAfter"],
    )  # fmt: skip
    assert 404 == change_webhook(changeable, "PUT", "https://a.example/").status_code
    assert 201 == change_webhook(changeable, "POST", "https://a.example/", "acme-qlara").status_code
    changeable.now += 43_000
    assert 201 == change_webhook(changeable, "POST", "https://a.example/").status_code
    lives = [
        changeable.run(changeable.client.ttl(key))
        for key in changeable.run(changeable.client.keys("*:webhook-changes:*"))
    ]
    assert lives
    assert all(0 < life <= 120 for life in lives)


FIRST_ASKED = {
    "zeckta": ("Rate limit exceeded. 1 requests a second are allowed.", "message"),
    "sendexa": ("RATE_LIMIT_EXCEEDED", "code"),
    "namirial": (429, "code"),
    "qlara": (1, "retryAfter"),
}


@pytest.mark.parametrize("dialect", PLATFORMS)
def test_rate_limit(api: Api, dialect: str) -> None:
    """A key that asks too often is told so, in its platform's form, and when it may ask again."""
    made = api.parts.api_keys.add(f"acme-{dialect}", dialect, "slow", now_ms=1, rate_per_second=1)
    _, text = api.run(made)
    before, api.api_keys[f"acme-{dialect}"] = api.api_keys[f"acme-{dialect}"], text
    headers = credential(api, f"acme-{dialect}")
    api.api_keys[f"acme-{dialect}"] = before
    answers = [api.ask("GET", OWN[dialect][0].format(""), headers) for _ in range(4)]
    refused = [one for one in answers if one.status_code == 429]
    assert (200, True) == (answers[0].status_code, len(refused) >= 2)  # a second may end between two
    expected, field = FIRST_ASKED[dialect]
    assert expected == refused[0].json()[field]
    names = ("Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining")
    assert ["1", "1", "0"] == [refused[0].headers[name] for name in names]
    assert 0 <= int(refused[0].headers["X-RateLimit-Reset"]) - time.time() + 1 <= 2


@pytest.mark.parametrize("dialect", PLATFORMS)
def test_redis_away(api: Api, dialect: str) -> None:
    """While Redis is away, each platform's answer is 503 in its form, and says nothing of our insides."""
    away = Api(api.url, redis_away=True)
    away.api_keys = api.api_keys
    answer = away.ask("GET", OWN[dialect][0].format(""), credential(api, f"acme-{dialect}"))
    away.close()
    assert (503, "5") == (answer.status_code, answer.headers["Retry-After"])
    assert answer.json()["message"] == "not available now, try again"


def test_a_call_that_redis_does_not_answer_counts_for_readiness(api: Api) -> None:
    """The API is not ready from the first call that Redis did not answer on; a full Redis answers, so it stays ready."""
    away = Api(api.url, redis_away=True)
    away.api_keys = api.api_keys
    away.app.state.health.answered()
    assert 200 == away.ask("GET", "/readyz").status_code
    away.ask("GET", OWN["zeckta"][0].format(""), credential(api, "acme-zeckta"))
    for method in ("GET", "HEAD"):
        assert [503, 200] == [away.ask(method, path).status_code for path in ("/readyz", "/healthz")]
    away.close()


def test_a_full_redis_leaves_the_api_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Redis takes no more, reads go on: a refused enqueue does not make the API unready."""

    async def full(*_: object) -> None:
        raise RedisFull("Redis is full")

    api.app.state.health.answered()
    monkeypatch.setattr(type(api.parts.producer), "enqueue_ready", full)
    assert 503 == enqueue(api, CHANGE.to_json())[0]
    assert 200 == api.ask("GET", "/readyz").status_code


def test_many_calls_at_once(api: Api) -> None:
    """More calls at once than there are connections to Redis wait for one, and are answered."""
    headers = credential(api, "acme-sendexa")

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            path = "/v1/sms/status/m-1?webhookStatus=true"
            answers = await asyncio.gather(*(client.get(path, headers=headers) for _ in range(300)))
        return [one.status_code for one in answers]

    assert [200] * 300 == api.run(ask())


def test_internal_error(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks inside is 500 in the platform's form, without a word of why."""
    monkeypatch.setattr(type(api.parts.messages), "get", lambda *_: 1 / 0)
    answer = api.ask("GET", "/v1/sms/status/m-1", credential(api, "acme-sendexa"))
    assert (500, "SERVER_ERROR", "internal error") == (
        answer.status_code,
        answer.json()["code"],
        answer.json()["message"],
    )


def test_many_calls_share_connections(api: Api) -> None:
    """However many calls need Redis at once, each is answered: they share a few connections, and wait for each other."""

    async def ask() -> tuple[list[int], list[int], int]:
        async with api_wiring.api(Settings(redis_url=SecretStr(api.url))) as parts:
            found = await asyncio.gather(
                *(parts.callbacks.of_message("acme-sendexa", "m-1") for _ in range(300))
            )
            queued = await asyncio.gather(*(parts.producer.queued() for _ in range(300)))
            return [len(one) for one in found], queued, len(await api.client.client_list())

    found, queued, connections = api.run(ask())
    assert ([1] * 300, 300) == (found, len(queued))
    assert connections <= 2 * POOL["max_connections"] + 5, "those of the test itself among them"


def test_one_deep_record_hides_no_other(api: Api) -> None:
    """A provider that was told 960 levels deep before that was refused costs itself, not the list it stands in."""
    path, headers = "/api/messagestatus/phonenumber/+233202007745", credential(api, "acme-namirial")
    before = api.ask("GET", path, headers).json()
    key = api.keys.status("acme-namirial", "m-5")
    kept = api.run(api.client.get(key))
    deep = msgspec.msgpack.encode(["A", "+1", "SMS", *[""] * 9, '{"x":' * 960 + "{}" + "}" * 960, "", ""])
    api.run(api.client.set(key, kept[:24] + struct.pack(">cqH", b"f", AT, len(deep)) + deep, keepttl=True))
    answer = api.ask("GET", path, headers)
    api.run(api.client.set(key, kept, keepttl=True))
    assert 200 == answer.status_code
    found = {one["message"]["id"]: one["message"] for one in answer.json()["messages"]}
    assert {one["message"]["id"] for one in before["messages"]} == set(found)
    assert "provider" not in found["m-5"]


def test_figures_without_an_hour_that_cannot_be_read(api: Api) -> None:
    """An hour of counters that somebody wrote over is left out of the figures."""
    hour = api.keys.stats("hour", api.now // 3_600_000 - 20)
    api.run(api.client.set(hour, "by hand", ex=60))
    headers = credential(api, "acme-sendexa")
    assert 2 == api.ask("GET", "/v1/sms/analytics?hours=24", headers).json()["data"]["failed"]
    api.run(api.client.delete(hour))


def test_callbacks_without_one_that_cannot_be_read(api: Api) -> None:
    """One entry of the ledger that cannot be read is left out of a message's callbacks."""
    key = api.keys.message("acme-sendexa", "m-1")
    kept = api.run(api.client.get(key))
    broken = api.keys.event("acme-sendexa", "broken")
    api.run(api.client.set(broken, "by hand", ex=60))
    api.run(api.client.set(key, b"broken " + kept, keepttl=True))
    answer = api.ask("GET", "/v1/sms/status/m-1?webhookStatus=true", credential(api, "acme-sendexa"))
    api.run(api.client.set(key, kept, keepttl=True))
    api.run(api.client.delete(broken))
    assert ["evt-sendexa"] == [one["eventId"] for one in answer.json()["data"]["webhookStatus"]]


def enqueue(api: Api, content: bytes) -> tuple[int, object]:
    headers = credential(api, "producer") | {"Content-Type": "application/json"}
    answer = api.ask("POST", "/v1/status-changes", headers, content)
    return answer.status_code, answer.json()


CHANGE = change(uuid="h-1", workspace="acme-zeckta", event_id="h-1", cost="0.100000000001")


def test_enqueued_as_it_came(api: Api) -> None:
    """What is posted is on the queue with every digit."""
    api.run(api.client.delete(api.keys.events))
    assert 202 == enqueue(api, CHANGE.to_json())[0]
    ((_, fields),) = api.run(api.client.xrange(api.keys.events))
    assert CHANGE == StatusChange.from_json(fields[b"event"])


def test_back_pressure(api: Api) -> None:
    """While the queue is long, nothing more is taken, and when to come again is said."""
    api.run(api.client.delete(api.keys.events))
    many = b"[" + b",".join([CHANGE.to_json()] * (api.parts.max_queued + 1)) + b"]"
    assert 202 == enqueue(api, many)[0]
    headers = credential(api, "producer") | {"Content-Type": "application/json"}
    answer = api.ask("POST", "/v1/status-changes", headers, CHANGE.to_json())
    assert (503, "5") == (answer.status_code, answer.headers["Retry-After"])
    assert api.parts.max_queued + 1 == api.run(api.client.xlen(api.keys.events))
    api.run(api.client.delete(api.keys.events))


def test_too_many_and_too_long(api: Api) -> None:
    """More than 1,000 at once are refused, and so are more than 8 MB; nothing is taken of them."""
    api.run(api.client.delete(api.keys.events))
    many = b"[" + b",".join([CHANGE.to_json()] * 1001) + b"]"
    assert (400, {"error": "give 1 to 1,000 status changes at once"}) == enqueue(api, many)
    assert 413 == enqueue(api, b"[" + b" " * (8 * 1024 * 1024) + b"]")[0]
    assert 0 == api.run(api.client.xlen(api.keys.events))


@pytest.mark.parametrize("body", [b"[" + b"1," * 4_000_000 + b"1]", b"[" + b"[]," * 2_700_000 + b"1]"])
def test_what_is_too_many_takes_no_memory(body: bytes) -> None:
    """A call of 8 MB with millions of things in it is refused once there is one too many."""
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="1 to 1,000"):
        status_changes._split(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


def test_whitespace_before_many(api: Api) -> None:
    """An array is one, whatever stands before it."""
    api.run(api.client.delete(api.keys.events))
    status, answer = enqueue(api, b" \r\n\t" * 2000 + b"[" + CHANGE.to_json() + b"]")
    assert (202, 1) == (status, len(answer["results"]))  # type: ignore[index]


def test_others_are_served_while_changes_are_looked_at(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 short status changes 50 are looked at between two turns of the others; of long ones, one."""
    looked_at, look = 0, status_changes.looked_at

    def counted(*given: Any) -> status_changes.Looked:
        nonlocal looked_at
        looked_at += 1
        return look(*given)

    monkeypatch.setattr(status_changes, "looked_at", counted)

    async def most_of(body: bytes) -> int:
        most = 0
        call = asyncio.ensure_future(status_changes._enqueue(api.parts, status_changes._split(body)))
        while not call.done():
            before = looked_at
            await asyncio.sleep(0)
            most = max(most, looked_at - before)
        return most

    long = change(uuid="h-1", reference={"x": "y" * 60_000}).to_json()
    short = api.run(most_of(b"[" + b",".join([CHANGE.to_json()] * 1000) + b"]"))
    wrong = api.run(most_of(b"[" + b",".join([b"{}"] * 1000) + b"]"))
    api.run(api.client.delete(api.keys.events))
    assert (50, 50, 1) == (short, wrong, api.run(most_of(b"[" + b",".join([long] * 20) + b"]")))
    assert 1000 + 1000 + 20 == looked_at
    api.run(api.client.delete(api.keys.events))


def test_unknown_workspaces_and_what_is_certain(api: Api) -> None:
    """What no worker could use is told for each: an unknown workspace, a URL that is never used, a time too far ahead."""
    api.run(api.client.delete(api.keys.events))
    some = [
        CHANGE,
        change(uuid="h-2", workspace="nobody"),
        change(uuid="h-3", workspace="acme-zeckta").replace(callback_url="gopher://customer.example/"),
        change(uuid="h-4", workspace="acme-zeckta").replace(callback_url="http://customer.example/"),
        change(uuid="h-5", workspace="acme-zeckta", at_ms=api.now + 2 * 3_600_000),
        change(uuid="h-6", workspace="acme-sendexa"),
    ]
    status, answer = enqueue(api, b"[" + b",".join(one.to_json() for one in some) + b"]")
    problems = [one.get("problem") for one in answer["results"]]  # type: ignore[index]
    assert (202, 2) == (status, api.run(api.client.xlen(api.keys.events)))
    assert problems == [
        None,
        "workspace: there is no workspace 'nobody'",
        "callback URL must start with https://",
        "callback URL must be https",
        "timestamp: lies 2.0 h ahead; at most 1 h is allowed",
        None,
    ]
    api.run(api.client.delete(api.keys.events))


BODIES: dict[str, tuple[dict[str, str], bytes, int, str]] = {
    "BOM": ({}, b"\xef\xbb\xbf[]", 415, "starts with a byte order mark (BOM): send UTF-8 without one"),
    "UTF-16": ({}, "[{}]".encode("utf-16"), 415, "is UTF-16: send UTF-8"),
    "UTF-16 without BOM": ({}, "[{}]".encode("utf-16-le"), 415, "is UTF-16: send UTF-8"),
    "UTF-32": ({}, "[{}]".encode("utf-32"), 415, "is UTF-32: send UTF-8"),
    "gzip unsaid": ({}, gzip.compress(b"[]"), 415, "is compressed (gzip): send it as it is"),
    "gzip": (
        {"Content-Encoding": "gzip"},
        gzip.compress(b"[]"),
        415,
        "Content-Encoding gzip: send the body as it is",
    ),
    "deflate": (
        {"Content-Encoding": "deflate"},
        b"x",
        415,
        "Content-Encoding deflate: send the body as it is",
    ),
    "br": ({"Content-Encoding": "br"}, b"x", 415, "Content-Encoding br: send the body as it is"),
    "two": (
        {"Content-Encoding": "identity, gzip"},
        b"x",
        415,
        "Content-Encoding identity, gzip: send the body as it is",
    ),
    "charset": (
        {"Content-Type": "application/json; charset=UTF-16LE"},
        b"x",
        415,
        "charset UTF-16LE: send UTF-8",
    ),
    "latin": (
        {"Content-Type": 'text/plain;Charset="ISO-8859-1"'},
        b"x",
        415,
        "charset ISO-8859-1: send UTF-8",
    ),
    "not UTF-8": ({}, '["ü"]'.encode("latin-1"), 415, "not valid UTF-8: invalid start byte at byte 2"),
    "identity": ({"Content-Encoding": "Identity"}, b"[]", 400, "give 1 to 1,000 status changes at once"),
    "utf-8": (
        {"Content-Type": "application/json; charset=UTF-8"},
        b"[]",
        400,
        "give 1 to 1,000 status changes at once",
    ),
}


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize(
    ("who", "method", "path"),
    [
        ("producer", "POST", "/v1/status-changes"),
        ("acme-qlara", "PUT", "/partner-gateway/v1/webhooks/delivery-status"),
    ],
)
def test_a_body_that_is_not_plain_json(api: Api, case: str, who: str, method: str, path: str) -> None:
    """A body in another encoding, or compressed, is refused with a text that names it, on each path that reads one."""
    headers, body, status, text = BODIES[case]
    if who != "producer" and status != 415 and "send" not in text:
        return
    answer = api.ask(
        method, path, credential(api, who) | {"Content-Type": "application/json"} | headers, body
    )
    assert status == answer.status_code
    assert text in answer.text
    if "Content-Encoding" in text:
        assert "identity" == answer.headers["Accept-Encoding"]


class Body:
    """A request's body that knows whether it was asked for."""

    asked = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.asked = True
        yield b"[]"


def test_back_pressure_before_the_body(api: Api) -> None:
    """While the queue is long, and where its length says that it is too long, a body is not even read."""
    api.run(api.client.delete(api.keys.events))
    headers, first, second = credential(api, "producer"), Body(), Body()
    too_long = headers | {"Content-Length": str(8 * 1024 * 1024 + 1)}
    answers = [api.ask("POST", "/v1/status-changes", too_long, first).status_code]
    many = b"[" + b",".join([CHANGE.to_json()] * (api.parts.max_queued + 1)) + b"]"
    assert 202 == enqueue(api, many)[0]
    answers.append(api.ask("POST", "/v1/status-changes", headers, second).status_code)
    api.run(api.client.delete(api.keys.events))
    assert ([413, 503], False, False) == (answers, first.asked, second.asked)


def test_calls_of_one_key_at_once(api: Api) -> None:
    """A ninth call of a key while eight hold their bodies is told to come again, and another key's is not."""
    key = api.api_keys["producer"].partition(".")[0]
    api.parts.enqueuing[key] = 8
    answer = api.ask("POST", "/v1/status-changes", credential(api, "producer"), b"[]")
    del api.parts.enqueuing[key]
    assert (429, "1") == (answer.status_code, answer.headers["Retry-After"])
    assert 400 == enqueue(api, b"[]")[0]
    assert 0 == api.parts.enqueuing[key]


def test_redis_that_fills_up_in_the_middle(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken before Redis was full is told from what was not; nothing more is tried then."""
    monkeypatch.setattr(status_changes, "SLICE", 2)
    api.run(api.client.delete(api.keys.events))
    take, calls = type(api.parts.producer).enqueue_ready, 0

    async def fills_up(producer: AsyncDispatcher, some: Iterable[Ready]) -> list[str]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RedisFull("full")
        return await take(producer, some)

    monkeypatch.setattr(type(api.parts.producer), "enqueue_ready", fills_up)
    some = [change(uuid=f"h-{n}", workspace="acme-zeckta", event_id=f"h-{n}").to_json() for n in range(6)]
    status, answer = enqueue(api, b"[" + b",".join(some) + b"]")
    api.run(api.client.delete(api.keys.events))
    words = [one["result"] for one in answer["results"]]  # type: ignore[index]
    assert (503, 2, ["queued"] * 2 + ["unconfirmed"] * 4) == (status, calls, words)


def test_cut_connection(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Redis goes away in the middle, what is on the queue for certain is told from what may be."""

    async def cut(*_: object) -> list[str]:
        raise EnqueueInterrupted("cut", ["h-1"])

    monkeypatch.setattr(type(api.parts.producer), "enqueue_ready", cut)
    other = change(uuid="h-2", workspace="acme-zeckta", event_id="h-2")
    status, body = enqueue(api, b"[" + CHANGE.to_json() + b"," + other.to_json() + b"]")
    results = [{"eventId": "h-1", "result": "queued"}, {"eventId": "h-2", "result": "unconfirmed"}]
    assert (503, {"queued": 1, "results": results}) == (status, body)


@pytest.mark.parametrize("dialect", PLATFORMS)
def test_key_of_another_platform(api: Api, dialect: str) -> None:
    """A platform's paths open only for the keys of its own workspaces, however they are shown."""
    path = OWN[dialect][0].format("")
    for other in (*PLATFORMS, "producer"):
        name = f"acme-{other}" if other != "producer" else other
        text = api.api_keys[name]
        basic = base64.b64encode(text.replace(".", ":", 1).encode()).decode()
        for headers in (
            {"X-Api-Key": text},
            {"Authorization": f"Bearer {text}"},
            {"Authorization": f"Basic {basic}"},
        ):
            status = api.ask("GET", path, headers).status_code
            right = other == dialect and headers == credential(api, name)
            assert (200 if right else 403 if dialect == "namirial" else 401) == status


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "key_",
        "{id}",
        "{id}.",
        "{id}.wrong",
        "{secret}",
        ".{secret}",
        "{id}.{secret}x",
        "é",
        "*",
        "{id}.\x00",
    ],
)
def test_wrong_keys(api: Api, text: str) -> None:
    """Neither an id without its secret, nor a secret without its id, nor nonsense opens anything."""
    id_, _, secret = api.api_keys["acme-zeckta"].partition(".")
    given = text.replace("{id}", id_).replace("{secret}", secret)
    found = api.run(api.parts.api_keys.verify(given))
    assert None is found


def base64_of(text: bytes) -> str:
    return base64.b64encode(text).decode()


UNREADABLE = [
    "",
    "Basic",
    "Basic ",
    "Basic %%%",
    "Basic " + base64_of(b""),
    "Basic " + base64_of(b"no colon"),
    "Basic " + base64_of(b"two:co:lons"),
    "Basic " + base64_of("schlüssel:ä".encode()),
    "Basic " + base64_of(b"\xff\xfe:\x00"),
    "Bearer",
    "Bearer ",
    "Bearer two words",
    "Bearer key:secret",
    "Digest username=a",
    "nonsense",
]


@pytest.mark.parametrize("value", UNREADABLE)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", OWN["sendexa"][0]), ("GET", OWN["zeckta"][0]), ("POST", "/v1/status-changes")],
)
def test_a_header_that_shows_no_key(api: Api, method: str, path: str, value: str) -> None:
    """Whatever stands in Authorization and is no key is a 401 that says so, with the scheme to use."""
    answer = api.ask(method, path.format(""), {"Authorization": value}, b"{}" if method == "POST" else None)
    assert 401 == answer.status_code
    told = answer.json()
    text = told.get("message", told.get("error"))
    assert text == "the API key is not valid" or text.startswith("no API key: send Authorization: B")
    assert answer.headers["WWW-Authenticate"] == ("Basic" if "/sms/status" in path else "Bearer")


NO_KEY = {
    "zeckta": "no API key: send Authorization: Bearer KEY",
    "sendexa": "no API key: send Authorization: Basic KEY:SECRET, in base64",
    "namirial": "no API key: send X-Api-Key: KEY",
    "qlara": "no API key: send X-Api-Key: KEY",
    "producer": "no API key: send Authorization: Bearer KEY",
}


@pytest.mark.parametrize("platform", NO_KEY)
def test_no_key_is_not_a_wrong_key(api: Api, platform: str) -> None:
    """Without a key the answer shows the header to send; a wrong key, a revoked one and another's are all alike."""
    method, path = (
        ("POST", "/v1/status-changes") if platform == "producer" else ("GET", OWN[platform][0].format(""))
    )
    name = "producer" if platform == "producer" else f"acme-{platform}"
    others = api.api_keys["acme-zeckta" if platform != "zeckta" else "producer"]
    for key in (f"{api.api_keys[name][:12]}", f"key_000000000000.{'a' * 43}", others):
        answer = api.ask(method, path, header_with(key, platform)).json()
        assert "the API key is not valid" in (answer.get("message"), answer.get("error"))
    answer = api.ask(method, path).json()
    assert NO_KEY[platform] in (answer.get("message"), answer.get("error"))


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "/v1/status-changes/", 404, "Not Found: there is such a path without the slash at its end"),
        (
            "GET",
            "/v1/messaging/sms/messages/m/",
            404,
            "Not Found: there is such a path without the slash at its end",
        ),
        ("POST", "/v1/status-change", 404, "Not Found: did you mean /v1/status-changes?"),
        ("POST", "/v2/status-changes", 404, "Not Found: did you mean /v1/status-changes?"),
        ("POST", "/v1/nothing", 404, "Not Found"),
        ("POST", f"/v1/status-changes{'s' * 5000}", 404, "Not Found"),
        ("GET", "/v1/status-changes", 405, "Method Not Allowed: use POST"),
    ],
)
def test_near_paths(api: Api, method: str, path: str, status: int, text: str) -> None:
    """A path with a slash too many or a letter too few is told of the right one, and a wrong method of the right."""
    answer = api.ask(method, path)
    assert status == answer.status_code
    assert text in (answer.json().get("error"), answer.json().get("message"))


def test_key_is_kept_as_a_digest(api: Api) -> None:
    """The secret is nowhere in Redis, in no list, in no repr."""
    id_, _, secret = api.api_keys["acme-zeckta"].partition(".")
    kept = api.run(api.client.hgetall(api.keys.api_key(id_)))
    listed = api.run(api.parts.api_keys.list("acme-zeckta"))
    assert secret.encode() not in b" ".join(kept.values())
    assert secret not in repr(listed)
    assert {"acme-zeckta"} == {key.workspace for key in listed}


def test_revoked_key(api: Api) -> None:
    """A key that is revoked opens nothing from the next call on; another workspace cannot revoke it."""
    keys = api.parts.api_keys
    key, text = api.run(keys.add("acme-zeckta", "zeckta", "short", now_ms=1, rate_per_second=10))
    with pytest.raises(NotFound):
        api.run(keys.revoke("rival-zeckta", key.id))
    assert key == api.run(keys.verify(text))
    api.run(keys.revoke("acme-zeckta", key.id))
    assert None is api.run(keys.verify(text))


def test_keys_go_with_their_workspace(api: Api) -> None:
    """A workspace that is made anew under an old name does not open for the old keys."""
    ledger, keys = Ledger(api.client.execute_command, api.keys), api.parts.api_keys
    api.run(api.parts.workspaces.add("passing", "qlara", now_ms=1))
    _, text = api.run(keys.add("passing", "qlara", "k", now_ms=1, rate_per_second=1))
    assert api.run(keys.verify(text))
    api.run(api.parts.workspaces.remove("passing", ledger))
    api.run(api.parts.workspaces.add("passing", "qlara", now_ms=1))
    assert None is api.run(keys.verify(text))
    assert [] == api.run(keys.list("passing"))
    api.run(api.parts.workspaces.remove("passing", ledger))


def test_key_that_is_added_while_its_workspace_goes(api: Api) -> None:
    """A key whose workspace was removed meanwhile is not left behind."""
    keys = api.parts.api_keys
    call = keys._call

    async def removed(*command: Argument) -> object:
        answer = await call(*command)
        if command[0] == "SADD":
            await call("DEL", command[1])
        return answer

    keys._call = removed  # type: ignore[method-assign]
    try:
        with pytest.raises(NotFound):
            api.run(keys.add("gone", "zeckta", "k", now_ms=1, rate_per_second=1))
    finally:
        keys._call = call  # type: ignore[method-assign]
    found = api.run(api.client.keys("*api-key:*"))
    assert len(found) == sum(
        len(api.run(keys.list(w))) for w in [*api.api_keys, "*"] if w not in ("producer", "slow")
    )


def test_questions_are_answered_while_redis_is_full(api: Api) -> None:
    """Redis that takes nothing more still answers; the rate is counted here, then."""
    api.run(api.client.config_set("maxmemory", 1))
    try:
        _, text = "", api.api_keys["slow"]
        headers = {"Authorization": f"Bearer {text}"}
        answers = [api.ask("GET", OWN["zeckta"][0].format(""), headers).status_code for _ in range(4)]
    finally:
        api.run(api.client.config_set("maxmemory", 0))
    assert (200, True) == (answers[0], answers.count(429) >= 2)


def test_body_is_read_only_for_who_has_a_key(api: Api) -> None:
    """Without a key a body is not even looked at; with one, only so much of it."""
    path, headers = "/partner-gateway/v1/webhooks/delivery-status", {"Content-Type": "application/json"}
    assert 401 == api.ask("POST", path, headers, b"{nonsense" * 100_000).status_code
    assert 413 == api.ask("POST", path, headers | credential(api, "rival-qlara"), b" " * 20_000).status_code


LONG = {
    "namirial": LISTS["namirial"],
    "qlara": LISTS["qlara"],
    "sendexa": ["/v1/sms/analytics"],
}


def another_process(api: Api) -> Searches:
    """The guard as another process of the API has it."""
    return Searches(api.wire.call, api.keys, api.parts.api_keys)


@pytest.mark.parametrize(
    ("dialect", "path"), [(name, path) for name, paths in LONG.items() for path in paths]
)
def test_one_long_search_at_a_time(
    api: Api, monkeypatch: pytest.MonkeyPatch, dialect: str, path: str
) -> None:
    """While a workspace has a long search in any process, its next one is told to wait, and nobody else's."""
    monkeypatch.setattr(searches, "FREE", 0)
    other, workspace = another_process(api), f"rival-{dialect}"
    token = api.run(other.begin(workspace))
    held = api.ask("GET", path, credential(api, workspace))
    assert 0 < api.run(api.client.pttl(api.keys.search(workspace))) <= searches.LIFE_MS
    assert (429, "1") == (held.status_code, held.headers["Retry-After"])
    assert "wait for the one before" in held.text
    assert 200 == api.ask("GET", path, credential(api, f"acme-{dialect}")).status_code
    api.run(other.end(workspace, token))
    assert 200 == api.ask("GET", path, credential(api, workspace)).status_code
    assert [] == api.run(api.client.keys(f"{api.keys.root}search:*"))


def test_a_short_search_needs_no_guard(api: Api) -> None:
    """What looks at few messages goes on beside a long search, and beside others of its kind."""
    token = api.run(another_process(api).begin("rival-namirial"))
    answer = api.ask("GET", LISTS["namirial"][0], credential(api, "rival-namirial"))
    api.run(another_process(api).end("rival-namirial", token))
    assert 200 == answer.status_code


def test_only_who_holds_the_guard_ends_it(api: Api) -> None:
    """A search that lasted longer than its guard does not end the one that came after it."""
    late, other = another_process(api), another_process(api)
    token = api.run(late.begin("w"))
    api.run(api.client.delete(api.keys.search("w")))
    following = api.run(other.begin("w"))
    api.run(late.end("w", token))
    assert (True, "") == (bool(following), api.run(another_process(api).begin("w")))
    api.run(other.end("w", following))
    assert 0 == api.run(api.client.exists(api.keys.search("w")))


def test_a_long_search_while_redis_is_full(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis that takes no guard still answers; one search at a time is counted here, then."""
    monkeypatch.setattr(searches, "FREE", 0)
    path, headers = LISTS["namirial"][0], credential(api, "rival-namirial")
    api.run(api.client.config_set("maxmemory", 1))
    try:
        first = api.ask("GET", path, headers).status_code
        token = api.run(api.parts.searches.begin("rival-namirial"))
        second = api.ask("GET", path, headers).status_code
        api.run(api.parts.searches.end("rival-namirial", token))
        third = api.ask("GET", path, headers).status_code
    finally:
        api.run(api.client.config_set("maxmemory", 0))
    assert (200, 429, 200) == (first, second, third)


def spent_by(api: Api, rate: int, *counts: int) -> tuple[int, int]:
    """How often a key was counted for a search that looks at so many messages, and in how many seconds."""
    made = api.parts.api_keys.add("acme-namirial", "namirial", "s", now_ms=1, rate_per_second=rate)
    key, _ = api.run(made)

    async def look() -> None:
        search = searches.Search(api.parts.searches, key)
        try:
            for count in counts:
                await search.look_at(count)
        finally:
            await search.close()

    api.run(look())
    seconds = api.run(api.client.keys(f"{api.keys.root}api-rate:{key.id}:*"))
    return sum(int(api.run(api.client.get(one))) for one in seconds), len(seconds)


def test_a_search_is_paid_for_by_what_it_reads(api: Api) -> None:
    """The first 500 messages are the call's, each further 500 cost as much as another one."""
    paid = [spent_by(api, 5000, *counts)[0] for counts in ((500,), (100, 400, 1), (500, 500, 500, 1100))]
    assert [0, 1, 5] == paid


def test_a_search_waits_for_its_keys_rate(api: Api) -> None:
    """A key with one call a second reads on in the next second, and none of its seconds is overdrawn by waiting."""
    calls, seconds = spent_by(api, 1, 500, 500, 500)
    assert (2, True) == (seconds, calls <= 4)


def test_a_search_that_would_take_too_long(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the key's rate does not let end in time is told so, and gives the guard back."""
    monkeypatch.setattr(searches, "MAX_SECONDS", 0)
    with pytest.raises(searches.SearchRefused, match="narrow it"):
        spent_by(api, 1, *[500] * 5)
    assert [] == api.run(api.client.keys(f"{api.keys.root}search:*"))


def test_what_is_left_after_a_search(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer's rate has the search in it."""
    monkeypatch.setattr(searches, "A_CALL", 1)
    answer = api.ask("GET", LISTS["qlara"][0], credential(api, "rival-qlara"))
    assert int(answer.headers["X-RateLimit-Remaining"]) <= 5000 - 3


def test_callbacks_of_a_message_are_the_latest(api: Api) -> None:
    """Of a message with thousands of callbacks the last 100 are read and shown."""
    workspace, key = "acme-sendexa", api.keys.message("acme-sendexa", "m-1")
    before = api.run(api.client.get(key))
    entry = api.run(api.client.get(api.keys.event(workspace, "evt-sendexa")))
    ids = [f"many-{number}" for number in range(250)]
    api.run(api.client.mset({api.keys.event(workspace, id_): entry for id_ in ids}))
    api.run(api.client.set(key, " ".join(ids), keepttl=True))
    answer = api.ask("GET", "/v1/sms/status/m-1?webhookStatus=true", credential(api, workspace))
    api.run(api.client.set(key, before, keepttl=True))
    api.run(api.client.delete(*(api.keys.event(workspace, id_) for id_ in ids)))
    assert ids[-100:] == [one["eventId"] for one in answer.json()["data"]["webhookStatus"]]


def test_documented_base_url_of_qlara(api: Api) -> None:
    """The paths are there under /api, too, with the platform's errors."""
    path, headers = "/partner-gateway/v1/messages/status/{}?channel=SMS", credential(api, "acme-qlara")
    assert (
        api.ask("GET", path.format("order-1"), headers).json()
        == api.ask("GET", "/api" + path.format("order-1"), headers).json()
    )
    assert {"status": 404, "error": "Not Found"}.items() <= api.ask(
        "GET", "/api" + path.format("x"), headers
    ).json().items()


@pytest.mark.parametrize("slash", ["/", "%2F"])
def test_ids_with_a_slash(api: Api, slash: str) -> None:
    """A reference key may hold what a path is made of."""
    path = f"/api/messagestatus/reference/2027{slash}1"
    assert {"messages": []} == api.ask("GET", path, credential(api, "acme-namirial")).json()


def test_every_path_is_tried_by_two_workspaces(api: Api) -> None:
    """No path of a customer is without a test of isolation."""
    tried = [path for paths in (*OWN.values(), *LISTS.values()) for path in paths]
    tried += ["/v1/sms/analytics", "/partner-gateway/v1/webhooks/delivery-status"]
    for path in set(api.app.openapi()["paths"]) - {"/v1/status-changes", "/v1/portal-links"}:
        pattern = re.sub(r"\\\{\w+\\\}", "[^?]+", re.escape(path))
        assert any(re.fullmatch(rf"{pattern}(\?.*)?", one) for one in tried), path


@pytest.mark.parametrize("path", ["/", "/nothing", "/openapi.json", "/v1/messaging/nothing", "/%ff"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "OPTIONS"])
def test_no_answer_is_kept(api: Api, method: str, path: str) -> None:
    """Unknown paths and methods, too, are answered with `Cache-Control: no-store`, and nobody need show a key for that."""
    assert api.ask(method, path).status_code in (200, 404, 405)


def test_no_page_of_documentation(api: Api) -> None:
    """There is none unless the operator asks for it; the OpenAPI document is there."""
    paths = ("/docs", "/docs/", "/docs/start.js", "/redoc", "/docs/oauth2-redirect", "/openapi.json")
    assert [404] * 5 + [200] == [api.ask("GET", path).status_code for path in paths]


@pytest.fixture(scope="module")
def documented_api(api: Api) -> Iterator[Api]:
    """The API with its page, without messages."""
    documented = Api(api.url, redis_away=True, docs=True)
    yield documented
    documented.close()


def test_page_of_documentation(documented_api: Api) -> None:
    """It loads nothing from elsewhere: all that it names is served here, and its policy allows nothing else."""
    page = documented_api.ask("GET", "/docs")
    assert (200, "text/html; charset=utf-8") == (page.status_code, page.headers["Content-Type"])
    named = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert ["data:,", "docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"] == named
    assert [] == re.findall(r"<script(?! src=)|\bon\w+=|<style|https?:|//", page.text)
    for name in named[1:]:
        answer = documented_api.ask("GET", f"/{name}")
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        assert (200, kind) == (answer.status_code, answer.headers["Content-Type"].partition(";")[0])
        assert "nosniff" == answer.headers["X-Content-Type-Options"]
    policy = dict(one.split(" ", 1) for one in page.headers["Content-Security-Policy"].split("; "))
    assert ("'none'", "'self'", "'self'") == (
        policy["default-src"],
        policy["script-src"],
        policy["connect-src"],
    )


def test_start_of_the_page(documented_api: Api) -> None:
    """It shows our document and asks no validator of others; nothing but its own files is under its path."""
    start = documented_api.ask("GET", "/docs/start.js").text
    assert 'url: "openapi.json"' in start
    assert "validatorUrl: null" in start
    for name in ("redoc.standalone.js", "..%2F__init__.py", "%2e%2e/core.py", "start.js/x"):
        assert 404 == documented_api.ask("GET", f"/docs/{name}").status_code


def test_every_answer_has_an_example(api: Api) -> None:
    """Each answer of each operation, and each body, is shown in the OpenAPI document."""
    for path, operations in api.app.openapi()["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            bodies = [*operation["responses"].values(), operation.get("requestBody", {"description": ""})]
            for answer in (
                one for one in bodies if one.get("description") != "It is gone." and "content" in one
            ):
                content = answer["content"]["application/json"]
                assert {"example", "examples"} & set(content), (method, path)
            assert {"401", "403"} & set(operation["responses"]), (method, path)
            assert {"429", "503"} <= set(operation["responses"]), (method, path)


def trail(api: Api, workspace: str) -> list[tuple[str, str, object, object]]:
    """What the trail has of a workspace, the oldest first: who, what, from, to."""
    found = api.run(api.parts.audit.latest(100, workspace))
    return [(one.who.name, one.what, one.before, one.after) for one in reversed(found)]


def test_trail_of_a_webhook(changeable: Api) -> None:
    """Each change by the API is in the trail with its key, from what and to what; what changed nothing is not."""
    key_id = changeable.api_keys["rival-qlara"].partition(".")[0]
    before = "https://rival-qlara.example/hooks"
    for method, url in (
        ("PUT", before),
        ("PUT", "https://a.example/x?token=hush"),
        ("POST", "https://b.example/"),
        ("DELETE", ""),
        ("DELETE", ""),
        ("POST", "https://c.example/"),
        ("PUT", "https://d.example/"),  # one change too many
    ):
        change_webhook(changeable, method, url)
    who = f"{key_id} (test)"
    assert [
        (who, "webhook.replace", {"callbackUrl": before}, {"callbackUrl": "https://a.example/x?…"}),
        (who, "webhook.delete", {"callbackUrl": "https://a.example/x?…"}, {"callbackUrl": None}),
        (who, "webhook.create", {"callbackUrl": None}, {"callbackUrl": "https://c.example/"}),
    ] == trail(changeable, "rival-qlara")


def test_key_that_may_only_read(changeable: Api) -> None:
    """It asks as any other, and changes no webhook, in Qlara's form; keys made before there were such ones change it."""
    keys = changeable.parts.api_keys
    key, text = changeable.run(
        keys.add("rival-qlara", "qlara", "wall", now_ms=1, rate_per_second=100, read_only=True)
    )
    assert [True, False] == [one.read_only for one in changeable.run(keys.list("rival-qlara"))]
    able, changeable.api_keys["rival-qlara"] = changeable.api_keys["rival-qlara"], text
    assert 200 == changeable.ask("GET", WEBHOOK, {"X-Api-Key": text}).status_code
    for method in ("POST", "PUT", "DELETE"):
        answer = change_webhook(changeable, method, "" if method == "DELETE" else "https://a.example/")
        assert (403, "Forbidden") == (answer.status_code, answer.json()["error"])
    assert [] == trail(changeable, "rival-qlara")
    changeable.api_keys["rival-qlara"] = able
    kept = changeable.run(changeable.client.hgetall(changeable.keys.api_key(able.partition(".")[0])))
    assert b"read_only" not in kept
    assert 200 == change_webhook(changeable, "PUT", "https://a.example/").status_code
    changeable.run(changeable.parts.refusals.close())
    assert 3 == changeable.run(changeable.parts.refusals.last(changeable.now, 1))["read_only", key.id]


def test_refusals_are_counted(changeable: Api) -> None:
    """By reason, and by key where there is such a key; each platform's alike."""
    path = OWN["zeckta"][0].format("")
    id_, _, secret = changeable.api_keys["acme-zeckta"].partition(".")
    other = changeable.api_keys["acme-sendexa"]
    for text in ("", "nonsense", f"key_{'0' * 12}.{secret}", f"{id_}.{secret[::-1]}", other):
        headers = {"Authorization": f"Bearer {text}"} if text else {}
        assert 401 == changeable.ask("GET", path, headers).status_code
    slow = {"Authorization": f"Bearer {changeable.api_keys['slow']}"}
    answers = [changeable.ask("GET", path, slow).status_code for _ in range(5)]
    changeable.ask("GET", OWN["namirial"][0].format(""), {"X-Api-Key": "wrong"})
    for number in range(5):
        change_webhook(changeable, "PUT", f"https://{number}.example/")
    changeable.run(changeable.parts.refusals.close())
    slow_id, qlara_id = (changeable.api_keys[name].partition(".")[0] for name in ("slow", "rival-qlara"))
    assert {
        ("missing", ""): 1,
        ("wrong", ""): 3,
        ("wrong", id_): 1,
        ("other_platform", other.partition(".")[0]): 1,
        ("rate", slow_id): answers.count(429),
        ("webhook_rate", qlara_id): 2,
    } == changeable.run(changeable.parts.refusals.last(changeable.now, 1))
    assert answers.count(429) >= 2
    assert {"missing": 1, "wrong": 4, "other_platform": 1, "rate": answers.count(429), "webhook_rate": 2} == {
        reason: count for reason, count in changeable.run(changeable.parts.refusals.totals()).items() if count
    }


def test_change_stands_without_its_entry(changeable: Api) -> None:
    """A trail that cannot be written to does not fail a change."""
    changeable.run(changeable.client.set(changeable.keys.audit, "no stream", ex=60))
    assert 200 == change_webhook(changeable, "PUT", "https://a.example/").status_code
    found = changeable.run(changeable.parts.workspaces.require("rival-qlara"))
    assert "https://a.example/" == found.callback_url
