"""Where work on Ray is done, shared by `bulk` and `features`."""

from __future__ import annotations

import argparse
import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from showtell.cli.output import log
from showtell.errors import count, require_packages


def add_ray_address(group: argparse._ArgumentGroup, *, otherwise: str) -> None:
    """Adds --ray-address to a group of options; `otherwise` says what is done without it."""
    group.add_argument(
        "--ray-address", metavar="HOST:PORT", help=f"a cluster that runs, or auto; without it {otherwise}"
    )


def require_ray(purpose: str) -> None:
    """Raises MissingExtraError where Ray, or what comes with it, is not installed."""
    require_packages("ray", purpose, "ray", "pyarrow", "fsspec")
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module=r"ray(\.|$)"
    )  # of Ray's, to those who use it


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Keeps off standard output what Ray prints there of its workers: losses are counted, and said at the end."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def log_workers(lost: int, done: Mapping[str, int]) -> None:
    """Says how many workers died, and, where they were in several places, how many images were done in each."""
    if lost:
        log(f"{count(lost, 'worker')} died; the work was done again")
    if len(done) > 1:
        places = ", ".join(f"{place} {images:,}" for place, images in sorted(done.items()))
        log(f"spread over {len(done):,} nodes: {places}")
