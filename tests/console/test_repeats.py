"""What is sent twice, asked of a message alone, or changed since it was counted; and who may not know."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.responses import Response

from tasks.console.repeats import REPEAT_SECONDS, Repeats
from tests.acceptance.stack import wait_until
from tests.console.acting import Scene, acting_scene, endpoint_of
from tests.console.conftest import Visits
from tests.console.portal_world import Portal, portal
from tests.console.test_acting_on_all import stopped
from tests.console.world import ask, get, run_apart, session


@pytest.fixture(scope="module")
def scene(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """An installation for the tests of this file."""
    with acting_scene(tmp_path_factory.mktemp("repeats")) as found:
        yield found


def twice(send: Callable[[], Any]) -> list[Any]:
    """What two clicks get, a moment apart."""
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(send)
        time.sleep(0.15)
        return [first.result(), pool.submit(send).result()]


def message_of(scene: Scene, event_id: str, workspace: str) -> str:
    """The uuid of a callback's message."""
    return str(scene.stack.cli_json("event", "show", event_id, "--workspace", workspace)["messageId"])


def test_cancelling_all_of_a_message_is_about_that_message(scene: Scene) -> None:
    """The others that wait are neither counted nor cancelled; the title names the message."""
    cookie = session(scene.url, scene.keys["operator"])
    url, (one, *others) = stopped(scene, "globex", 4, 0)
    message = message_of(scene, one, "globex")
    work = scene.count("/callbacks/cancel", cookie, state="waiting", workspace="globex", message=message)
    text = get(work, Cookie=cookie)[2]
    assert f"of message {message}" in text
    assert 303 == scene.confirm(work, cookie, 1)[0]
    assert "1 callback was cancelled." in scene.finished(work, cookie)
    assert (message, 1) == tuple(
        scene.audit("callbacks.cancel")["to"][name] for name in ("message", "cancelled")
    )
    assert "failed" == scene.stack.state(one, "globex")
    assert {"pending"} == {scene.stack.state(other, "globex") for other in others}
    scene.stack.cli("endpoint", "resume", "globex", url)
    scene.stack.wait_ended(others, "globex")


def test_replaying_all_of_a_message_is_about_that_message(scene: Scene) -> None:
    cookie = session(scene.url, scene.keys["operator"])
    one, *others = scene.failing("acme", 3, first=100)
    message = message_of(scene, one, "acme")
    work = scene.count("/callbacks/replay", cookie, state="failed", message=message)
    assert 303 == scene.confirm(work, cookie, 1)[0]
    assert "1 callback is sent again" in scene.finished(work, cookie)
    assert {"delivered": 1} == scene.stack.wait_ended([one])
    assert {"failed"} == {scene.stack.state(other) for other in others}
    status, _, text = ask("POST", f"{scene.url}/callbacks/replay", {"message": message}, Cookie=cookie)
    assert (400, True) == (status, "choose a state" in text)


def test_a_double_click_makes_one_secret_and_shows_it_twice(scene: Scene) -> None:
    """The browser drops the answer to the first click: a secret that only that one had would be lost."""
    cookie = session(scene.url, scene.keys["admin"])
    form = {"workspace": "acme", "subscription": "default"}
    before = len(scene.stack.cli_json("workspace", "show", "acme")["secrets"])
    answers = twice(lambda: ask("POST", f"{scene.url}/subscription/rotate", form, Cookie=cookie))
    assert [200, 200] == [status for status, _, _ in answers]
    (secret,) = {found for _, _, text in answers for found in re.findall(r"whsec_[A-Za-z0-9+/=]+", text)}
    assert before + 1 == len(scene.stack.cli_json("workspace", "show", "acme")["secrets"])
    scene.stack.secrets["acme"] = secret
    time.sleep(REPEAT_SECONDS + 0.5)
    status, _, text = ask("POST", f"{scene.url}/subscription/rotate", form, Cookie=cookie)
    assert (200, False) == (status, secret in text), "a later click is another one"
    time.sleep(REPEAT_SECONDS + 0.5)
    status, _, text = ask("POST", f"{scene.url}/subscription/rotate", form, Cookie=cookie)
    assert (400, False) == (status, "grace" in text), "the advice of the command does not help here"


def test_what_counts_as_a_repetition() -> None:
    """The same form while it is answered, or a moment later; not once another came between, nor if it failed."""

    async def sent() -> list[str]:
        repeats, done = Repeats(), list[str]()

        async def answer(form: str) -> Response:
            done.append(form)
            await asyncio.sleep(0.01)
            if form == "fails":
                raise ValueError("away")
            return Response(form)

        async def send(form: str, session: str = "s") -> Response:
            return await repeats.once(session, form, lambda: answer(form))

        both = await asyncio.gather(send("pause"), send("pause"))
        assert both[0] is both[1] is await send("pause")
        await send("pause", "another session")
        await send("resume")
        await send("pause")
        for _ in range(2):
            with pytest.raises(ValueError, match="away"):
                await send("fails")
            await asyncio.sleep(0.01)
        return done

    assert ["pause", "pause", "resume", "pause", "fails", "fails"] == run_apart(sent())


def test_a_double_click_on_the_confirmation_leads_to_the_work(scene: Scene) -> None:
    cookie = session(scene.url, scene.keys["operator"])
    failed = scene.failing("acme", 2, first=200)
    before = [scene.attempts(one) for one in failed]
    work = scene.count("/callbacks/replay", cookie, state="failed", workspace="acme", since="1m")
    count = re.findall(r'name="count" value="(\d+)"', get(work, Cookie=cookie)[2])[0]
    answers = twice(lambda: ask("POST", f"{work}/begin", {"count": count}, Cookie=cookie))
    assert [303, 303] == [status for status, _, _ in answers]
    assert work.endswith(answers[1][1]["location"])
    assert f"{count} callback" in scene.finished(work, cookie)
    scene.stack.wait_ended(failed)
    assert [number + 1 for number in before] == [scene.attempts(one) for one in failed]


def test_a_move_is_to_the_url_that_was_named(scene: Scene) -> None:
    """If the callback URL was changed again since the count, nothing is moved."""
    cookie = session(scene.url, scene.keys["operator"])
    scene.stack.add_workspace("moved")
    scene.stack.wait_ended(scene.stack.enqueue(1, first=300, workspace="moved"), "moved")
    old = endpoint_of(scene.stack, "moved")
    scene.stack.cli("endpoint", "stop", "moved", old)
    waiting = scene.stack.enqueue(2, first=301, workspace="moved")
    wait_until(lambda: all(scene.stack.state(one, "moved") == "pending" for one in waiting), 30, "they wait")
    named, other = f"{scene.stack.listen()}/hooks/233200004711", f"{scene.stack.listen()}/other"
    scene.stack.cli("workspace", "update", "moved", "--callback-url", named)
    work = scene.count("/endpoint/move", cookie, owner="moved", url=old)
    assert named in get(work, Cookie=cookie)[2]
    viewer = session(scene.url, scene.keys["viewer"])
    assert "233200004711" not in get(work, Cookie=viewer)[2], "whoever sees no numbers sees none here"
    scene.stack.cli("workspace", "update", "moved", "--callback-url", other)
    assert 303 == scene.confirm(work, cookie, 2)[0]
    assert "was changed since this was counted" in scene.finished(work, cookie)
    assert {"pending"} == {scene.stack.state(one, "moved") for one in waiting}


def test_live_attempts_end_with_the_session(scene: Scene) -> None:
    """Also where the page is open: the stream ends, and the next one is refused."""
    cookie = session(scene.url, scene.keys["second"])
    ended = threading.Event()

    def read() -> None:
        get(f"{scene.url}/live/events", Cookie=cookie)
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert not ended.wait(1)
    assert 303 == ask("POST", f"{scene.url}/logout", {"everywhere": "1"}, Cookie=cookie)[0]
    assert ended.wait(10), "it would go on for 25 s"
    reader.join()
    assert 401 == get(f"{scene.url}/live/events", Cookie=cookie, Sec_Fetch_Dest="empty")[0]


def test_figures_of_a_workspace_have_what_failed(scene: Scene) -> None:
    cookie = session(scene.url, scene.keys["viewer"])
    assert "There is no workspace zzz" in get(f"{scene.url}/log?workspace=zzz", Cookie=cookie)[2]
    text = get(f"{scene.url}/workspace?id=acme", Cookie=cookie)[2]
    headings = re.findall(r'<th scope="col" class="n">([^<]+)</th>', text)
    assert {"accepted", "delivered", "failed", "expired"} <= set(headings)


@pytest.fixture(scope="module")
def one_portal(scene: Scene) -> Iterator[Portal]:
    """The portal of acme's customers."""
    with portal(scene.stack) as found:
        yield found


def test_two_people_of_one_workspace_are_two(scene: Scene, one_portal: Portal) -> None:
    """Who did not count cannot begin, and who logs out everywhere logs out nobody else."""
    failed = scene.failing("acme", 1, first=400)
    jane, bob = one_portal.customer(), one_portal.customer(name="bob")
    _, headers, _ = one_portal.act("/callbacks/replay", jane, state="failed", since="1m", rate="5000")
    path = headers["location"].removeprefix("/portal")
    wait_until(lambda: "match" in one_portal.look(path, jane)[2], 30, "counted")
    assert 'name="count"' not in one_portal.look(path, bob)[2]
    (count,) = re.findall(r'name="count" value="(\d+)"', one_portal.look(path, jane)[2])
    assert 400 == one_portal.act(f"{path}/begin", bob, count=count)[0]
    assert 200 == one_portal.act("/logout", bob, everywhere="1")[0]
    assert 401 == one_portal.look("/workspace", bob)[0]
    assert 200 == one_portal.look("/workspace", jane)[0]
    assert 303 == one_portal.act(f"{path}/begin", jane, count=count)[0]
    scene.stack.wait_ended(failed)


def test_without_redis_nobody_is_told_where_it_is(server_program: str, tmp_path: Path) -> None:
    """Who has not shown who they are, with a cookie or a key of their own making, reads that it is not available."""
    with acting_scene(tmp_path) as scene:
        cookie = session(scene.url, scene.keys["operator"]).partition("=")[0] + "=made-up"
        scene.stack.server.kill()
        answers = [
            get(f"{scene.url}/", Cookie=cookie),
            ask("POST", f"{scene.url}/login", {"key": "key_madeup.x"}),
        ]
        for status, _, text in answers:
            assert (503, True) == (status, "not available now, try again" in text)
            assert not [
                word for word in (str(scene.stack.server.url), "unix:", "DISPATCHER_") if word in text
            ]
        scene.stack.server.start()


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("gap_ms", [60, 150, 300])
def test_the_second_click_does_not_meet_the_opposite_button(
    scene: Scene, chromium: object, gap_ms: int, script: bool
) -> None:
    """On the next page *Resume sending* is where *Stop sending* was."""
    scene.stack.wait_ended(scene.stack.enqueue(1, first=7000 + gap_ms, workspace="globex"), "globex")
    url = endpoint_of(scene.stack, "globex")
    visits = Visits(chromium, scene)
    page = visits.as_("operator", java_script_enabled=script).page
    page.goto(f"{scene.url}/endpoint?{urlencode({'owner': 'globex', 'url': url})}")
    page.get_by_role("button", name="Resume").or_(page.get_by_role("button", name="Retry now")).first.click()
    time.sleep(REPEAT_SECONDS + 0.5)
    button = page.get_by_role("button", name="Stop sending")
    button.hover()
    box = button.bounding_box()
    assert box
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.click(*at)
    page.wait_for_timeout(gap_ms)
    page.mouse.click(*at)
    page.wait_for_timeout(700)
    assert "stopped" == scene.stack.cli_json("endpoint", "show", "globex", url)["state"]
    page.get_by_role("button", name="Resume").click()
    page.wait_for_load_state()
    assert "stopped" != scene.stack.cli_json("endpoint", "show", "globex", url)["state"]
    visits.close()
