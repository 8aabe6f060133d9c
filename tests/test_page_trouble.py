"""The page of the service when something goes wrong: pictures, the network, the service."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browsing import check, choose, hears, opened, sentence, tab_to, until, wait_for
from served import CAPTIONS, PROBLEM, Served, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

FAST = 10_000_000  # bytes a second


def throttle(page: Page, up: int, *, latency: int = 300) -> None:
    """Makes the network slow: bytes a second on the way up, milliseconds until something comes."""
    tools = page.context.new_cdp_session(page)
    tools.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": latency, "uploadThroughput": up, "downloadThroughput": up},
    )


def answer_first(page: Page, times: int, status: int, kind: str, **headers: str) -> None:
    """Lets the service fail so many times, in its own words, before it really answers."""
    left = [times]

    def handle(route: Any) -> None:
        if left[0] <= 0:
            route.continue_()
            return
        left[0] -= 1
        body = {
            "type": f"urn:problem-type:showtell:{kind}",
            "title": kind,
            "status": status,
            "detail": "Some detail.",
            "request_id": "0123",
        }
        route.fulfill(status=status, headers={"Content-Type": PROBLEM, **headers}, body=json.dumps(body))

    page.route(f"**{CAPTIONS}", handle)


def large_photograph(source: Path, folder: Path, side: int) -> Path:
    from PIL import Image

    path = folder / f"large-{side}.jpg"
    with Image.open(source) as image:
        image.resize((side, side)).save(path, quality=95)
    return path


def test_what_is_no_picture_is_said_in_plain_words(
    page: Page, photographs: list[Path], tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("These are notes.")
    choose(page, notes)
    wait_for(page, "failed")
    hears(page, "notes.txt: This is not a picture that can be read.")
    shown = page.locator("li").inner_text()
    assert "save it as a JPEG or PNG" in shown
    assert "This browser cannot show this picture." in shown
    tab_to(page, "summary")
    page.keyboard.press("Enter")
    assert "notes.txt" in page.locator("details p").inner_text()
    check(page, "unreadable")
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(photographs[0].read_bytes()[:5000])
    choose(page, torn, photographs[1])
    wait_for(page, "failed", 2)
    wait_for(page, "done")
    hears(page, "Finished. 1 picture described. 2 could not be.")


def test_what_is_too_large_is_said_with_the_limit(browser: Browser, page_model: str, tmp_path: Path) -> None:
    with serving(page_model, tmp_path, "--max-body", "2") as service, opened(browser, service) as page:
        until(page, "document.getElementById('model').textContent")
        for name, size in (("far.heic", 3_000_000), ("near.heic", 2 * 1024 * 1024 - 100)):
            (tmp_path / name).write_bytes(os.urandom(size))  # no browser can make it smaller
        choose(page, tmp_path / "far.heic", tmp_path / "near.heic")
        wait_for(page, "failed", 2)
        for place in range(2):
            shown = page.locator("li").nth(place).inner_text()
            assert "This picture is too large" in shown
            assert "at most 2 MB" in shown
        check(page, "too-large")


def test_a_busy_service_is_asked_again(page: Page, photographs: list[Path]) -> None:
    answer_first(page, 1, 503, "busy", **{"Retry-After": "3"})
    choose(page, photographs[1])
    wait_for(page, "later")
    hears(page, "The service is busy. It is tried again in")
    assert "Next try in" in page.locator(".status").inner_text()
    wait_for(page, "done")
    hears(page, "cat.jpg", sentence(page))


def test_somebody_in_a_hurry_tries_now(page: Page, photographs: list[Path]) -> None:
    answer_first(page, 1, 429, "too-many-requests", **{"Retry-After": "60"})
    choose(page, photographs[1])
    wait_for(page, "later")
    left = int(re.findall(r"Next try in ([0-9]+) seconds", page.locator(".status").inner_text())[0])
    assert 50 <= left <= 76
    check(page, "busy")
    tab_to(page, "li .actions button")
    page.keyboard.press("Enter")
    wait_for(page, "done")
    assert page.evaluate("document.activeElement.tagName") == "H3"  # not lost with its button


def test_more_pictures_than_the_queue_takes_all_get_captions(
    browser: Browser, page_model: str, photographs: list[Path], tmp_path: Path
) -> None:
    options = ("--queue", "1", "--max-images", "1")
    with serving(page_model, tmp_path, *options) as service, opened(browser, service) as page:
        choose(page, *photographs)
        wait_for(page, "done", len(photographs))
        assert page.locator("#tally").inner_text() == "6 of 6 pictures described."


def test_a_mistake_of_the_service_can_be_tried_again(page: Page, photographs: list[Path]) -> None:
    answer_first(page, 1, 500, "internal")
    choose(page, photographs[1])
    wait_for(page, "failed")
    assert "The service made a mistake" in page.locator("li").inner_text()
    assert "Some detail. (request 0123)" in page.locator("details").text_content()
    check(page, "mistake")
    tab_to(page, "li .actions button")
    page.keyboard.press("Enter")
    wait_for(page, "done")


def test_a_proxys_own_pages_are_no_answers(page: Page, photographs: list[Path]) -> None:
    tries = []

    def handle(route: Any) -> None:
        tries.append(route)
        if len(tries) == 1:
            route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>")
        elif len(tries) == 2:
            route.fulfill(status=200, content_type="text/html", body="<h1>Log in to this network</h1>")
        else:
            route.continue_()

    page.route(f"**{CAPTIONS}", handle)
    choose(page, photographs[1])
    wait_for(page, "done")
    assert len(tries) == 3
    hears(page, "The service does not answer.")
    hears(page, "The service answers again.")


def test_a_slow_network_shows_how_far_it_is(page: Page, photographs: list[Path]) -> None:
    until(page, "document.getElementById('model').textContent")
    throttle(page, 30_000)
    choose(page, *photographs[:3])
    until(
        page,
        "[...document.querySelectorAll('li progress')].some((bar) => bar.value > 0 && bar.value < 1)",
    )
    assert page.locator("li[data-state=waiting]").count() >= 1
    check(page, "sending")
    throttle(page, FAST, latency=0)
    wait_for(page, "done", 3)


def test_what_is_too_slow_is_sent_smaller(
    browser: Browser, page_model: str, photographs: list[Path], tmp_path: Path
) -> None:
    large = large_photograph(photographs[0], tmp_path, 2500)
    with serving(page_model, tmp_path, "--body-timeout", "2") as service, opened(browser, service) as page:
        until(page, "document.getElementById('model').textContent")
        throttle(page, 60_000, latency=0)
        choose(page, large)
        wait_for(page, "done")
    lines = [line for line in service.log() if line.get("path") == CAPTIONS]
    statuses = [line["status"] for line in lines]
    assert set(statuses[:-1]) == {408}  # a browser may repeat such a request by itself
    assert statuses[-1] == 200
    assert lines[-1]["bytes"] < 150_000


def test_what_stays_too_slow_is_said(page: Page, photographs: list[Path]) -> None:
    answer_first(page, 2, 408, "too-slow")  # also when it is sent smaller
    choose(page, photographs[1])
    wait_for(page, "failed")
    hears(page, "cat.jpg: The connection is too slow for this picture.")
    assert "where the network is faster" in page.locator("li").inner_text()
    check(page, "too-slow")
    tab_to(page, "li .actions button")
    page.keyboard.press("Enter")
    wait_for(page, "done")


def test_the_service_stops_midway_and_comes_back(
    browser: Browser, page_model: str, photographs: list[Path], tmp_path: Path
) -> None:
    with serving(page_model, tmp_path) as service, opened(browser, service) as page:
        until(page, "document.getElementById('model').textContent")
        throttle(page, 60_000, latency=100)
        choose(page, *photographs)
        wait_for(page, "done")
        service.end(signal.SIGKILL)
        page.wait_for_selector("#trouble:not([hidden])")
        hears(page, "The service does not answer. Your pictures and captions stay here")
        before = {
            name: page.locator("li", has_text=name).locator(".chosen").inner_text() for name in done(page)
        }
        assert before
        until(page, "!document.querySelector('li[data-state=sending], li[data-state=thinking]')")
        assert page.locator("li[data-state=paused]").count() == len(photographs) - len(before)
        tab_to(page, "#trouble-retry")
        page.keyboard.press("Enter")  # nobody is there: it goes on trying
        check(page, "gone")
        throttle(page, FAST, latency=0)
        tab_to(page, "#download")
        with page.expect_download():  # what is there can still be taken along
            page.keyboard.press("Enter")
        with serving(page_model, tmp_path, "--port", str(service.port)):
            wait_for(page, "done", len(photographs))
            hears(page, "The service answers again.")
            assert not page.locator("#trouble").is_visible()
            for name, caption in before.items():
                assert page.locator("li", has_text=name).locator(".chosen").inner_text() == caption


def done(page: Page) -> list[str]:
    names: list[str] = page.locator("li[data-state=done] h3").all_inner_texts()
    return names


def test_a_device_without_a_network_waits_for_one(page: Page, photographs: list[Path]) -> None:
    until(page, "document.getElementById('model').textContent")
    page.context.set_offline(True)
    page.wait_for_selector("#trouble:not([hidden])")
    assert page.locator("#trouble-title").inner_text() == "This device is offline"
    choose(page, photographs[1])
    wait_for(page, "paused")
    check(page, "offline")
    page.context.set_offline(False)
    wait_for(page, "done")


def test_the_page_opens_while_the_service_starts(
    browser: Browser, page_service: Served, photographs: list[Path]
) -> None:
    with opened(browser, page_service) as page:
        page.route("**/v1/models", lambda route: route.abort())
        page.reload()
        page.wait_for_selector("#trouble:not([hidden])")
        choose(page, photographs[1])
        wait_for(page, "paused")
        page.unroute("**/v1/models")
        wait_for(page, "done")


def test_a_key_is_asked_for(
    browser: Browser, page_model: str, photographs: list[Path], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("page correct-horse-battery-staple-1\n")
    keys.chmod(0o600)
    with serving(page_model, tmp_path, "--keys", str(keys)) as service, opened(browser, service) as page:
        page.wait_for_selector("#gate:not([hidden])")
        hears(page, "This service needs a key")
        tab_to(page, "#key")
        page.keyboard.type("wrong-key-that-is-long-enough-01")
        page.keyboard.press("Enter")
        hears(page, "This key is not good here.")
        assert page.locator("#key").get_attribute("aria-invalid") == "true"
        check(page, "key")
        page.locator("#key").fill("")
        page.keyboard.type("correct-horse-battery-staple-1")
        page.keyboard.press("Enter")
        page.wait_for_selector("#gate", state="hidden")
        assert page.evaluate("document.activeElement.id") == "choose"
        tab_to(page, "#count")
        choose_again = photographs[1]
        tab_to(page, "#choose", back=True)
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(str(choose_again))
        wait_for(page, "done")
        page.reload()  # the key is kept for the tab
        until(page, "document.getElementById('model').textContent")
        assert not page.locator("#gate").is_visible()
        log = service.log_file.read_text()
        assert "correct-horse" not in log


def test_modules_that_come_slowly_leave_a_word(browser: Browser, page_service: Served) -> None:
    with opened(browser, page_service) as page:

        def slowly(route: Any) -> None:
            time.sleep(0.5)
            route.continue_()

        page.route("**/queue.js", slowly)
        page.goto(page_service.url, wait_until="commit")
        assert "The page is loading." in page.locator("#loading").inner_text()
        page.wait_for_selector("#page:not([hidden])")


def test_without_scripts_the_page_says_what_it_needs(browser: Browser, page_service: Served) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_service.url)
    assert "This page needs JavaScript." in page.locator("noscript").inner_text()
    context.close()
