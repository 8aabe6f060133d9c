"""Builds the documentation as a site: `make docs`, or `python docs/build.py --output FOLDER`.

The pages are Markdown that a forge shows as well. They are gathered in one folder first, because three kinds of them
do not lie in `docs/`: the project's own (the README is the first page of the site), the model cards, and the
reference, which is generated. On the way, links between files of the repository become links between pages. Zensical
then makes the site, strictly: a link or an anchor that leads nowhere, a page that stands in no menu, or any other
warning fails the build.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import reference

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "docs" / "zensical.toml"

# Pages that lie elsewhere in the repository, and where they go.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "models/README.md": "models.md",
    "src/showtell/bundled/compact/MODEL_CARD.md": "compact.md",
    "benchmarks/README.md": "benchmarks.md",
}
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]*)")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)  # where no link is one


class DocumentationError(Exception):
    """Something in the pages is not as it must be."""


def main() -> None:
    """Builds the site and says where it is."""
    parser = argparse.ArgumentParser(description="Builds the documentation.")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "docs", metavar="FOLDER")
    folder = parser.parse_args().output.absolute()
    try:
        site = build(folder)
    except (DocumentationError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{site}/index.html")
    hint = f"with its search, which needs a web server: {sys.executable} -m http.server --directory {site}"
    print(hint, file=sys.stderr)


def build(folder: Path) -> Path:
    """Gathers the pages below a folder and makes the site of them; returns the site's folder.

    Raises:
        DocumentationError: the folder holds something else than an earlier build, a link leads nowhere, a page stands
            in no menu, or Zensical has a warning.
        OSError: the folder cannot be written.
    """
    folder = folder.resolve()
    remove_earlier(folder)
    pages = folder / "docs"
    pages.mkdir(parents=True)
    gather(pages)
    check_menu(pages)
    shutil.copy(CONFIG, folder)
    command = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--strict",
        "--config-file",
        str(folder / CONFIG.name),
    ]
    paths = [str(ROOT / "docs"), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    printed = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).partition("\nTraceback")[0]
    if done.returncode or re.search("warning|error", printed, re.IGNORECASE):
        raise DocumentationError(f"Zensical does not accept the pages:\n{printed}")
    return folder / "site"


def remove_earlier(folder: Path) -> None:
    """Removes an earlier build; raises DocumentationError where a folder is none, so that nothing else is lost."""
    if CONFIG.resolve().is_relative_to(folder):
        raise DocumentationError(f"{folder}: holds the pages themselves. Name another folder with --output.")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DocumentationError(f"{folder}: is a file. Name a folder with --output.")
    if any(folder.iterdir()) and not (folder / CONFIG.name).is_file():
        raise DocumentationError(
            f"{folder}: not empty, and not an earlier build (it has no {CONFIG.name}). Name another folder with "
            "--output."
        )
    shutil.rmtree(folder)


def gather(pages: Path) -> None:
    """Writes all pages, and what they show, into a folder."""
    places = find_places()
    for source, place in places.items():
        target = pages / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".md"):
            text = (ROOT / source).read_text(encoding="utf-8")
            target.write_text(mend_links(text, source, places), encoding="utf-8")
        else:
            shutil.copy(ROOT / source, target)
    generated = {"reference/commands.md": reference.write_commands()}
    for name in reference.API:
        generated[f"reference/{name}.md"] = reference.write_module(name)
    for place, text in generated.items():
        (pages / place).parent.mkdir(parents=True, exist_ok=True)
        (pages / place).write_text(text, encoding="utf-8")


def find_places() -> dict[str, str]:
    """Returns, for each file of the repository that becomes part of the site, its place there."""
    places = dict(ELSEWHERE)
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.suffix in (".md", ".css", ".jpg", ".png"):
            places[path.relative_to(ROOT).as_posix()] = path.relative_to(ROOT / "docs").as_posix()
    # What a page links to and is no page, as a recipe, can be downloaded.
    for source in [source for source in places if source.endswith(".md")]:
        for target in _find_targets((ROOT / source).read_text(encoding="utf-8"), source):
            places.setdefault(target, f"files/{target}")
    return places


def mend_links(text: str, source: str, places: dict[str, str]) -> str:
    """Returns a page whose links between files of the repository are links between their places in the site."""

    def mend(match: re.Match[str]) -> str:
        place = places[_resolve(match[2], source)]
        return match[1] + os.path.relpath(place, Path(places[source]).parent)

    parts = _CODE.split(text)
    return "".join(part if number % 2 else _LINK.sub(mend, part) for number, part in enumerate(parts))


def check_menu(pages: Path) -> None:
    """Raises DocumentationError unless the menu names every page, and nothing else."""
    config = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    listed = list(_find_pages(config["project"]["nav"]))
    there = {path.relative_to(pages).as_posix() for path in pages.rglob("*.md")}
    for missing in sorted(there - set(listed)):
        raise DocumentationError(
            f"The page {missing} stands in no menu. Give it a place under `nav` in {CONFIG}."
        )
    for absent in sorted(set(listed) - there):
        raise DocumentationError(f"`nav` in {CONFIG} names {absent}, which is no page.")


def _find_targets(text: str, source: str) -> Iterator[str]:
    for part in _CODE.split(text)[::2]:
        for match in _LINK.finditer(part):
            yield _resolve(match[2], source)


def _resolve(link: str, source: str) -> str:
    path = (ROOT / source).parent / link
    if not path.is_file() or not path.resolve().is_relative_to(ROOT):
        raise DocumentationError(f"{source} links to {link!r}, and there is no such file in the repository.")
    return path.resolve().relative_to(ROOT).as_posix()


def _find_pages(menu: Any) -> Iterator[str]:
    if isinstance(menu, str):
        yield menu
    for entry in menu.values() if isinstance(menu, dict) else menu if isinstance(menu, list) else ():
        yield from _find_pages(entry)


if __name__ == "__main__":
    main()
