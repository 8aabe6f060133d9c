"""The rules of docs/design.md, held by reading the source: imports go downwards, torch only where allowed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "showtell"

# A package imports only from rows above its own, and what SAME_ROW adds.
ROWS = (
    {"errors", "files", "telemetry", "launch", "interruption"},
    {"config"},
    {"data", "text", "images", "alt_text", "photographs"},
    {"decoding", "metrics"},
    {"encoders", "decoders"},
    {"recipes", "consensus", "confidence"},
    {"bundle", "portable", "captioning"},
    {"ensemble", "packing", "library"},
    {"training", "evaluation", "runtime", "exporter"},
    {"captioner"},
    {"intake", "outputs"},
    {
        "cli",
        "server",
        "bulk",
        "explain",
        "tuning",
        "forgetting",
        "demo",
        "tutorial",
        "distillation",
        "pages",
        "report",
        "__init__",
        "__main__",
    },
)
SAME_ROW = {
    ("files", "errors"),  # no home folder is the user's to mend
    ("data", "images"),  # the doctor opens images; duplicates are found by what they show
    ("data", "text"),  # the doctor counts the vocabulary
    ("portable", "bundle"),  # an export is made of a bundle and checked like one
    ("exporter", "training"),  # what is exported is opened as for captioning
    ("training", "evaluation"),  # the best checkpoint is chosen by really decoded captions
    ("demo", "explain"),
    ("tutorial", "explain"),
    ("cli", "tutorial"),
    ("cli", "demo"),
    ("cli", "distillation"),
    ("cli", "explain"),
    ("report", "explain"),
    ("cli", "pages"),
    ("cli", "report"),
    ("cli", "bulk"),
    ("cli", "server"),
    ("cli", "tuning"),
    ("cli", "forgetting"),
    ("__main__", "cli"),
}
FRAMEWORKS = {"torch", "torchvision", "timm", "jaxtyping"}
FRAMEWORK_PACKAGES = {"encoders", "decoders", "training", "exporter", "distillation"}
ROW = {package: index for index, row in enumerate(ROWS) for package in row}


def imports(tree: ast.AST, module: tuple[str, ...]) -> Iterator[str]:
    """Yields every name that a module imports, wherever the import stands, as a dotted path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join((*module[: len(module) - node.level], node.module or ""))
                if node.level
                else node.module
            )
            yield from (f"{(base or '').rstrip('.')}.{alias.name}" for alias in node.names)


def violations(package: str, imported: str) -> Iterator[str]:
    """Yields what is wrong with one import of one package."""
    words = imported.split(".")
    if words[0] in FRAMEWORKS and package not in FRAMEWORK_PACKAGES:
        yield f"{package} must not import {words[0]}"
    if words[0] != "showtell" or words[1:] == ["__version__"]:
        return
    other = words[1] if len(words) > 1 and words[1] in ROW else "__init__"
    if other != package and ROW[other] >= ROW[package] and (package, other) not in SAME_ROW:
        yield f"{package} must not import {imported}"


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_only_downwards_and_torch_stays_in_its_packages(path: Path) -> None:
    module = ("showtell", *path.relative_to(SOURCE).with_suffix("").parts)
    package = module[1]
    assert package in ROW, f"{package} stands in no row of docs/design.md: give it one there and in ROWS"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [text for name in imports(tree, module) for text in violations(package, name)] == []


@pytest.mark.parametrize(
    ("package", "source", "expected"),
    [
        ("metrics", "import torch.nn", ["metrics must not import torch"]),
        ("captioner", "def f():\n    from timm import create_model", ["captioner must not import timm"]),
        (
            "text",
            "from showtell.data.records import Dataset",
            ["text must not import showtell.data.records.Dataset"],
        ),
        ("data", "from ..cli import main", ["data must not import showtell.cli.main"]),
        ("data", "from showtell import Captioner", ["data must not import showtell.Captioner"]),
        ("decoders", "import torch\nfrom showtell.errors import ShowtellError", []),
        ("data", "from showtell.text import tokenize", []),
        ("training", "from showtell import __version__", []),
    ],
)
def test_the_rules_see_what_they_must(package: str, source: str, expected: list[str]) -> None:
    names = imports(ast.parse(source), ("showtell", package, "module"))
    assert [text for name in names for text in violations(package, name)] == expected


# Everything that only an extra installs: the base install must do without it.
REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused}:
            raise ImportError("the base install imported " + name)
sys.meta_path.insert(0, Refuse())
"""
EXTRAS = {
    *FRAMEWORKS,
    "matplotlib",
    "scipy",
    "skimage",
    "sklearn",
    "pycocoevalcap",
    "tensorboard",
    "beartype",
    "psutil",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "nncf",
    "transformers",
    "optuna",
    "lxml",
    "pillow_heif",
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "uvloop",
    "httptools",
    "prometheus_client",
    "ray",
    "pyarrow",
    "fsspec",
}


def run_without(refused: set[str], code: str) -> subprocess.CompletedProcess[str]:
    source = REFUSE.format(refused=sorted(refused)) + code
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)


def test_refusing_imports_works() -> None:
    ended = run_without({"torch"}, "import torch")
    assert "the base install imported torch" in ended.stderr


def command(*words: str) -> str:
    return f"from showtell.cli.main import main\nsys.exit(main({list(words)!r}))"


def test_import_showtell_needs_only_the_base_install() -> None:
    ended = run_without(EXTRAS | {"imagehash"}, "import showtell")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_help_needs_only_the_standard_library() -> None:
    ended = run_without(EXTRAS | {"imagehash", "numpy", "PIL", "safetensors", "tqdm"}, command("--help"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "caption" in ended.stdout


def test_recipes_needs_only_the_base_install() -> None:
    ended = run_without(EXTRAS | {"imagehash"}, command("recipes"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "attend-gru-additive" in ended.stdout


def test_score_needs_only_the_base_install(tmp_path: Path) -> None:
    annotations = [{"id": key, "image_id": key, "caption": f"Dog {key} runs."} for key in (1, 2)]
    references = {"images": [{"id": 1}, {"id": 2}], "annotations": annotations}
    (tmp_path / "references.json").write_text(json.dumps(references))
    (tmp_path / "hypotheses.json").write_text(json.dumps(annotations))
    words = command("score", str(tmp_path / "references.json"), str(tmp_path / "hypotheses.json"))
    ended = run_without(EXTRAS | {"imagehash"}, words)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert '"Bleu_1": ' in ended.stdout


@pytest.mark.parametrize("missing", ["torch", "timm"])
@pytest.mark.parametrize(
    "words",
    [
        ("train", "drawn-shapes", "--data", "DATA", "--output", "RUN"),
        ("features", "DATA", "--encoder", "test_resnet", "--output", "RUN"),
    ],
)
def test_what_needs_a_framework_names_its_extra(missing: str, words: tuple[str, ...], tmp_path: Path) -> None:
    from showtell.data.drawn import write_drawn_dataset

    write_drawn_dataset(tmp_path / "DATA", train=4, dev=2, test=2)
    known = [str(tmp_path / word) if word in ("DATA", "RUN") else word for word in words]
    ended = run_without({missing}, command(*known))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"needs the package {missing!r}" in ended.stderr
    assert 'pip install "showtell[train]"' in ended.stderr
    assert "Traceback" not in ended.stderr


def test_data_check_needs_no_framework(tmp_path: Path, photographs: list[Path]) -> None:
    rows = "".join(f"{path.name},A picture.\n" for path in photographs)
    (tmp_path / "captions.csv").write_text("image,caption\n" + rows)
    ended = run_without(
        FRAMEWORKS,
        command("data", "check", str(tmp_path / "captions.csv"), "--images", str(photographs[0].parent)),
    )
    assert ended.returncode in (0, 1)
    assert ended.stderr == ""
