"""`make pictures`: pictures of the console's pages, in light and dark, from a run of the demo."""

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "console"
CHROMIUM = "/usr/bin/chromium"
LINK = re.compile(r"http://\S+/login#token=\S+")
START_SECONDS, TRAFFIC_SECONDS = 120, 75
"""How long the demo may take until its console runs; how long its traffic goes on before the first picture."""
WIDTH, HEIGHT = 1280, 640
QUALITY, MOST_BYTES = 90, 150_000
SCHEMES = ("light", "dark")


def main() -> None:
    """Takes them all, and fails if one is too big for a document."""
    if not shutil.which(CHROMIUM):
        sys.exit(f"error: no {CHROMIUM}: apt-get install chromium")
    FOLDER.mkdir(exist_ok=True)
    with demo() as link, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        time.sleep(TRAFFIC_SECONDS)
        for scheme in SCHEMES:
            take(browser, link, scheme)
        browser.close()
    for path in sorted(FOLDER.glob("*.webp")):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} B")
        if path.stat().st_size > MOST_BYTES:
            sys.exit(f"error: {path.name} has more than {MOST_BYTES:,} B: show less of the page")


@contextmanager
def demo() -> Iterator[str]:
    """The demo with its console, and the link that logs in."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        with said.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "dispatcher", "demo", "--console"],
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                stdout=out,
                stderr=out,
            )
        try:
            yield link_in(said, process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def link_in(said: Path, process: "subprocess.Popen[bytes]") -> str:
    """The link, once the demo prints it."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := LINK.search(said.read_text()):
            return found[0]
        time.sleep(0.2)
    sys.exit(f"error: the demo gave no link: {said.read_text()[-2000:]}")


def take(browser: Browser, link: str, scheme: str) -> None:
    """The six pictures in one scheme."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT},
        color_scheme=scheme,  # type: ignore[arg-type]  # one of SCHEMES
        locale="en-GB",
        timezone_id="UTC",
    )
    page, url = context.new_page(), link.partition("/login")[0]
    page.goto(link)
    page.wait_for_url(f"{url}/")
    keep(page, "overview", scheme)
    page.goto(f"{url}/endpoints")
    keep(page, "endpoints", scheme)
    page.goto(f"{url}/callbacks?state=failed")
    keep(page, "callbacks", scheme)
    page.get_by_role("row").filter(has_text="http_500").first.get_by_role("link").first.click()
    page.wait_for_url(f"{url}/callback?**")
    keep(page, "callback", scheme)
    page.goto(f"{url}/live")
    page.locator("tbody tr").nth(14).wait_for(timeout=60_000)
    keep(page, "live", scheme)
    page.goto(f"{url}/workspace?id=acme")
    keep(page, "workspace", scheme)
    context.close()


def keep(page: Page, name: str, scheme: str) -> None:
    """Writes the picture of a page."""
    page.wait_for_load_state("load")
    tools = page.context.new_cdp_session(page)  # Playwright itself has no WebP, which is a third of a PNG
    taken = tools.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    (FOLDER / f"{name}-{scheme}.webp").write_bytes(base64.b64decode(taken["data"]))


if __name__ == "__main__":
    main()
