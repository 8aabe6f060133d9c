"""The documentation builds without a warning, and asks no other host for anything."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from showtell.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "docs" / "build.py"
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=[\"']?((?:https?:)?//[^\"' >]*)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with no network where the machine can take it away."""
    pytest.importorskip("zensical", reason="needs pip install 'showtell[docs]'")
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, str(BUILD), "--output", str(folder / "built")]
    alone = ["unshare", "--net", "--map-root-user"]
    if (
        shutil.which("unshare")
        and not subprocess.run([*alone, "true"], capture_output=True, check=False).returncode
    ):
        command = [*alone, *command]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "built" / "site" / "index.html")
    return folder / "built" / "site"


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`docs/build.py` as a module."""
    monkeypatch.syspath_prepend(str(BUILD.parent))
    specification = importlib.util.spec_from_file_location("docs_build", BUILD)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_page_is_there(site: Path) -> None:
    for name in (
        "index",
        "captioning",
        "tutorial-training",
        "faq",
        "compact",
        "reference/commands",
        "reference/showtell",
    ):
        assert (site / f"{name}.html").is_file(), name
    assert (site / "images" / "captions.jpg").is_file()


def test_the_pages_fetch_nothing_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 35
    for page in pages:
        assert _FETCHED.findall(page.read_text(encoding="utf-8")) == [], page
    for style in site.rglob("*.css"):
        assert (
            re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")) == []
        ), style


def test_formulas_are_mathml(site: Path) -> None:
    text = (site / "decoders.html").read_text(encoding="utf-8")
    assert text.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">') >= 15
    plain = re.sub(r"<(code|script)\b.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(r"\$[^$\n]+\$|\\[a-z]+\{|&amp;=", plain)
    for rest in ("\\", "&amp;"):
        assert rest not in "".join(re.findall(r"<math.*?</math>", text, flags=re.DOTALL)), rest


def test_the_reference_has_every_command_and_option(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    _, commands = build_parser()
    for name, parser in commands.choices.items():
        assert f'id="showtell-{name}' in text
        for option in re.findall(r"--[a-z][a-z-]+", parser.format_help()):
            assert option in text, (name, option)


def test_the_reference_has_what_the_package_exports(site: Path) -> None:
    import showtell

    text = (site / "reference" / "showtell.html").read_text(encoding="utf-8")
    for name in showtell.__all__:
        assert f'id="showtell.{name}"' in text, name
    assert 'id="showtell.Captioner.caption"' in text


def test_only_an_earlier_build_is_removed(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(pages: Path) -> None:
        raise build.DocumentationError("gathered")

    monkeypatch.setattr(build, "gather", gather)
    monkeypatch.setattr(build, "CONFIG", tmp_path / "docs" / "zensical.toml")
    mine = [tmp_path / "thesis" / "thesis.tex", tmp_path / "docs" / "zensical.toml", tmp_path / "letter"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for folder, message in (
        (tmp_path / "thesis", "thesis: not empty, and not an earlier build"),
        (tmp_path / "docs", "docs: holds the pages themselves"),
        (tmp_path / "thesis" / "..", "holds the pages themselves"),
        (tmp_path / "letter", "letter: is a file"),
    ):
        with pytest.raises(build.DocumentationError, match=message):
            build.build(folder)
    assert [path.read_text() for path in mine] == ["mine"] * 3
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    for _ in range(2):  # an empty folder, then an earlier build
        with pytest.raises(build.DocumentationError, match="gathered"):
            build.build(earlier)
        assert [path.name for path in earlier.iterdir()] == ["docs"]
        (earlier / "zensical.toml").touch()
        (earlier / "docs" / "old.md").touch()


def test_links_between_files_become_links_between_pages(build: ModuleType) -> None:
    places = build.find_places()
    mend = build.mend_links
    assert mend("[a](docs/faq.md#x) `[b](no.md)`", "README.md", places) == "[a](faq.md#x) `[b](no.md)`"
    assert mend("[a](../models/README.md)", "docs/results.md", places) == "[a](models.md)"
    assert (
        mend("![a](../docs/images/captions.jpg)", "benchmarks/README.md", places)
        == "![a](images/captions.jpg)"
    )
    assert mend("[a](https://example.com/b.md)", "README.md", places) == "[a](https://example.com/b.md)"


def test_what_is_wrong_with_a_page_is_said(build: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(build.DocumentationError, match=r"README.md links to 'docs/none.md'"):
        build.mend_links("[a](docs/none.md)", "README.md", {"README.md": "index.md"})
    build.gather(tmp_path)
    build.check_menu(tmp_path)
    (tmp_path / "more.md").write_text("# More\n")
    with pytest.raises(build.DocumentationError, match=r"more.md stands in no menu"):
        build.check_menu(tmp_path)
    (tmp_path / "more.md").unlink()
    (tmp_path / "faq.md").unlink()
    with pytest.raises(build.DocumentationError, match=r"names faq.md, which is no page"):
        build.check_menu(tmp_path)
