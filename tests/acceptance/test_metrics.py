"""What Prometheus sees."""

import re
import urllib.request
from pathlib import Path

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.stack import CLI, Stack, change, free_port, wait_until
from tests.client_certificates import ClientAuthority

DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
DOCUMENTED = set(re.findall(r"^\| `(dispatcher_\w+)`", DOCUMENT, re.M))


def scrape(port: int) -> dict[str, float]:
    """Samples by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def names(samples: dict[str, float]) -> set[str]:
    """Of the metrics, as they are documented."""
    return {re.sub(r"_(bucket|count|sum)$", "", name.partition(" ")[0]) for name in samples}


def test_metrics(stack: Stack) -> None:
    """A worker and the exporter show what happened, by the documented names and no others."""

    async def answer(_request: web.Request, number: int) -> web.Response:
        return web.Response(status=500 if number == 1 else 200)

    stack.answer = answer
    stack.environment["DISPATCHER_ARCHIVE_URL"] = f"sqlite:///{stack.folder}/archive.db"
    stack.add_workspace()
    worker_port, exporter_port = free_port(), free_port()
    stack.start_worker(DISPATCHER_METRICS_PORT=str(worker_port)).wait_ready()
    event_ids = stack.enqueue(3)
    stack.redis.xadd("dispatcher:events", {"event": b"{"})
    stack.redis.xadd("dispatcher:events", {"nothing": b"1"})
    assert {"delivered": 3} == stack.wait_ended(event_ids)
    stack.enqueue(1, timestamp=change(0)["timestamp"], eventId=event_ids[0])
    wait_until(lambda: stack.redis.xlen("dispatcher:events") == 0)

    def counted() -> bool:
        return scrape(worker_port).get("dispatcher_leads_intake") == 1

    wait_until(counted)
    found = scrape(worker_port)
    expected = {
        "dispatcher_status_changes_total accepted": 3,
        "dispatcher_attempts_total http_500 retry": 3,
        "dispatcher_attempts_total none delivered": 3,
        "dispatcher_rejected_total invalid": 1,
        "dispatcher_rejected_total no_event_field": 1,
        "dispatcher_attempt_seconds_count": 6,
        "dispatcher_delivery_seconds_count": 3,
        "dispatcher_redis_errors_total": 0,
    }
    assert expected == {name: found[name] for name in expected}

    pair = ClientAuthority(stack.folder).issue(days=3)
    both = stack.folder / "client.pem"
    both.write_text(pair.certificate + pair.key)
    stack.cli("subscription", "update", "acme", "default", "--client-certificate", str(both))
    exporter = stack.start_worker(*CLI, "exporter", "--port", str(exporter_port))
    wait_until(lambda: "metrics at" in exporter.log, what="the exporter")
    whole = scrape(exporter_port)
    assert (1, 0, 1, 0) == tuple(
        whole[f"dispatcher_{name}"] for name in ("redis_up", "queue_entries", "workers", "waiting_callbacks")
    )
    assert 1 == whole["dispatcher_endpoints idle"]
    assert DOCUMENTED == names(found) | names(whole)
