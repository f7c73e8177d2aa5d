"""What the operator is told, by real POSTs to a real server."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from aiohttp import web
from msgspec.structs import replace
from structlog.testing import capture_logs

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Attempt, State
from dispatcher.sending.transport import CallbackTransport, http_client
from dispatcher.store.client_certificates import EndingCertificate
from dispatcher.store.replies import Ended
from dispatcher.store.stats import Figures
from dispatcher.worker.alerts import DAY_SECONDS, MAX_ALERTS, MAX_OF_WORKSPACE, AlertOptions, Alerts
from dispatcher.worker.metrics import Metrics
from tasks.receiver import Received, Receiver
from tests.fakes import until
from tests.http.raw_server import answer as web_answer
from tests.http.raw_server import answers, serving

SECRET = "whsec_" + "QUJD" * 10
NOW_MS = 1_800_000_000_000
A = EndpointName("acme", "https://a.example:443")
FAILED = Ended(
    "acme",
    "e1",
    State.FAILED,
    "https://a.example:443",
    "MESSAGE_SENT",
    Attempt(NOW_MS, 5, 503, "http_503"),
    "database is gone",
)


def told(work: Callable[[Alerts], Awaitable[None]], statuses: list[int] | None = None) -> list[Received]:
    """What a server got while alerts did their work; it answers with one status after the other, then 200."""
    got: list[Received] = []
    left = list(statuses or [])

    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=left.pop(0) if left else 200)

    async def main() -> None:
        receiver = Receiver(lambda _: [SECRET], got.append, answer)
        port = await receiver.listen("127.0.0.1")
        client = http_client(CallbackTransport(AddressPolicy.of(["127.0.0.0/8"]), 5.0))
        options = AlertOptions(f"http://127.0.0.1:{port}/alerts", SECRET, down_seconds=900, success_rate=0.9)
        try:
            await work(Alerts("w1", options, client))
        finally:
            await client.aclose()
            await receiver.close()

    asyncio.run(main())
    return got


def test_what_ended_is_told_together() -> None:
    """Callbacks of one endpoint that ended alike are one alert, with how many and the last answer."""

    async def work(alerts: Alerts) -> None:
        for _ in range(17):
            alerts.ended(FAILED)
        await alerts.send(NOW_MS)
        await alerts.send(NOW_MS)

    (got,) = told(work)
    document = json.loads(got.body)
    assert ("dispatcher.worker.alerts", "w1") == (document["type"], document["worker"])
    assert [
        {
            "kind": "callbacks_ended",
            "workspace": "acme",
            "endpoint": "https://a.example:443",
            "state": "failed",
            "count": 17,
            "eventId": "e1",
            "lastStatus": 503,
            "error": "http_503",
            "answer": "database is gone",
        }
    ] == document["alerts"]


def test_a_subscription_that_was_disabled_is_told() -> None:
    """With the reason."""

    async def work(alerts: Alerts) -> None:
        alerts.disabled("acme", "crm", "https://crm.example:443", "it answered 410 to every attempt")
        await alerts.send(NOW_MS)

    (got,) = told(work)
    assert [
        {
            "kind": "subscription_disabled",
            "workspace": "acme",
            "subscription": "crm",
            "endpoint": "https://crm.example:443",
            "reason": "it answered 410 to every attempt",
        }
    ] == json.loads(got.body)["alerts"]


def test_a_client_certificate_that_ends_is_told_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """With when it ends; again after a day, and at once for another subscription."""
    clock = [1000.0]
    monkeypatch.setattr("dispatcher.worker.alerts.time.monotonic", lambda: clock[0])
    alerts = Alerts("worker-1")
    crm, billing = (EndingCertificate("acme", name, 2000) for name in ("crm", "billing"))

    def told(*ending: EndingCertificate, now_ms: int = 1000) -> list[tuple[str, bool]]:
        with capture_logs() as lines:
            alerts.certificates(ending, now_ms)
        assert {line["event"] for line in lines} <= {"subscription.certificate_ends"}
        return [(line["subscription"], line["hasEnded"]) for line in lines]

    assert told(crm) == [("crm", False)]
    clock[0] += DAY_SECONDS - 1
    assert told(crm, billing) == [("billing", False)]
    clock[0] += 1
    assert told(crm) == [("crm", False)]
    assert told(crm, billing, now_ms=2000) == [("crm", True), ("billing", True)]


def test_alerts_are_signed() -> None:
    """They verify as callbacks do."""

    async def work(alerts: Alerts) -> None:
        alerts.ended(FAILED)
        await alerts.send(round(time.time() * 1000))

    (got,) = told(work)
    assert None is got.problem


def test_an_answer_that_cannot_be_unpacked_is_an_answer() -> None:
    """The status is all that is looked at: what says that it is packed and is not, is not read."""

    async def main() -> None:
        content = web_answer(200, b"no gzip", "Content-Encoding: gzip")
        async with (
            serving(answers(content)) as server,
            http_client(CallbackTransport(AddressPolicy.of(["127.0.0.0/8"]), 5.0)) as client,
        ):
            alerts = Alerts("w1", AlertOptions(server.url), client)
            alerts.ended(FAILED)
            for _ in range(2):
                await alerts.send(NOW_MS)
            [got] = server.received
            names = ["Host", "Content-Length", "Content-Type", "User-Agent"]
            assert names == [name for name, _ in got.headers]

    asyncio.run(main())


def test_what_could_not_be_sent_is_sent_later() -> None:
    """Where the operator's URL refuses, the alerts stay for the next time."""

    async def work(alerts: Alerts) -> None:
        alerts.ended(FAILED)
        await alerts.send(NOW_MS)
        await alerts.send(NOW_MS)

    first, second = told(work, [503])
    assert json.loads(first.body)["alerts"] == json.loads(second.body)["alerts"]


def test_counts_add_up() -> None:
    """What came while the operator's URL refused is counted with what was kept."""

    async def work(alerts: Alerts) -> None:
        for _ in range(5):
            alerts.ended(FAILED)
        sending = asyncio.create_task(alerts.send(NOW_MS))
        await asyncio.sleep(0)
        alerts.ended(FAILED)
        await sending
        await alerts.send(NOW_MS)

    _, second = told(work, [503])
    assert 6 == json.loads(second.body)["alerts"][0]["count"]


def of(workspace: str, number: int) -> Ended:
    """A callback of an endpoint that ended."""
    return replace(FAILED, workspace=workspace, endpoint=f"https://{number}.example:443")


class Operator:
    """The operator's URL: what it got, and what it does before it answers."""

    def __init__(self) -> None:
        self.got: list[list[dict[str, Any]]] = []
        self.before: Callable[[], Awaitable[object]] = asyncio.Event().wait
        self.status = 503
        self.metrics = Metrics()
        transport = httpx.MockTransport(self._answer)
        self.alerts = Alerts(
            "w1", AlertOptions("https://ops.example/"), httpx.AsyncClient(transport=transport), self.metrics
        )

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.got.append(json.loads(request.content)["alerts"])
        await self.before()
        return httpx.Response(self.status)


def test_the_bounds_hold_while_the_operators_url_fails() -> None:
    """However long it fails, and whatever ends meanwhile, no more alerts are kept, in total and of one workspace."""
    operator = Operator()
    numbers = iter(range(10_000))

    async def meanwhile() -> None:
        for workspace in range(60):
            for _ in range(25):
                operator.alerts.ended(of(f"w{workspace}", next(numbers)))

    async def work() -> None:
        operator.before = meanwhile
        operator.alerts.ended(of("w0", next(numbers)))
        for _ in range(4):
            await operator.alerts.send(NOW_MS)

    asyncio.run(work())
    assert 4 == operator.metrics.alerts_not_sent
    together = MAX_ALERTS // MAX_OF_WORKSPACE  # one for the rest of each workspace that has its share
    assert MAX_ALERTS <= len(operator.got[-1]) <= MAX_ALERTS + together
    assert MAX_OF_WORKSPACE + 1 == max(Counter(one["workspace"] for one in operator.got[-1]).values())


def test_the_rest_of_a_workspace_adds_up() -> None:
    """What an alert for the rest stands for is added up over failed POSTs: each endpoint is one."""
    operator = Operator()
    numbers = iter(range(10_000))

    async def meanwhile() -> None:
        for _ in range(MAX_OF_WORKSPACE + 5):
            operator.alerts.ended(of("hog", next(numbers)))

    async def work() -> None:
        operator.before = meanwhile
        await meanwhile()
        for _ in range(4):
            await operator.alerts.send(NOW_MS)

    asyncio.run(work())
    for rounds, alerts in enumerate(operator.got, 1):
        [rest] = [one for one in alerts if "more" in one]
        endpoints = rounds * (MAX_OF_WORKSPACE + 5)
        assert (MAX_OF_WORKSPACE + 1, endpoints) == (len(alerts), MAX_OF_WORKSPACE + rest["more"] + 1)
        assert endpoints == sum(one["count"] for one in alerts)


def test_a_post_that_is_broken_off_is_made_again() -> None:
    """Alerts whose POST was under way when the worker began to end are sent at its end."""
    operator = Operator()

    async def work() -> None:
        operator.alerts.ended(FAILED)
        sending = asyncio.create_task(operator.alerts.send(NOW_MS))
        await until(lambda: operator.got)
        sending.cancel()
        await asyncio.wait({sending})
        operator.alerts.ended(FAILED)
        operator.before = until_nothing
        await operator.alerts.send(NOW_MS)

    asyncio.run(work())
    assert [[1], [2]] == [[one["count"] for one in alerts] for alerts in operator.got]


async def until_nothing() -> None:
    """Answers at once."""


def test_superseded_is_no_alert() -> None:
    """A newer status took its place: nobody has to be told."""

    async def work(alerts: Alerts) -> None:
        alerts.ended(Ended("acme", "e1", State.SUPERSEDED, "https://a.example:443", "MESSAGE_SENT", None, ""))
        await alerts.send(NOW_MS)

    assert [] == told(work)


def test_subscriptions_at_one_server_are_told_apart() -> None:
    """Each has alerts of its own, with its name."""

    async def work(alerts: Alerts) -> None:
        for name in ("", "crm"):
            alerts.ended(replace(FAILED, event_id="e1.crm" if name else "e1"))
            alerts.down(replace(A, subscription=name), NOW_MS - 1_000_000, NOW_MS, "timeout")
        await alerts.send(NOW_MS)

    (got,) = told(work)
    found = [(one["kind"], one.get("subscription")) for one in json.loads(got.body)["alerts"]]
    assert found == [
        (kind, whose) for whose in (None, "crm") for kind in ("callbacks_ended", "endpoint_down")
    ]


@pytest.mark.parametrize(("seconds", "count"), [(899, 0), (901, 1)])
def test_an_endpoint_that_is_down_for_long(seconds: int, count: int) -> None:
    """It is told once it has been down for long, and then not at each probe."""

    async def work(alerts: Alerts) -> None:
        for _ in range(3):
            alerts.down(A, NOW_MS, NOW_MS + seconds * 1000, "timeout")
            await alerts.send(NOW_MS)

    found = told(work)
    assert ["endpoint_down"] * count == [json.loads(one.body)["alerts"][0]["kind"] for one in found]


@pytest.mark.parametrize(
    ("delivered", "failed", "kinds"), [(89, 11, ["success_rate"]), (91, 9, []), (10, 9, [])]
)
def test_a_success_rate_that_fell(delivered: int, failed: int, kinds: list[str]) -> None:
    """It is told where it is below the limit, of enough callbacks to say something."""

    async def work(alerts: Alerts) -> None:
        alerts.rates({"acme": Figures(Counter(delivered=delivered, failed=failed))})
        await alerts.send(NOW_MS)

    assert kinds == [one["kind"] for got in told(work) for one in json.loads(got.body)["alerts"]]


def test_one_workspaces_endpoints_hide_no_other() -> None:
    """Of thousands of endpoints of one workspace some are told, the rest in one alert with how many; another's is told."""

    async def work(alerts: Alerts) -> None:
        for number in range(3000):
            alerts.down(
                EndpointName("hog", f"https://{number}.example:443"), NOW_MS - 1_000_000, NOW_MS, "connect"
            )
            alerts.ended(replace(FAILED, workspace="hog", endpoint=f"https://{number}.example:443"))
        alerts.ended(FAILED)
        await alerts.send(NOW_MS)

    [post] = told(work)
    alerts = json.loads(post.body)["alerts"]
    counts = Counter(alert["workspace"] for alert in alerts)
    assert {"hog": MAX_OF_WORKSPACE + 2, "acme": 1} == counts
    more = {alert["kind"]: alert["more"] for alert in alerts if "more" in alert}
    assert 2 * 3000 == MAX_OF_WORKSPACE + 2 + more["endpoint_down"] + more["callbacks_ended"]
    ended = [alert for alert in alerts if alert["workspace"] == "hog" and alert["kind"] == "callbacks_ended"]
    assert 3000 == sum(alert["count"] for alert in ended)
