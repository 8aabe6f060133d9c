"""The files of the page, as far as they can be checked without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[1] / "src" / "showtell" / "server" / "static"
HTML = (STATIC / "index.html").read_text(encoding="utf-8")
MODULES = {path.name: path.read_text(encoding="utf-8") for path in sorted(STATIC.glob("*.js"))}
TEXTS = set(
    re.findall(r"^  (\w+)(?::|,$)", MODULES["text.js"].partition("export const problems")[0], re.MULTILINE)
)


def test_every_text_is_there_and_used() -> None:
    used = set(re.findall(r'data-(?:text|label)="(\w+)"', HTML))
    for source in MODULES.values():
        used |= set(re.findall(r"(?<!/)\btext\.(\w+)", source))
    states = {"waiting", "thinking", "paused"}  # looked up by the state of a picture
    assert used - TEXTS == set()
    assert TEXTS - used - states == set()


def test_texts_are_in_one_place() -> None:
    """Words between quotes elsewhere are names for programs: without spaces, or of selectors and formats."""
    for name, source in MODULES.items():
        if name == "text.js":
            continue
        code = re.sub(r"^\s*//.*$|(?<=[;,{)\]]) // .*$", "", source, flags=re.MULTILINE)
        found = re.findall(r'"([A-Z][a-z]+ [a-z ]+|[a-z]+ [a-z]+ [a-z]+[^"]*)"', code)
        assert (name, found) == (name, [])


def test_all_modules_are_fetched_at_once() -> None:
    preloaded = re.findall(r'<link rel="modulepreload" href="([^"]+)">', HTML)
    assert sorted([*preloaded, "app.js"]) == sorted(MODULES)
    imported = {name for source in MODULES.values() for name in re.findall(r'from "\./([^"]+)"', source)}
    assert imported == set(preloaded)


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", HTML) == []
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text))
        assert (path.name, addresses - {"http://www.w3.org/2000/svg"}) == (path.name, set())
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", text)


@pytest.mark.parametrize("name", MODULES)
def test_modules_can_be_read_in_one_go(name: str) -> None:
    assert len(MODULES[name].splitlines()) < 300
    assert MODULES[name].startswith("// ")


def test_ids_are_those_of_the_html() -> None:
    ids = set(re.findall(r'\bid="([\w-]+)"', HTML))
    found = {name for source in MODULES.values() for name in re.findall(r'\bfind\("([\w-]+)"\)', source)}
    assert found - ids == set()
