"""Graphs on OpenVINO, the default engine: compiled for this processor once, and kept compiled on disk."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from showtell.errors import BundleError, ConfigError
from showtell.files import write_atomically
from showtell.runtime.engine import Array, EngineOptions
from showtell.telemetry import refuse_telemetry

refuse_telemetry()
import openvino  # noqa: E402

_CHECKSUM = ".crc32"  # of the blob of the same name
_HINTS = {"float32": "f32", "bf16": "bf16"}


@functools.cache
def open_core() -> Any:
    """Returns OpenVINO's core: one for the whole process, which is never closed.

    A core gives the thread that opens it another stack for signal handlers and frees that stack when it is closed,
    without looking whether the stack is still in use: it is, unless cores are closed in the order opposite to their
    opening, and where there was no such stack before. The next Ctrl-C then ends the process with a segmentation fault.
    """
    return openvino.Core()


class OpenVinoNetwork:
    """One compiled model with one request; calls on several threads take turns."""

    def __init__(self, compiled: Any) -> None:
        self._lock = threading.Lock()
        self._request = compiled.create_infer_request()
        self._outputs = range(len(compiled.outputs))

    def run(self, inputs: Sequence[Array]) -> list[npt.NDArray[np.float32]]:
        """Computes all outputs."""
        # OpenVINO reads the arrays where they are, and takes only contiguous ones. They must live until it has.
        held = [np.ascontiguousarray(array) for array in inputs]
        with self._lock:
            for place, array in enumerate(held):
                self._request.set_input_tensor(place, openvino.Tensor(array, shared_memory=True))
            self._request.infer()
            # Copied: the request writes its next results to the same place.
            return [np.array(self._request.get_output_tensor(place).data) for place in self._outputs]


class OpenVinoEngine:
    """OpenVINO's CPU device."""

    name = "openvino"

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._core = open_core()

    def choose_precision(self) -> str:
        """What the options say; for "auto" bf16 with AMX, else float32.

        AVX512-BF16 alone is not enough: its products are no faster than float32's on the processors that were
        measured, and the conversions cost more than half as much again (docs/experiments.md).
        """
        able = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self._options.precision == "bf16" and not able:
            raise ConfigError(
                'precision = "bf16" is not supported by this processor, which has neither AMX nor AVX512-BF16. Use '
                'precision = "float32" or "auto".'
            )
        if self._options.precision != "auto":
            return self._options.precision
        return "bf16" if able and _has_amx() else "float32"

    def open(
        self,
        graph: Path,
        *,
        precision: str,
        shape: tuple[int, ...] | None = None,
        compressed: bool = False,
    ) -> OpenVinoNetwork:
        """Compiles a graph, or loads it as it was compiled before. Compressed weights need no option."""
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": self._options.thread_count,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        try:
            model = self._core.read_model(str(graph))
            if shape is not None:
                model.reshape({model.inputs[0]: openvino.PartialShape(list(shape))})
            return OpenVinoNetwork(self._compile(graph, model, settings))
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise BundleError(f"{graph}: OpenVINO cannot compile this graph: {reason}") from None

    def _compile(self, graph: Path, model: Any, settings: dict[str, Any]) -> Any:
        # A folder for each graph, so that only what may be used has to be checked.
        folder = self._options.cache_folder
        if folder is not None:
            folder = folder / hashlib.sha256(str(graph.resolve()).encode()).hexdigest()[:16]
        if folder is None or not _is_writable(folder):
            return self._core.compile_model(model, "CPU", settings)
        _remove_damaged(folder)
        try:
            compiled = self._core.compile_model(model, "CPU", {**settings, "CACHE_DIR": str(folder)})
        except RuntimeError:
            compiled = self._core.compile_model(model, "CPU", settings)
            # So an entry of the cache is damaged. OpenVINO does not say which, and all can be made anew.
            with contextlib.suppress(OSError):
                for entry in folder.glob("*.blob"):
                    entry.unlink(missing_ok=True)
            return compiled
        _write_checksums(folder)
        return compiled


# OpenVINO notices a blob that is cut off, but not one with other bytes in the middle, which gives other captions.
def _remove_damaged(folder: Path) -> None:
    """Removes what is not as it was when it was compiled."""
    for entry in folder.glob("*.blob"):
        with contextlib.suppress(OSError):
            noted = entry.with_suffix(_CHECKSUM)
            if not noted.exists() or noted.read_text(encoding="ascii", errors="replace") != _sum(entry):
                entry.unlink(missing_ok=True)
                noted.unlink(missing_ok=True)


def _write_checksums(folder: Path) -> None:
    with contextlib.suppress(OSError):  # a full disk: it is compiled anew the next time
        for entry in folder.glob("*.blob"):
            if not entry.with_suffix(_CHECKSUM).exists():
                write_atomically(entry.with_suffix(_CHECKSUM), _sum(entry).encode())


def _sum(entry: Path) -> str:
    return f"{zlib.crc32(entry.read_bytes()):08x}"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _has_amx() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux: no processor with AMX runs anything else that Showtell knows
        return False
