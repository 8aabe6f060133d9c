"""What all tests share: the shape checks, the number of threads, and real photographs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports torch: as many threads everywhere, since sums in another order differ in their last bits
# and a container often sees more processors than it may use. Processes that tests start inherit it. Where tests run in
# two processes (pytest-xdist), each has one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it
os.environ.setdefault("GOMP_SPINCOUNT", "50000")

# A background job of a shell ignores Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook
from PIL import Image

from showtell.photographs import find_photographs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from served import Served

# A machine that is busy with other things makes no property false.
settings.register_profile("showtell", deadline=None)
settings.load_profile("showtell")

# Checks the shapes and types that the decoders declare, in the test run only.
install_import_hook("showtell.decoders", "beartype.beartype")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with Flickr8k, COCO and backbone weights, which are not part of the project."""
    folder = Path(os.environ.get("SHOWTELL_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the Flickr8k and COCO material, which is not at {folder} (set $SHOWTELL_SHARED)")
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six real photographs as JPEG files in one folder, in the order of their names.

    Width x height: astronaut 512x512, cat 451x300, coffee 600x400, china, flower and rocket 640x427.
    They come inside the packages scikit-image and scikit-learn, so nothing is downloaded.
    """
    found = find_photographs()
    sources = {
        "astronaut": found["astronaut"],
        "cat": found["cat"],
        "china": found["palace"],
        "coffee": found["coffee"],
        "flower": found["flower"],
        "rocket": found["rocket"],
    }
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for name, source in sources.items():
        path = folder / f"{name}.jpg"
        with Image.open(source) as image:
            image.convert("RGB").save(path, quality=90)
        paths.append(path)
    return paths


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the tutorial is slow: its training alone takes more than three minutes."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tutorial. It takes minutes; all tests share it and leave it whole."""
    from showtell.tutorial import run_tutorial

    output = tmp_path_factory.mktemp("tutorial") / "tutorial"
    run_tutorial(output)
    return output


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of an attention captioner over a tiny backbone, untrained."""
    from showtell.encoders import build_encoder
    from showtell.recipes import load_recipe
    from showtell.text import Vocabulary
    from showtell.training.model import build_decoder
    from tiny_runs import write_bundle

    settings = ["encoder.name=test_resnet", "encoder.weights=random", "encoder.image_size=64"]
    sizes = [f"decoder.{name}_size=16" for name in ("feature", "attention", "embedding", "hidden")]
    recipe = load_recipe("attend-gru-additive", [*settings, *sizes, "decoding.max_steps=6"])
    encoder = build_encoder(recipe.encoder)
    vocabulary = Vocabulary.from_captions(["a dog runs on the grass", "two men talk", "eine 犬"], min_count=1)
    decoder = build_decoder(recipe, channels=encoder.channels, vocab_size=len(vocabulary))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_bundle(folder, recipe, encoder, decoder, vocabulary)


@pytest.fixture(scope="session")
def model(tiny_bundle: Path) -> str:
    """The path of that bundle, for command lines in this process."""
    return str(tiny_bundle)


@pytest.fixture(scope="session")
def exported_model(tiny_bundle: Path) -> str:
    """The same captioner exported: for processes of their own, which it saves from loading torch."""
    from tiny_runs import export_quickly

    folder = tiny_bundle.with_name("tiny-exported")
    export_quickly(tiny_bundle, folder)
    return str(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed after each file: as long as Playwright runs, asyncio cannot be used otherwise."""
    from browsing import ARGUMENTS, CHROMIUM, MISSING

    sync_api = pytest.importorskip("playwright.sync_api", reason=MISSING)
    pytest.importorskip("axe_playwright_python", reason=MISSING)
    if CHROMIUM is None:
        pytest.skip(MISSING)
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def page_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny exported captioner, with a confidence of its own; or $SHOWTELL_PAGE_MODEL, for pictures of the page."""
    from showtell.bundle import store_confidence
    from showtell.confidence import Confidence

    if given := os.environ.get("SHOWTELL_PAGE_MODEL"):
        return given
    folder = tmp_path_factory.mktemp("models") / "sure"
    shutil.copytree(request.getfixturevalue("exported_model"), folder)
    store_confidence(folder, "portable.json", Confidence(word=(1.0, 0.1, 0.1, 0.1, 0.1), caption=(0.2,) * 4))
    return str(folder)


@pytest.fixture(scope="module")
def page_service(page_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from served import serving

    with serving(page_model, tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture
def page(browser: Browser, page_service: Served) -> Iterator[Page]:
    """The page of the service, freshly opened."""
    from browsing import opened

    with opened(browser, page_service) as one:
        yield one


@pytest.fixture
def features() -> Path:
    """The feature cache of the shared drawn data set."""
    from tiny_runs import scratch_folder, trained_run

    trained_run()
    return scratch_folder() / "features"


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training without its plots, which take longer than a tiny epoch."""
    from showtell.training.history import History

    monkeypatch.setattr(History, "plot", lambda self, path: None)


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, as large as the indirect parameter says (as "256k"), to be filled up."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(folder)]
    mount = subprocess.run(command, capture_output=True, check=False) if shutil.which("mount") else None
    if mount is None or mount.returncode:
        pytest.skip("cannot mount a small tmpfs here: needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """The environment for processes that tests start: no coverage hooks, no colours, this Python first."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return environment
