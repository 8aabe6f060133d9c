"""Fewer rights than tests have that root runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def unprivileged() -> Iterator[Path]:
    """An open folder, and no more rights than anybody has: root may open every folder."""
    folder = Path(tempfile.mkdtemp(prefix="showtell-open-"))
    folder.chmod(0o777)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        yield folder
    finally:
        os.seteuid(user)
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)
