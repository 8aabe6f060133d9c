"""The service as one process, or as several that share a port.

Each worker loads the model and answers on its own, so one that dies takes nobody with it; another takes its place.
One that lives and gives no sign of it any more (its event loop stands still, or its networks do not come back) is
killed first.
SIGTERM and Ctrl-C drain: no new connections, what was accepted is answered, then the processes end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import logging
import logging.config
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import TypeAlias, cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from showtell.errors import ShowtellError, UsageError
from showtell.server import logs
from showtell.server.settings import ServerSettings

BACKLOG = 1024
_QUICK_DEATH = 5.0  # a worker that lived for fewer seconds is not replaced at once
_LOOK_SECONDS = 1.0  # between two looks at the workers' signs of life
Beats: TypeAlias = (
    ctypes.c_ulonglong
)  # how often a worker has given one; in memory that it shares with its parent
_log = logging.getLogger("showtell.server")


def serve(settings: ServerSettings, *, level: str, announce: Callable[[str], None]) -> int:
    """Serves until it is told to end; returns the exit code.

    Args:
        settings: of the service.
        level: of the log.
        announce: told the service's address, as soon as it is bound.

    Raises:
        UsageError: the address cannot be bound.
        ShowtellError: the model cannot be loaded.
    """
    listening = _bind(settings)
    host, port = listening.getsockname()[:2]
    announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    if settings.workers == 1:
        _run_server(settings, level, listening)
        return 0
    with tempfile.TemporaryDirectory(prefix="showtell-metrics-") as folder:
        return _Supervisor(replace(settings, metrics_folder=folder), level, listening).run()


def _bind(settings: ServerSettings) -> socket.socket:
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{settings.host}:{settings.port} cannot be listened on: {reason}. Choose another --host or --port."
        ) from None


class _Server(uvicorn.Server):
    """uvicorn's server; at its end it also answers who has connected and was not looked at yet.

    Args:
        config: of uvicorn.
        told: whether it was told to end before it began.
    """

    def __init__(self, config: uvicorn.Config, told: threading.Event) -> None:
        super().__init__(config)
        self._told = told

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        self.should_exit = self.should_exit or self._told.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes in who waits, stops listening, and waits for what was accepted."""
        waiting = [one for listening in sockets or [] for one in _accept_all(listening)]
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        make = functools.partial(
            cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for one in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(make, one)
        await super().shutdown(None)


def _accept_all(listening: socket.socket) -> list[socket.socket]:
    """Returns the connections that wait; closing the socket would reset them."""
    listening.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
        while True:
            one, _ = listening.accept()
            one.setblocking(False)
            found.append(one)
    return found


def _run_server(
    settings: ServerSettings, level: str, listening: socket.socket, beat: Callable[[], None] | None = None
) -> None:
    if settings.metrics_folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = settings.metrics_folder
    told = threading.Event()
    # uvicorn listens to the signals while it serves, and passes them on at its end; until then they are noted here.
    with _told_to_end(told.set):
        config = _configure(settings, level, beat)
        _Server(config, told).run([listening])


def _configure(settings: ServerSettings, level: str, beat: Callable[[], None] | None) -> uvicorn.Config:
    from showtell.server.app import create_app
    from showtell.server.protocol import limited

    return uvicorn.Config(
        create_app(settings, beat=beat),
        http=limited(settings.limits),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=logs.configure(level),
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )


def _work(settings: ServerSettings, level: str, listening: socket.socket, beats: Beats) -> None:
    """What a worker process does."""
    logging.config.dictConfig(logs.configure(level))
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()  # it was killed: nobody would end this process, or replace it
        os.kill(os.getpid(), signal.SIGTERM)

    def beat() -> None:
        beats.value += 1

    threading.Thread(target=follow, name="follow", daemon=True).start()
    try:
        _run_server(settings, level, listening, beat)
    except ShowtellError as error:
        _log.error(str(error))
        sys.exit(STARTUP_FAILURE)


class _Worker:
    """A worker process, and how long it has been silent."""

    def __init__(self, settings: ServerSettings, level: str, listening: socket.socket) -> None:
        context = multiprocessing.get_context("spawn")
        self._beats: Beats = context.RawValue(ctypes.c_ulonglong)
        self._heard = 0
        self._looks = 0  # that have heard nothing new
        self.began = time.monotonic()
        self.process: SpawnProcess = context.Process(
            target=_work, args=(settings, level, listening, self._beats), name="showtell-worker"
        )
        self.process.start()

    def look(self) -> float:
        """Returns for how many seconds it has been silent; 0 while it starts. To be called once in `_LOOK_SECONDS`.

        Looks are counted, not time: where the whole machine stood still, so did the workers, and none of them hangs.
        """
        heard = self._beats.value
        self._looks = self._looks + 1 if heard == self._heard else 0
        self._heard = heard
        return self._looks * _LOOK_SECONDS if heard else 0.0


class _Supervisor:
    """Starts the workers, replaces those that die or hang, and ends them all."""

    def __init__(self, settings: ServerSettings, level: str, listening: socket.socket) -> None:
        self._settings = settings
        self._level = level
        self._listening = listening
        self._workers: list[_Worker] = []
        self._ending = threading.Event()
        logging.config.dictConfig(logs.configure(level))
        # A signal must wake the loop that waits for dying workers.
        self._woken, self._wake = socket.socketpair()

    def run(self) -> int:
        """Keeps the workers going until it is told to end; returns the exit code."""
        with self._woken, self._wake, self._listening, _told_to_end(self._end):
            for _ in range(self._settings.workers):
                self._start()
            code = self._watch()
        # What connects from now on is refused, instead of waiting for nobody.
        end = time.monotonic() + self._settings.drain_seconds + 5
        processes = [worker.process for worker in self._workers]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                _log.error(
                    "a worker did not end in time and is killed", extra={"facts": {"worker": process.pid}}
                )
                process.kill()
                process.join()
        return code

    def _end(self) -> None:
        self._ending.set()
        with contextlib.suppress(OSError):
            self._wake.send(b"!")

    def _start(self) -> None:
        worker = _Worker(self._settings, self._level, self._listening)
        self._workers.append(worker)
        _log.info("worker started", extra={"facts": {"worker": worker.process.pid}})

    def _watch(self) -> int:
        look = time.monotonic()
        while not self._ending.is_set():
            sentinels = [worker.process.sentinel for worker in self._workers]
            connection.wait([self._woken, *sentinels], timeout=_LOOK_SECONDS)
            if time.monotonic() >= look:
                look = time.monotonic() + _LOOK_SECONDS
                self._kill_silent()
            for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
                self._workers.remove(worker)
                lived = time.monotonic() - worker.began
                if self._ending.is_set():
                    break
                process = worker.process
                facts = {"worker": process.pid, "exit_code": process.exitcode, "seconds": round(lived, 1)}
                if process.exitcode == STARTUP_FAILURE:  # the next one would fail, too
                    _log.error("a worker cannot start", extra={"facts": facts})
                    return 1
                _log.error("a worker died and is replaced", extra={"facts": facts})
                self._forget(process)
                if lived < _QUICK_DEATH:
                    connection.wait([self._woken], timeout=1.0)
                self._start()
        return 0

    def _kill_silent(self) -> None:
        for worker in self._workers:
            silent = worker.look()
            if silent >= self._settings.hang_seconds:
                facts = {"worker": worker.process.pid, "seconds": silent}
                _log.error("a worker gives no sign of life and is killed", extra={"facts": facts})
                worker.process.kill()

    def _forget(self, worker: SpawnProcess) -> None:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = self._settings.metrics_folder
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _told_to_end(act: Callable[[], None]) -> Iterator[None]:
    """Lets SIGTERM and Ctrl-C do something else than end the process at once."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        act()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
