"""The page of a report in a real browser, used by keyboard: what it shows, and what it does without a script."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browsing import SHOTS, VIEWS, check, opened_file, tab_to, until
from reported import photographed, spoil
from showtell.captioner import Captioner
from showtell.report import Report, judge_models
from showtell.report.contents import LeftOut
from showtell.report.files import write_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
SHOWN = "document.getElementById('shown').textContent"


@pytest.fixture(scope="module")
def report(exported_model: str, photographs: list[Path]) -> Report:
    """Of the captioner that comes along and another one: $SHOWTELL_REPORT_MODEL, for pictures of the page."""
    other = os.environ.get("SHOWTELL_REPORT_MODEL") or exported_model
    models = {"compact": Captioner.load("compact"), Path(other).name: Captioner.load(other)}
    found = judge_models(models, photographed(photographs), split="dev", examples=2, resamples=200)
    return replace(found, left_out=(LeftOut("torn.jpg", "torn.jpg: the file ends too early"),))


@pytest.fixture(scope="module")
def written(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(report, tmp_path_factory.mktemp("report") / "report")


@pytest.fixture
def page(browser: Browser, written: Path) -> Iterator[Page]:
    with opened_file(browser, written) as one:
        yield one


def count_shown(page: Page) -> int:
    return page.locator(".card:not([hidden])").count()


def keep(page: Page, part: str) -> None:
    """Keeps pictures of a part of the page where they are wanted, as `browsing.check` does of states."""
    for view, (scheme, size) in VIEWS.items() if SHOTS else ():
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.evaluate("part => document.getElementById(part).scrollIntoView()", part)
        page.wait_for_timeout(300)  # what comes into view is laid out and decoded now
        page.evaluate("part => document.getElementById(part).scrollIntoView()", part)
        page.wait_for_timeout(300)
        page.screenshot(path=Path(str(SHOTS)) / f"report-{part}-{view}.png", animations="disabled")


def test_nothing_is_wrong_with_the_page_in_any_view(page: Page) -> None:
    assert page.title() == "Captions of photographs, dev"
    until(page, f"{SHOWN} === '6 images'")
    check(page, "report")
    for one in page.locator("summary").all():
        one.evaluate("one => { one.parentElement.open = true; }")
    check(page, "report-open")


@pytest.mark.parametrize(
    "part", ["summary", "scores", "comparison", "distributions", "examples", "mistakes", "images"]
)
def test_every_part_is_one_link_away(part: str, page: Page) -> None:
    tab_to(page, f"nav a[href='#{part}']")
    page.keyboard.press("Enter")
    until(page, "part => document.activeElement.id === part", part)
    until(page, "document.activeElement.getBoundingClientRect().top < innerHeight")
    keep(page, part)


def test_images_are_found_by_keyboard(page: Page) -> None:
    tab_to(page, ".skip")
    page.keyboard.press("Enter")
    tab_to(page, "#words")
    page.keyboard.type("orange SUIT")
    until(page, f"{SHOWN} === '1 of 6 images'")
    assert page.locator(".card:not([hidden]) h3").inner_text() == "astronaut.jpg"
    page.keyboard.type(" nosuch")
    until(page, f"{SHOWN} === '0 of 6 images'")
    tab_to(page, "#filter button")
    page.keyboard.press("Enter")
    until(page, f"{SHOWN} === '6 images'")
    assert page.locator("#words").input_value() == ""


def test_images_are_filtered_by_findings_and_sorted(page: Page, report: Report) -> None:
    having = sum(any(one.kind == "missing" for one in found) for found in report.models[0].mistakes.values())
    assert having > 0
    tab_to(page, "button.show[data-kind=missing][data-model='0']")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.id === 'kind'")
    assert count_shown(page) == having
    told = f"{having} of 6 images" if having < 6 else "6 images"
    until(
        page,
        "told => document.getElementById('shown').textContent === told",
        f"{told}, lowest CIDEr first (compact)",
    )
    order = page.locator(".card h3").all_text_contents()
    assert order == report.models[0].rank()
    page.select_option("#order", "best|0")
    page.select_option("#kind", "")
    assert page.locator(".card h3").first.text_content() == report.models[0].rank()[-1]
    assert count_shown(page) == 6
    page.select_option("#order", "")
    until(page, f"{SHOWN} === '6 images'")
    assert page.locator(".card h3").all_text_contents() == [image.id for image in report.images]
    [comparison] = report.comparisons
    page.select_option("#order", "loss|1|0")
    assert page.locator(".card h3").first.text_content() == comparison.rank()[0]


def test_a_link_leads_to_an_image_that_is_filtered_away(page: Page, report: Report) -> None:
    tab_to(page, "#words")
    page.keyboard.type("nosuch")
    until(page, f"{SHOWN} === '0 of 6 images'")
    link = page.locator(".example a").first
    link.focus()
    page.keyboard.press("Enter")
    until(page, f"{SHOWN} === '6 images'")
    assert page.evaluate("document.activeElement.querySelector('h3').textContent") == link.text_content()


def test_everything_but_the_filter_is_there_without_a_script(browser: Browser, written: Path) -> None:
    with opened_file(browser, written, java_script_enabled=False) as page:
        assert page.locator(".card").count() == 6
        assert page.locator(".example .lit img").count() > 10
        assert page.locator("svg.chart").count() >= 8
        for hidden in ("#filter", "button.show"):
            assert not page.locator(hidden).first.is_visible()
        summary = page.locator(".card summary").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator(".card .references").first.is_visible()


def test_nothing_that_a_caption_says_is_run(browser: Browser, report: Report, tmp_path: Path) -> None:
    evil = "</script><script>document.title = 'gone'</script><img src=x onerror=\"document.title = 'gone'\">"
    path = write_report(spoil(report, evil), tmp_path / "evil")
    with opened_file(browser, path) as page:
        until(page, f"{SHOWN} === '6 images'")
        assert page.title() == f"Captions of dataset {evil}, split {evil}"
        assert page.locator("img[src=x]").count() == 0
        assert page.locator("script").count() == 1
        assert page.locator(".card .caption").first.text_content() == f"caption {evil}"


def test_words_are_looked_for_in_captions_references_and_names_only(page: Page, report: Report) -> None:
    caption = report.models[0].evaluation.captions["cat.jpg"][0].text
    for words in ("rocket.jpg", "smoke is COMING", caption):
        page.fill("#words", words)
        assert count_shown(page) >= 1
    # What Showtell writes beside them: scores, names of models and rules.
    for words in ("CIDEr", "confidence", "references", report.models[0].label, "missing objects"):
        page.fill("#words", words)
        assert count_shown(page) == 0, words


def test_models_may_have_any_name(browser: Browser, report: Report, tmp_path: Path) -> None:
    names = {model.label: f"a|{number}|b c" for number, model in enumerate(report.models)}
    changed = replace(
        report,
        models=tuple(replace(model, label=names[model.label]) for model in report.models),
        comparisons=tuple(
            replace(one, label=names[one.label], against=names[one.against]) for one in report.comparisons
        ),
    )
    with opened_file(browser, write_report(changed, tmp_path / "named")) as page:
        for number, model in enumerate(report.models):
            page.select_option("#order", label=f"lowest CIDEr first (a|{number}|b c)")
            assert page.locator(".card h3").all_text_contents() == model.rank()
        page.select_option("#order", label="a|1|b c gains most on a|0|b c")
        assert page.locator(".card h3").first.text_content() == report.comparisons[0].rank()[-1]


@pytest.mark.slow
def test_a_thousand_images_open_quickly(browser: Browser, report: Report, tmp_path: Path) -> None:
    """Under 25 MB, and 2 s of the browser's main thread; what else the machine does is not counted."""
    times = 167
    names = {f"{number}-{image.id}": image for number in range(times) for image in report.images}

    def repeat(values):
        return {name: values[image.id] for name, image in names.items()}

    models = tuple(
        replace(
            model,
            mistakes=repeat(model.mistakes),
            evaluation=replace(
                model.evaluation,
                captions=repeat(model.evaluation.captions),
                per_image=repeat(model.evaluation.per_image),
            ),
            explained={
                name: model.explained[image.id]
                for name, image in names.items()
                if image.id in model.explained
            },
        )
        for model in report.models
    )
    images = tuple(replace(image, id=name) for name, image in names.items())
    comparisons = tuple(replace(one, gains=repeat(one.gains)) for one in report.comparisons)
    large = replace(report, images=images, models=models, comparisons=comparisons, examples=8)
    path = write_report(large, tmp_path / "large")
    assert path.stat().st_size < 25e6
    with opened_file(browser, path) as page:
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.reload()
        assert count_shown(page) == 6 * times
        measured = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    assert measured["TaskDuration"] < 2
