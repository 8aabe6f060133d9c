"""Nodes of a Ray cluster on this machine, as `ray start` begins them: for benchmarks, and for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).with_name("ray"))
# The cluster has no secret, since it is on this machine's own address; a Ray that bulk starts has one all the same.
UNPROTECTED = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
_PATIENCE = 280  # seconds, on a machine that is busy with other things


@contextlib.contextmanager
def node(cpus: int, *options: str) -> Iterator[psutil.Popen]:
    """A node with so many processors; ends with all its processes."""
    process = psutil.Popen(
        [RAY, "start", "--block", f"--num-cpus={cpus}", *options],
        env=UNPROTECTED,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    family: list[psutil.Process] = []
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = process.children(recursive=True)
            process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(30)
        for one in (*family, process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


@contextlib.contextmanager
def head(cpus: int) -> Iterator[tuple[str, psutil.Popen]]:
    """The first node of a cluster; gives its address once it answers there, and the node.

    Raises:
        RuntimeError: it never answered.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets lie in it
    options = ("--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false")
    deadline = time.monotonic() + _PATIENCE
    try:
        with node(cpus, *options, f"--temp-dir={folder}") as process:
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("ray start gave no node that answers")
                time.sleep(0.5)
            yield f"127.0.0.1:{port}", process
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_processors(address: str, count: int) -> None:
    """Waits until the nodes of a cluster that have joined it have so many processors.

    Raises:
        RuntimeError: they never did.
    """
    command = [RAY, "status", f"--address={address}"]
    deadline = time.monotonic() + _PATIENCE
    while (
        f"/{count}.0 CPU"
        not in subprocess.run(command, env=UNPROTECTED, capture_output=True, text=True).stdout
    ):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the cluster at {address} never had {count} processors")
        time.sleep(1)
