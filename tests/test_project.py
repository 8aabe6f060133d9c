"""What holds for the project as a whole: documents, dependencies, Makefile, and words that must not occur."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import showtell

ROOT = Path(__file__).resolve().parents[1]
# Of the text at apache.org/licenses/LICENSE-2.0.txt
APACHE = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def project_files() -> list[Path]:
    """Every file that is tracked, or would be if it were added now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("needs git and a clone: not every file in an unpacked archive is the project's")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def documents() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".md"]


def test_the_licence_is_the_apache_licence_word_for_word() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE


def test_every_dependency_has_its_reason_in_the_design() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[\[<>=~! ;]", line)[0] for line in wanted} - {"showtell"}
    section = (ROOT / "docs/design.md").read_text().partition("\n## Dependencies\n")[2]
    assert len(names) > 10
    assert (
        sorted(name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", section))
        == []
    )


def test_links_to_files_lead_somewhere() -> None:
    broken = []
    for document in documents():
        text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
            if not (document.parent / target).exists():
                broken.append(f"{document.name}: {target}")
    assert broken == []


# Split in two, so that this file does not hold them itself.
FORBIDDEN = [
    r"/wo" r"rk/(main|shared|\.)",
    r"/\.lib" r"rary\b",
    r"/tmp/v" r"env\b",
    r"brief\." r"md",
    r"\b(this|a|the|next|previous|later|earlier) ses" r"sions?\b",
    r"\bses" r"sion of the project\b",
    # Packages come from the public index; the only other one that users may need is PyTorch's.
    r"index-u" r"rl[= ]+(?!https://(download\.pytorch\.org|pypi\.org)/)",
    r"\bPIP_(INDEX|EXTRA|TRUSTED|PRO" r"XY)",
    r"\bBEGIN [A-Z ]*PRIVATE K" r"EY\b",
]


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_file_speaks_of_the_machine_it_was_written_on(pattern: str) -> None:
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if re.search(pattern, line, flags=re.IGNORECASE):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def test_source_files_can_be_read_in_one_go() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "src").rglob("*.py")}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length >= 450} == {}


def test_no_file_has_a_name_that_says_nothing() -> None:
    nothing = {"utils", "util", "helpers", "helper", "misc", "manager", "legacy", "common"}
    assert [str(path) for path in project_files() if {path.stem, path.parent.name} & nothing] == []


def test_no_large_or_binary_data_is_in_the_project() -> None:
    models = (
        ROOT / "models",
        ROOT / "src" / "showtell" / "bundled",
    )  # how large these may be is tested elsewhere
    large = [
        str(path.relative_to(ROOT))
        for path in project_files()
        if path.stat().st_size > 2_000_000 and not any(path.is_relative_to(folder) for folder in models)
    ]
    weights = [
        str(path) for path in project_files() if path.suffix in (".pth", ".pt", ".pkl", ".npy", ".npz")
    ]
    assert large + weights == []


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 50


def test_the_changelog_has_the_version() -> None:
    assert f"\n## [{showtell.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_make_help_names_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))
    assert targets >= {"demo", "test", "test-slow", "check", "bench", "clean"}
    assert set(re.findall(r"^make ([a-z-]+) ", listed, flags=re.MULTILINE)) == targets


def test_make_says_what_is_missing_without_python() -> None:
    command = ["make", "test", "PYTHON=", "VENV=does-not-exist"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode != 0
    assert "Python 3.11 or newer was not found. Name one: make test PYTHON=" in ended.stderr


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111, ".ci/run must be executable"
    assert re.search(r"^make test\b", script.read_text(), flags=re.MULTILINE)
    assert "make test" in (ROOT / "README.md").read_text()


def test_fixture_photographs_are_photographs(photographs: list[Path]) -> None:
    from PIL import Image

    sizes = []
    for path in photographs:
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes.append(image.size)
    assert sizes == [(512, 512), (451, 300), (640, 427), (600, 400), (640, 427), (640, 427)]


def test_the_test_run_checks_the_shapes_that_decoders_declare() -> None:
    import torch
    from jaxtyping import TypeCheckError

    from showtell.decoders.attention import DotAttention

    query, features = torch.zeros(2, 3, 8), torch.zeros(2, 4, 8)
    assert DotAttention()(query, features)[0].shape == (2, 3, 8)
    with pytest.raises(TypeCheckError, match="features"):
        DotAttention()(query, torch.zeros(2, 4, 9))
