"""The page of the service, used by keyboard in a real browser: what it can do when all goes well."""

from __future__ import annotations

import csv
import io
import json
import re
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from browsing import check, choose, hears, opened, sentence, tab_to, until, wait_for
from served import CAPTIONS, Served
from showtell.alt_text import escape_attribute
from showtell.outputs import Record, WrittenCaption, find_format
from showtell.photographs import find_photographs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

WORDS = "[role=toolbar] button[tabindex='0']"


def active(page: Page) -> str:
    text: str = page.evaluate("document.activeElement.textContent")
    return text


def pretend(page: Page, **caption: Any) -> None:
    """Lets the service answer with a caption of the test's own, where the untrained captioner says too little."""
    words = caption["caption"].split()
    answer = {
        "name": "one.jpg",
        "captions": [{"score": -1.0, "words": [{"word": w, "probability": 0.5} for w in words], **caption}],
    }
    body = json.dumps({"request_id": "1", "model": {}, "images": [answer], "timings": {}})
    page.route(
        f"**{CAPTIONS}", lambda route: route.fulfill(status=200, content_type="application/json", body=body)
    )


def test_the_page_opens_ready_to_be_used(page: Page) -> None:
    assert page.title() == "Showtell"
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("#loading").count() == 0
    until(page, "document.getElementById('model').textContent")
    tab_to(page, "#choose")
    check(page, "empty")


def test_pictures_are_chosen_and_captioned_by_keyboard(page: Page, photographs: list[Path]) -> None:
    choose(page, photographs[1])
    hears(page, "1 picture added")
    wait_for(page, "done")
    caption = sentence(page)
    hears(page, "cat.jpg", caption)
    assert page.locator("li img").get_attribute("alt") == caption
    check(page, "one")
    choose(page, *photographs[2:4])
    wait_for(page, "done", 3)
    hears(page, "Finished. 3 pictures described.")
    assert page.locator("#tally").inner_text() == "3 of 3 pictures described."
    assert page.locator("h3").all_inner_texts() == ["cat.jpg", "china.jpg", "coffee.jpg"]
    check(page, "several")
    tab_to(page, "#skip", back=True)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "results"


def test_words_show_where_the_model_looked(page: Page) -> None:
    choose(page, find_photographs()["motorcycle"])
    wait_for(page, "done")
    canvas, image = page.locator(".frame canvas"), page.locator(".frame img")
    assert not canvas.is_visible()
    tab_to(page, WORDS)
    assert canvas.is_visible()
    assert canvas.bounding_box() == image.bounding_box()
    width, height = canvas.evaluate("one => [one.width, one.height]")
    assert (max(width, height), round(width / height, 2)) == (720, 1.48)  # of 741x497 or a little more
    first = active(page)
    assert "looked" in first
    words = page.locator(".word")
    page.keyboard.press("ArrowRight" if words.count() > 1 else "Home")
    page.keyboard.press("End")
    assert words.last.evaluate("one => one === document.activeElement")
    assert page.locator(".word.lit").count() == 1
    assert "“" in page.locator(".look").inner_text()
    check(page, "word")
    page.keyboard.press("ArrowRight")  # around the end
    assert active(page) == first
    page.keyboard.press("Escape")
    assert not canvas.is_visible()
    page.keyboard.press("Tab")  # one stop for all words
    assert active(page).startswith("Copy text")


def test_the_light_is_where_the_map_says(page: Page, photographs: list[Path]) -> None:
    """One bright cell of a map that covers the middle of the picture: light there, and no light beside the box."""
    cells = [[0.0] * 4 for _ in range(4)]
    cells[3][0] = 1.0
    explanation = {
        "method": "attention",
        "size": [640, 427],
        "box": [106.5, 0, 533.5, 427],
        "grid": [4, 4],
        "maps": [cells, [[1 / 16] * 4 for _ in range(4)]],
    }
    pretend(page, caption="a house", explanation=explanation)
    choose(page, photographs[2])  # 640x427
    wait_for(page, "done")
    tab_to(page, WORDS)
    found = page.locator(".frame canvas").evaluate(
        """one => {
          const { data, width, height } = one.getContext("2d").getImageData(0, 0, one.width, one.height);
          const colour = (x, y) => {
            const at = 4 * (Math.floor(y * height) * width + Math.floor(x * width));
            return Math.max(data[at], data[at + 1], data[at + 2]) - Math.min(data[at], data[at + 1], data[at + 2]);
          };
          let best = [0, 0, -1];
          for (let y = 0.005; y < 1; y += 0.01)
            for (let x = 0.005; x < 1; x += 0.01) {
              const strength = colour(x, y);
              if (strength > best[2]) best = [x, y, strength];
            }
          return { best, beside: colour(0.05, 0.9), other: colour(0.7, 0.3) };
        }"""
    )
    x, y, strength = found["best"]
    assert strength > 60
    # The cell at the bottom left of the box: a quarter of its width and height.
    assert 106.5 / 640 <= x <= (106.5 + 427 / 4) / 640
    assert 0.75 <= y <= 1
    assert (found["beside"], found["other"]) == (0, 0)
    assert "looked mostly at the bottom left" in active(page)
    page.keyboard.press("ArrowRight")
    assert "looked all over the picture" in active(page)


def test_pointing_and_tapping_show_it_too(
    browser: Browser, page_service: Served, photographs: list[Path]
) -> None:
    with opened(browser, page_service) as page:
        choose(page, photographs[0])
        wait_for(page, "done")
        page.locator(".word").first.hover()
        assert page.locator(".frame canvas").is_visible()
        page.locator("h1").hover()
        assert not page.locator(".frame canvas").is_visible()
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(browser, page_service, **phone) as page:
        assert page.locator("#photograph").is_visible()
        assert page.locator("#capture").get_attribute("capture") == "environment"
        page.locator("#capture").set_input_files(photographs[0])
        wait_for(page, "done")
        word = page.locator(".word").first
        word.tap()
        assert page.locator(".frame canvas").is_visible()
        assert word.get_attribute("aria-pressed") == "true"
        word.tap()
        assert not page.locator(".frame canvas").is_visible()


def test_another_caption_is_chosen_by_arrow_keys(page: Page, photographs: list[Path]) -> None:
    choose(page, photographs[0])
    wait_for(page, "done")
    labels = page.locator("fieldset label span").all_inner_texts()
    assert len(labels) == 3
    tab_to(page, "input[type=radio]")
    page.keyboard.press("ArrowDown")
    assert labels[1].startswith(sentence(page))
    assert page.locator("li img").get_attribute("alt") == sentence(page)
    hears(page, "Chosen.")
    check(page, "choice")


def test_the_number_of_captions_can_be_chosen(page: Page, photographs: list[Path]) -> None:
    tab_to(page, "#count")
    page.keyboard.press("ArrowUp")
    choose(page, photographs[0])
    wait_for(page, "done")
    assert page.locator("fieldset").count() == 0
    tab_to(page, "#count")
    page.keyboard.press("End")
    choose(page, photographs[0])
    wait_for(page, "done", 2)
    assert page.locator("fieldset label").count() == 5


@pytest.mark.parametrize(
    ("confidence", "words", "review"),
    [
        (0.91, "Very sure (91 %).", False),
        (0.68, "Fairly sure (68 %).", False),
        (0.55, "Half sure (55 %).", False),
        (0.3, "Not sure (30 %).", True),
        (None, "How sure it is, nobody knows.", True),
    ],
)
def test_confidence_comes_in_words(
    page: Page, photographs: list[Path], confidence: float | None, words: str, review: bool
) -> None:
    pretend(page, caption="a cat", alt="A cat.", confidence=confidence, needs_review=review)
    choose(page, photographs[1])
    wait_for(page, "done")
    expected = f"{words} Check it before you use it." if review else words
    assert page.locator(".sure").inner_text().strip() == expected
    hears(page, "cat.jpg: A cat.", expected)
    assert page.locator("[role=toolbar]").count() == 0  # without a map there is nothing to show


def test_text_and_alt_attribute_are_copied(
    browser: Browser, page_service: Served, photographs: list[Path]
) -> None:
    alt = """A sign that says "Tom's <Fish> & Chips"."""
    with opened(browser, page_service, permissions=["clipboard-read", "clipboard-write"]) as page:
        pretend(page, caption="a sign", alt=alt)
        choose(page, photographs[0])
        wait_for(page, "done")
        tab_to(page, ".chosen .actions button:first-child")
        page.keyboard.press("Enter")
        hears(page, f"Copied: {alt}")
        assert page.evaluate("navigator.clipboard.readText()") == alt
        check(page, "copied")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        hears(page, "Copied: alt=")
        assert page.evaluate("navigator.clipboard.readText()") == f'alt="{escape_attribute(alt)}"'


def test_pages_without_a_clipboard_copy_too(
    browser: Browser, page_service: Served, photographs: list[Path]
) -> None:
    without = "Object.defineProperty(navigator, 'clipboard', { value: undefined });"
    with opened(browser, page_service, script=without) as page:
        page.evaluate("document.addEventListener('copy', () => (window.copied = String(getSelection())))")
        choose(page, photographs[0])
        wait_for(page, "done")
        tab_to(page, ".chosen .actions button:first-child")
        page.keyboard.press("Enter")
        hears(page, "Copied: ")
        assert page.evaluate("window.copied") == sentence(page)
        assert active(page).startswith("Cop")  # the focus is where it was


VOICE = """
window.spoken = [];
class Utterance { constructor(text) { this.text = text; } }
Object.defineProperty(window, "SpeechSynthesisUtterance", { value: Utterance });
Object.defineProperty(window, "speechSynthesis", { value: {
  speak: (one) => { window.spoken.push(one); },
  cancel: () => { window.spoken.at(-1)?.onerror({ error: "canceled" }); },
} });
"""


def test_captions_are_read_aloud(browser: Browser, page_service: Served, photographs: list[Path]) -> None:
    """With a stand-in for the browser's voice: machines that run tests have none."""
    with opened(browser, page_service, script=VOICE) as page:
        choose(page, photographs[0])
        wait_for(page, "done")
        tab_to(page, ".chosen .actions button:last-child")
        assert active(page).startswith("Read aloud")
        page.keyboard.press("Enter")
        assert page.evaluate("[spoken[0].text, spoken[0].lang]") == [sentence(page), "en"]
        assert active(page).startswith("Stop reading")
        check(page, "reading")
        page.keyboard.press("Enter")
        assert active(page).startswith("Read aloud")
        page.keyboard.press("Enter")
        page.evaluate("spoken[1].onend()")
        assert active(page).startswith("Read aloud")
        page.keyboard.press("Enter")
        page.evaluate("spoken[2].onerror({ error: 'synthesis-failed' })")
        hears(page, "could not read this aloud")


def test_browsers_without_a_voice_offer_none(
    browser: Browser, page_service: Served, photographs: list[Path]
) -> None:
    with opened(browser, page_service, script="delete window.speechSynthesis;") as page:
        choose(page, photographs[0])
        wait_for(page, "done")
        labels = page.locator(".chosen .actions button span:first-child").all_inner_texts()
        assert labels == ["Copy text", "Copy alt attribute"]


def test_results_are_downloaded_as_the_command_line_writes_them(
    page: Page, photographs: list[Path], tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    choose(page, *photographs[:2], notes)
    wait_for(page, "done", 2)
    wait_for(page, "failed")
    tab_to(page, "#download")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "showtell-captions.csv"
    table = Path(download.value.path()).read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert tuple(rows[0]) == find_format("csv", folder=tmp_path).COLUMNS  # type: ignore[attr-defined]
    assert [(row["image"], row["rank"]) for row in rows] == [
        *(("astronaut.jpg", str(rank)) for rank in (1, 2, 3)),
        *(("cat.jpg", str(rank)) for rank in (1, 2, 3)),
        ("notes.txt", ""),
    ]
    assert rows[0]["alt"] == sentence(page)
    assert "notes.txt" in rows[-1]["error"]


NAMES = st.text(st.sampled_from(string.ascii_letters + " ,;\"'\n\r\té犬"), max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5).map(float)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    NAMES,
    st.lists(
        st.builds(WrittenCaption, NAMES, NUMBERS, st.none() | NUMBERS, NAMES, st.booleans()), max_size=3
    ),
)
def test_csv_is_the_same_to_the_byte(page: Page, name: str, captions: list[WrittenCaption]) -> None:
    form = find_format("csv", folder=Path())
    expected = form.head() + form.write(Record(name, captions=tuple(captions)))
    answer = {"captions": [one.to_dict() for one in captions]}
    written = page.evaluate(
        "async (picture) => (await import('/take.js')).writeCsv([picture])",
        {"name": name, "state": "done", "answer": answer},
    )
    assert written == expected


def test_pictures_are_pasted(browser: Browser, page_service: Served, photographs: list[Path]) -> None:
    with opened(browser, page_service, permissions=["clipboard-read", "clipboard-write"]) as page:
        choose(page, photographs[1])
        wait_for(page, "done")
        page.evaluate(
            """async () => {
              const canvas = document.createElement("canvas");
              canvas.getContext("2d").drawImage(document.querySelector("li img"), 0, 0);
              const blob = await new Promise((resolve) => canvas.toBlob(resolve));
              await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
            }"""
        )
        page.keyboard.press("Control+V")
        wait_for(page, "done", 2)
        assert page.locator("h3").all_inner_texts() == ["cat.jpg", "pasted-1.png"]
        page.evaluate("navigator.clipboard.writeText('words')")
        page.keyboard.press("Control+V")
        hears(page, "There is no picture in what you pasted.")


def test_pictures_are_dropped(page: Page, photographs: list[Path]) -> None:
    content = list(photographs[1].read_bytes())
    dropped = page.evaluate_handle(
        """(content) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(content)], "dropped.jpg", { type: "image/jpeg" }));
          return data;
        }""",
        content,
    )
    page.dispatch_event("main", "dragenter", {"dataTransfer": dropped})
    assert page.locator("#drop").is_visible()
    check(page, "drop")
    page.dispatch_event("main", "drop", {"dataTransfer": dropped})
    assert not page.locator("#drop").is_visible()
    wait_for(page, "done")
    assert page.locator("h3").inner_text() == "dropped.jpg"


def test_a_photograph_is_taken(page: Page) -> None:
    page.wait_for_selector("#photograph:not([hidden])")
    tab_to(page, "#photograph")
    page.keyboard.press("Enter")
    page.wait_for_selector("#camera-take:enabled")
    assert active(page) == "Take it"
    check(page, "camera")
    page.keyboard.press("Enter")
    wait_for(page, "done")
    assert page.locator("h3").inner_text() == "photograph-1.jpg"
    assert not page.locator("#camera").is_visible()
    assert page.evaluate("document.getElementById('camera-view').srcObject") is None
    tab_to(page, "#photograph", back=True)
    page.keyboard.press("Enter")
    page.wait_for_selector("#camera-take:enabled")
    page.keyboard.press("Escape")
    until(page, "document.getElementById('camera-view').srcObject === null")


def test_pictures_are_removed_and_the_focus_stays_near(page: Page, photographs: list[Path]) -> None:
    choose(page, *photographs[:3])
    wait_for(page, "done", 3)
    tab_to(page, ".foot button")
    page.keyboard.press("Enter")
    hears(page, "astronaut.jpg removed.")
    assert active(page) == "cat.jpg"
    tab_to(page, "#clear", back=True)
    page.keyboard.press("Enter")
    assert page.locator("#sure").is_visible()
    assert active(page) == "Keep them"
    check(page, "remove")
    page.keyboard.press("Escape")
    assert page.locator("li").count() == 2
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('li').length === 0")
    hears(page, "All pictures removed.")
    assert not page.locator("#results").is_visible()
    assert active(page) == "Choose pictures"


def test_large_pictures_are_sent_smaller_and_upright(page: Page, tmp_path: Path) -> None:
    from PIL import Image

    large = tmp_path / "large.jpg"
    noise = Image.effect_noise((3000, 2000), 80).convert("RGB")
    exif = noise.getexif()
    exif[0x0112] = 6  # lies on its side
    noise.save(large, quality=95, exif=exif)
    sizes = []

    def look(route: Any) -> None:
        body = route.request.post_data_buffer
        start = body.index(b"\xff\xd8")
        with Image.open(io.BytesIO(body[start:])) as image:
            sizes.append((len(body), image.size))
        route.continue_()

    page.route(f"**{CAPTIONS}", look)
    choose(page, large)
    wait_for(page, "done")
    [(sent, size)] = sizes
    assert size == (853, 1280)
    assert sent < large.stat().st_size / 4


def test_text_can_be_spaced_out(page: Page, photographs: list[Path]) -> None:
    """WCAG 2.2, 1.4.12: nothing is lost with wider lines, words and letters."""
    choose(page, photographs[1])
    wait_for(page, "done")
    page.evaluate(
        """() => document.querySelectorAll("*").forEach((one) => {
          Object.assign(one.style, { lineHeight: "1.5", letterSpacing: ".12em", wordSpacing: ".16em" }); })"""
    )
    check(page, "spaced")


def test_targets_are_large_enough(page: Page, photographs: list[Path]) -> None:
    """WCAG 2.2, 2.5.8: 24 pixels at least."""
    choose(page, photographs[1])
    wait_for(page, "done")
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, label:has(input), summary")].filter((one) => {
          const box = one.getBoundingClientRect();
          return one.checkVisibility() && Math.min(box.width, box.height) < 24;
        }).map((one) => one.outerHTML)"""
    )
    assert small == []


def test_names_are_shown_as_text(page: Page, photographs: list[Path], tmp_path: Path) -> None:
    evil = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    evil.write_bytes(photographs[1].read_bytes())
    choose(page, evil)
    wait_for(page, "done")
    assert page.locator("h3").inner_text() == evil.name
    assert re.search(r"<img src=x", page.locator("h3").inner_html()) is None


@pytest.mark.parametrize(
    ("caption", "alt", "expected"),
    [
        ("a cat", "A cat.", [("A", False), ("cat.", False)]),
        (
            "a picture of a cat on",
            "A cat.",
            [("a", True), ("picture", True), ("of", True), ("A", False), ("cat.", False), ("on", True)],
        ),
        ("a cat", "Something else.", None),
        ("a cat", None, None),
    ],
)
def test_words_are_spelled_as_in_the_alt_text(
    page: Page, caption: str, alt: str | None, expected: list[tuple[str, bool]] | None
) -> None:
    found = page.evaluate(
        "async (caption) => (await import('/words.js')).spellWords(caption)",
        {"alt": alt, "words": [{"word": word} for word in caption.split()]},
    )
    assert (found and [(one["word"], one["left"]) for one in found]) == expected
