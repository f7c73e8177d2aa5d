"""What still runs with the settings of before its installation grew."""

import json

import httpx

from dispatcher import Dispatcher
from tasks.redis_server import RedisServer
from tests.acceptance.stack import CLI, Stack, change, free_port, wait_until
from tests.acceptance.test_growth import COUNT, grown

SAYS = f"has grown into {COUNT} partitions: set DISPATCHER_REDIS_URL"


def answered(url: str) -> int:
    """The status of a GET; 0 if nothing listens."""
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return 0


def test_services_refuse_once_it_has_grown(stack: Stack, new: RedisServer) -> None:
    """The API answers every request 503; the probes of API and exporter say what to set; `tail` ends."""
    stack.add_workspace("acme")
    key = stack.cli_json("producer-key", "add", "billing")["apiKey"]
    ports = {what: free_port() for what in ("api", "exporter")}
    services = [stack.start_worker(*CLI, what, "--port", str(port)) for what, port in ports.items()]
    urls = {what: f"http://127.0.0.1:{port}" for what, port in ports.items()}
    for url in urls.values():
        wait_until(lambda url=url: answered(f"{url}/readyz") == 200, what="it is ready")
    tail = stack.start_worker(*CLI, "tail")
    wait_until(lambda: "watching" in tail.log, what="tail watches")
    bearer = {"Authorization": f"Bearer {key}"}

    def post(number: int) -> httpx.Response:
        """One status change, from a connection of its own: the short way."""
        one = json.dumps(change(number))
        return httpx.post(
            f"{urls['api']}/v1/status-changes",
            content=one,
            headers=bearer | {"Content-Type": "application/json"},
        )

    assert 202 == post(0).status_code
    stack.environment |= grown(stack, new)
    stack.cli_json("grow")
    for url in urls.values():
        wait_until(lambda url=url: answered(f"{url}/readyz") == 503, what="it is not ready")
        assert SAYS in httpx.get(f"{url}/readyz").text
        assert 200 == answered(f"{url}/healthz")
    queued = Dispatcher.from_url(stack.server.url).queued()
    for refused in (
        post(1),
        httpx.get(f"{urls['api']}/v1/sms/messages/m0", headers=bearer),
        httpx.post(f"{urls['api']}/v1/status-changes", json=[change(2)], headers=bearer),
    ):
        assert (503, "5") == (refused.status_code, refused.headers["Retry-After"]), refused.text
        assert "DISPATCHER" not in refused.text, "customers are not told of our settings"
    assert queued == Dispatcher.from_url(stack.server.url).queued(), "nothing came to the queue"
    assert 1 == tail.process.wait(20)
    assert SAYS in " ".join(tail.log.split())
    assert [0, 0] == [one.terminate() for one in services]


def test_the_api_says_that_growth_has_ended(stack: Stack, new: RedisServer) -> None:
    """It is not ready, says which setting to leave out, and answers on until it is restarted."""
    stack.add_workspace("acme")
    key = stack.cli_json("producer-key", "add", "billing")["apiKey"]
    stack.environment |= grown(stack, new)
    stack.cli_json("grow")
    port = free_port()
    api, url = stack.start_worker(*CLI, "api", "--port", str(port)), f"http://127.0.0.1:{port}"
    wait_until(lambda: answered(f"{url}/readyz") == 200, what="it is ready")
    stack.cli_json("grow", "--end", "--force")
    wait_until(lambda: answered(f"{url}/readyz") == 503, what="it is not ready")
    assert "leave DISPATCHER_PREVIOUS_REDIS_URL out" in httpx.get(f"{url}/readyz").text
    headers = {"Authorization": f"Bearer {key}"}
    assert 202 == httpx.post(f"{url}/v1/status-changes", json=change(1), headers=headers).status_code
    assert 0 == api.terminate()
