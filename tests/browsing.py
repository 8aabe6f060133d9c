"""What tests of the page do in a browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from served import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "needs a browser: make test-browser installs chromium and Playwright"
SHOTS = os.environ.get("SHOWTELL_SCREENSHOTS")  # a folder: each state of the page is kept there as a picture
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
PATIENCE = 60_000  # milliseconds; a machine that tests may have much else to do
DESKTOP, PHONE = (1280, 900), (390, 844)
ZOOMED = (320, 256)  # what is left of 1280x1024 at 400 % (WCAG 2.2, 1.4.10)
VIEWS = {"light": ("light", DESKTOP), "dark": ("dark", DESKTOP), "phone": ("light", PHONE)}
# What a screen reader would be told, in order.
LISTEN = """
window.heard = [];
document.addEventListener("DOMContentLoaded", () => {
  const said = document.getElementById("said");
  new MutationObserver(() => said.textContent && window.heard.push(said.textContent)).observe(
    said, { childList: true, characterData: true, subtree: true });
});
"""


@contextmanager
def opened(browser: Browser, service: Served, *, script: str = "", **options: Any) -> Iterator[Page]:
    """Opens the page, and sees to it that nothing fails unseen: no script error, nothing blocked, no other host."""
    with _watched(browser, (f"{service.url}/", "blob:", "data:"), LISTEN + script, options) as page:
        page.goto(service.url)
        page.wait_for_selector("#page:not([hidden])")
        yield page


@contextmanager
def opened_file(browser: Browser, path: Path, **options: Any) -> Iterator[Page]:
    """Opens a page that is one file, with the same care: it may ask for nothing else."""
    with _watched(browser, (path.as_uri(), "data:"), "", options) as page:
        page.goto(path.as_uri())
        yield page


@contextmanager
def _watched(
    browser: Browser, allowed: tuple[str, ...], script: str, options: dict[str, Any]
) -> Iterator[Page]:
    wrong: list[str] = []

    def note(line: Any) -> None:
        # The browser itself reports every answer that is an error, and the tests provoke them.
        if line.type in ("error", "warning") and not line.text.startswith("Failed to load resource"):
            wrong.append(f"{line.type}: {line.text}")

    def check_host(request: Any) -> None:
        if not request.url.startswith(allowed):
            wrong.append(f"request to {request.url}")

    width, height = DESKTOP
    with browser.new_context(
        **{"viewport": {"width": width, "height": height}, "reduced_motion": "reduce", **options}
    ) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script(script)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", note)
        page.on("request", check_host)
        page.on(
            "filechooser", lambda _: None
        )  # from now on: asked for only when it is needed, it may come too late
        yield page
    assert wrong == []


def tab_to(page: Page, selector: str, *, back: bool = False) -> None:
    """Presses Tab until what has the focus is what the selector means, and checks that the focus can be seen."""
    passed = []
    for _ in range(100):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
        passed.append(page.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
    raise AssertionError(f"the Tab key does not lead to {selector}, but to {passed[:20]}")


def choose(page: Page, *paths: Path) -> None:
    """Chooses pictures, by keyboard."""
    tab_to(page, "#choose")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([str(path) for path in paths])


# Of an image that is loaded when it comes near: nobody waits for it before.
OUT_OF_SIGHT = "image.getBoundingClientRect().top > innerHeight || image.getBoundingClientRect().bottom < 0"


def until(page: Page, expression: str, argument: object = None) -> None:
    """Waits until an expression is true; Playwright's own way evaluates it in the page, which the policy forbids."""
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(expression, argument):
        assert time.monotonic() < end, f"{expression} with {argument!r}: {page.evaluate('window.heard')}"
        page.wait_for_timeout(50)


def wait_for(page: Page, state: str, count: int = 1) -> None:
    """Waits until so many pictures are in a state."""
    selector = f"li[data-state={state}]"
    until(page, "([found, count]) => document.querySelectorAll(found).length >= count", [selector, count])


def hears(page: Page, *words: str) -> None:
    """Waits until a screen reader was told something that has these words."""
    until(page, "words => heard.some((text) => words.every((word) => text.includes(word)))", list(words))


def check(page: Page, name: str) -> None:
    """Lets axe-core look at a state of the page in each view, and keeps pictures of it where they are wanted."""
    from axe_playwright_python.sync_playwright import Axe

    for view, (scheme, size) in VIEWS.items():
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": size[0], "height": size[1]})
        answer = Axe().run(page).response
        found = [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in answer["violations"]]
        assert (name, view, found) == (name, view, [])
        assert len(answer["passes"]) > 10
        _check_width(page)
        if SHOTS:
            page.evaluate(
                "document.activeElement === document.body || document.activeElement.scrollIntoView({ block: 'center' })"
            )
            until(page, f"[...document.images].every((image) => image.complete || {OUT_OF_SIGHT})")
            place = Path(SHOTS) / f"{name}-{view}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=place, animations="disabled")
    page.set_viewport_size({"width": ZOOMED[0], "height": ZOOMED[1]})
    _check_width(page)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})


def _check_width(page: Page) -> None:
    """Nothing reaches over the right edge: no second direction to scroll in, nothing cut off.

    Tables may be scrolled by themselves, in a region that the Tab key reaches (WCAG 2.2, 1.4.10).
    """
    over = page.evaluate(
        """() => [...document.querySelectorAll("body *:not(.unseen, .unseen *, .wide *)")]
          .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
          .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert over == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def sentence(page: Page, place: int = 0) -> str:
    """The caption that is shown large, as alt text."""
    found = page.locator(".chosen").nth(place).locator("p.unseen, p.words").first.text_content()
    assert found
    return found
