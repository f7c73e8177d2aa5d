"""Plots: the value at the pointer, the same values in a table, single values, the dark and the printed page."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from dispatcher.store.stats import DAY_MS, MINUTE_MS
from tasks.console import plots
from tasks.console.svg import Line, Plot, draw
from tasks.console.watch import Ages
from tests.acceptance.stack import wait_until
from tests.console.acting import Scene, acting_scene, endpoint_of
from tests.console.conftest import Visits

NOW_MS = 1_800_000_000_000


@pytest.fixture(scope="module")
def scene(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Seven callbacks delivered and two failed, all of today."""
    with acting_scene(tmp_path_factory.mktemp("plots")) as found:
        found.stack.wait_ended(found.stack.enqueue(7))
        found.failing("acme", 2, first=10)
        yield found


@pytest.fixture
def visits(chromium: object, scene: Scene) -> Iterator[Visits]:
    """Browsers for that console."""
    found = Visits(chromium, scene)
    yield found
    found.close()


def to_plot(scene: Scene, page: Page) -> Any:
    """The plot of an endpoint's week."""
    page.goto(f"{scene.url}/endpoint?owner=acme&url={endpoint_of(scene.stack, 'acme')}")
    return page.locator("figure").first


def test_an_endpoints_week_has_its_values_at_the_pointer_and_in_the_table(
    scene: Scene, visits: Visits
) -> None:
    page = visits.as_("operator").page
    figure = to_plot(scene, page)
    figure.locator("svg").hover()  # waits until the page heeds the pointer
    box = figure.locator("svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 6, box["y"] + box["height"] / 2)
    said = figure.locator("[data-at]").inner_text()
    assert "delivered 7, failed 2, expired 0 (a day (UTC))" in said
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    assert "delivered 0, failed 0, expired 0" in figure.locator("[data-at]").inner_text()
    figure.locator("summary").click()
    rows = [row.split("\t") for row in figure.locator("tbody tr").all_inner_texts()]
    assert ["7", "2", "0"] == [cell.strip() for cell in rows[0][1:]]
    assert [["0", "0", "0"]] * 6 == [[cell.strip() for cell in row[1:]] for row in rows[1:]]
    page.mouse.move(0, 0)
    assert not figure.locator("[data-at]").inner_text()


def test_a_subscriptions_week_is_that_of_all_its_endpoints(scene: Scene, visits: Visits) -> None:
    """A workspace's page leads to that of each subscription, which adds the counters of its endpoints, of two URLs here."""
    other = scene.stack.listen()
    scene.stack.wait_ended(scene.stack.enqueue(3, first=20, callbackUrl=f"{other}/x"))
    page = visits.as_("operator").page
    page.goto(f"{scene.url}/workspace?id=acme")
    page.get_by_role("link", name="default", exact=True).click()
    assert page.locator("h1").inner_text() == "acme.default"
    link = page.get_by_role("link", name=other)
    wait_until(lambda: link.count() or not page.reload(), 90, "a snapshot with the new endpoint")
    figure = page.locator("figure")
    figure.locator("summary").click()
    rows = [row.split("\t") for row in figure.locator("tbody tr").all_inner_texts()]
    assert ["10", "2", "0"] == [cell.strip() for cell in rows[0][1:]]


def test_the_overview_has_the_ages_that_were_seen(scene: Scene, visits: Visits) -> None:
    """Of the hour in which somebody looked; the page says that gaps are when nobody did."""
    page = visits.as_("operator").page
    figure = page.locator("#ages figure")
    expect(figure).to_contain_text("oldest on the queue")
    expect(page.locator("#ages")).to_contain_text("where nobody did there is a gap")
    figure.locator("summary").click()
    rows = figure.locator("tbody tr").all_inner_texts()
    assert 60 == len(rows)
    assert re.search(r"–\s+–$", rows[-1]), "nobody looked an hour ago"
    assert any(re.search(r"\d\s+\d+$", row) for row in rows[:3])


@pytest.mark.parametrize("how", ["dark", "print"])
def test_a_plot_is_legible_in_the_dark_and_on_paper(scene: Scene, visits: Visits, how: str) -> None:
    """Every line and text has a contrast of 3 and 4.5 to its ground (WCAG 1.4.11, 1.4.3); on paper the ground is white."""
    page = visits.as_("operator", color_scheme="dark").page
    figure = to_plot(scene, page)
    if how == "print":
        page.emulate_media(media="print", color_scheme="dark")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ("rgb(255, 255, 255)" == ground) == (how == "print")
    for selector, name, least in (("path.line", "stroke", 3), ("text.axis", "fill", 4.5)):
        for one in figure.locator(selector).all():
            ink = one.evaluate(f"one => getComputedStyle(one).{name}")
            assert contrast(ink, ground) >= least, (selector, ink, ground)


def contrast(one: str, other: str) -> float:
    """Of two colours as browsers say them."""
    less, more = sorted(luminance(text) for text in (one, other))
    return (more + 0.05) / (less + 0.05)


def luminance(text: str) -> float:
    """Relative luminance of `rgb(1, 2, 3)` (WCAG 2)."""
    shares = [int(part) / 255 for part in re.findall(r"\d+", text)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shares]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_single_value_between_gaps_is_seen(scene: Scene, visits: Visits) -> None:
    """Ink of its line's colour stands where it is: a path to nowhere draws none."""
    page = visits.as_("operator").page
    plot = Plot("Lone", "a minute", [0, 1, 2], [Line("a", [None, 5.0, None])])
    page.goto(f"{scene.url}/account")
    page.evaluate("svg => { document.querySelector('main').innerHTML = svg; }", str(draw(plot)))
    dot = page.locator("circle.dot.line-0")
    assert dot.bounding_box()["width"] >= 2  # type: ignore[index]
    line = dot.evaluate("dot => getComputedStyle(dot).fill")
    assert contrast(line, page.evaluate("getComputedStyle(document.body).backgroundColor")) >= 3


@pytest.mark.parametrize(
    ("values", "dots"),
    [
        ([None, 1.0, None], 1),
        ([1.0], 1),
        ([1.0, None, 1.0], 2),
        ([1.0, 2.0, None], 0),
        ([None, None], 0),
        ([0.0, None, 2.0, 3.0], 1),
    ],
)
def test_dots_are_for_single_values_alone(values: list[float | None], dots: int) -> None:
    drawn = draw(Plot("P", "n", list(range(len(values))), [Line("a", values)]))
    assert dots == drawn.count("<circle")


def test_ages_by_the_minute() -> None:
    """The longest of each minute; a minute without a reading is a gap and not zero."""
    last = NOW_MS // MINUTE_MS * MINUTE_MS
    seen = [
        Ages(last - 2 * MINUTE_MS, 1000, 0),
        Ages(last - 2 * MINUTE_MS + 5000, 4000, 9000),
        Ages(last, 0, 0),
    ]
    plot = plots.ages(seen, NOW_MS, 4)
    assert [[None, 4, None, 0], [None, 9, None, 0]] == [list(line.values) for line in plot.lines]
    assert [last - 3 * MINUTE_MS, last] == [plot.times_ms[0], plot.times_ms[-1]]


def test_days_of_an_endpoint() -> None:
    plot = plots.days([Counter(delivered=3), Counter(failed=1)], NOW_MS)
    assert [[3, 0], [0, 1], [0, 0]] == [list(line.values) for line in plot.lines]
    assert [DAY_MS * (NOW_MS // DAY_MS - 1), DAY_MS * (NOW_MS // DAY_MS)] == list(plot.times_ms)
