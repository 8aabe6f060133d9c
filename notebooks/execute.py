"""Executes the notebooks from top to bottom and writes the executed copies: what `make notebooks` calls.

On drawn scenes everything happens in a temporary folder. On Flickr8k, where training takes longer, runs are kept beside
the executed copies, so that a second call goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from showtell.errors import MissingExtraError, ShowtellError, UsageError

FOLDER = Path(__file__).resolve().parent
MODELS = FOLDER.parent / "models"
OUTPUT = FOLDER / "executed"


class NotebookFailed(ShowtellError):
    """A cell of a notebook raised an error, or the process that executed it ended."""


def list_notebooks() -> list[Path]:
    """Returns the notebooks in the order in which they are read."""
    return sorted(FOLDER.glob("[0-9]-*.ipynb"))


def execute_notebook(
    path: Path, work: Path, *, flickr8k: Path | None = None, timeout: int | None = None
) -> Any:
    """Executes a notebook from top to bottom in a process of its own.

    Args:
        path: the notebook; it is not changed.
        work: the folder that it works in; notebooks that share one go on with each other's runs.
        flickr8k: the data set; None means drawn scenes.
        timeout: seconds that a cell may take; None means any time.

    Returns:
        The notebook with its outputs, an `nbformat.NotebookNode`.

    Raises:
        MissingExtraError: the packages of the extra `notebooks` are not installed.
        UsageError: the file is no notebook.
        NotebookFailed: a cell raised an error, or the process was killed.
    """
    try:
        import nbclient
        import nbformat
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
        from nbformat import ValidationError
    except ImportError as error:
        raise MissingExtraError(error.name or "nbclient", "notebooks", "Executing notebooks") from None
    try:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, ValidationError) as error:
        raise UsageError(f"{path}: cannot be read as a notebook: {error}") from None
    with tempfile.TemporaryDirectory(prefix="showtell-ipython-") as profile:
        environment = {
            **os.environ,
            **_absolute_folders(),
            "IPYTHONDIR": profile,
        }  # nothing is written into the user's own
        # Executed copies need no widgets, and their warning would name folders of this machine.
        environment["PYTHONWARNINGS"] = "ignore:IProgress not found"
        if flickr8k is None:
            environment.pop("FLICKR8K", None)
            environment["SHOWTELL_WEIGHTS"] = str(MODELS)
        else:
            environment["FLICKR8K"] = str(flickr8k.resolve())
        client = nbclient.NotebookClient(
            notebook,
            timeout=timeout,
            startup_timeout=300,  # a busy machine takes longer than the minute that is the default
            kernel_name="python3",
            resources={"metadata": {"path": str(work)}},
        )
        if (
            os.name == "posix"
        ):  # sockets of the file system, which nobody else can reach, in place of the network's
            client.config.KernelManager.transport = "ipc"
            client.config.KernelManager.ip = str(Path(profile) / "kernel")
        try:
            client.execute(env=environment)
        except (CellExecutionError, CellTimeoutError) as error:
            raise NotebookFailed(f"{path.name}: {error}") from None
        except DeadKernelError:
            raise NotebookFailed(
                f"{path.name}: the process that executed it was ended from outside. Where the machine has too little "
                "memory, the system does so: end other programs, and call this again."
            ) from None
    return notebook


def _absolute_folders() -> dict[str, str]:
    """Returns the environment's folders of weights and caches from the root: notebooks work in another folder."""
    named = {
        "SHOWTELL_WEIGHTS": os.environ.get("SHOWTELL_WEIGHTS", "").split(os.pathsep),
        "SHOWTELL_CACHE": [os.environ.get("SHOWTELL_CACHE", "")],
    }
    return {
        name: os.pathsep.join(str(Path(folder).expanduser().absolute()) for folder in folders if folder)
        for name, folders in named.items()
        if any(folders)
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Executes all notebooks, or those that are named; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make notebooks", description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="which ones (all)")
    parser.add_argument("--flickr8k", type=Path, help="Flickr8k's folder; drawn scenes without it")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the executed copies go")
    arguments = parser.parse_args(argv)
    try:
        if arguments.flickr8k is not None and not arguments.flickr8k.is_dir():
            raise UsageError(f"{arguments.flickr8k}: no such folder. Give the one that holds Flickr8k.")
        paths = arguments.notebooks or list_notebooks()
        for path in paths:  # before any of them takes its minutes
            if not path.is_file():
                raise UsageError(f"{path}: no such notebook.")
        try:
            arguments.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{arguments.output}: cannot be the folder of copies: {error.strerror}."
            ) from None
        with ExitStack() as opened:
            if arguments.flickr8k is None:
                work = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="showtell-notebooks-")))
            else:
                work = arguments.output / "flickr8k"
                work.mkdir(exist_ok=True)
            for path in paths:
                started = time.monotonic()
                notebook = execute_notebook(path, work, flickr8k=arguments.flickr8k)
                save(notebook, arguments.output / path.name)
                print(f"{arguments.output / path.name}: {time.monotonic() - started:.0f} s")
    except ShowtellError as error:
        print(f"make notebooks: {error}", file=sys.stderr)
        return 2
    return 0


def save(notebook: Any, path: Path) -> None:
    """Writes an executed notebook."""
    import nbformat

    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.exit(main())
