"""What an inference engine must do, and which one is taken: the small interface behind which engines differ."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from showtell.errors import ConfigError, MissingExtraError, UsageError, did_you_mean
from showtell.files import cache_folder
from showtell.interruption import interruption_put_off

Array = npt.NDArray[Any]
ENGINES = (
    "openvino",
    "onnxruntime",
)  # the first that is installed is the default; the last comes with Showtell
PRECISIONS = ("auto", "float32", "bf16")


@dataclass(frozen=True)
class EngineOptions:
    """How exported graphs are run.

    Raises:
        ConfigError: an unknown engine or precision, or an impossible number of threads.
    """

    engine: str = "auto"
    """"openvino", "onnxruntime", or "auto": the first of these that is installed"""
    precision: str = "auto"
    """"float32", "bf16", or "auto": bf16 for the encoder where the processor has matrix units for it (AMX)"""
    threads: int = 0
    """processor threads; 0 means one per core that this process may use"""
    cache: Path | None = None
    """folder of compiled models; by default in Showtell's cache"""

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("engine", self.engine, ("auto", *ENGINES)),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in choices:
                raise ConfigError(
                    f"{name} must be one of {', '.join(choices)}. Received: {value!r}."
                    f"{did_you_mean(str(value), choices)}"
                )
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or self.threads < 0:
            raise ConfigError(
                f"threads must be a whole number >= 0 (0: one per core). Received: {self.threads!r}"
            )

    @property
    def thread_count(self) -> int:
        """The number of threads that is meant."""
        if self.threads:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def cache_folder(self) -> Path | None:
        """The folder of compiled models; None where there is no place for one."""
        if self.cache is not None:
            return self.cache
        try:
            return cache_folder() / "compiled"
        except UsageError:
            return None


class Network(Protocol):
    """One compiled graph."""

    def run(self, inputs: Sequence[Array]) -> list[npt.NDArray[np.float32]]:
        """Computes all outputs; inputs and outputs are in the graph's order. The outputs are the caller's own."""
        ...


class Engine(Protocol):
    """An inference engine with its options."""

    name: str

    def open(
        self,
        graph: Path,
        *,
        precision: str,
        shape: tuple[int, ...] | None = None,
        compressed: bool = False,
    ) -> Network:
        """Compiles an ONNX file.

        Args:
            graph: the file.
            precision: "float32" or "bf16".
            shape: the only one that the first input will have, which lets some engines compute faster; None leaves
                open what the graph leaves open.
            compressed: whether weights are stored in 8 bits while everything else is floating-point.

        Raises:
            BundleError: the engine cannot read the graph.
        """
        ...

    def choose_precision(self) -> str:
        """Returns the precision that "auto" means for a convolutional network here: "float32" or "bf16".

        Raises:
            ConfigError: the options ask for a precision that the processor or the engine does not have.
        """
        ...


def open_engine(options: EngineOptions) -> Engine:
    """Returns the engine that the options mean.

    Raises:
        MissingExtraError: it is not installed; the message names the extra.
    """
    installed = [name for name in ENGINES if importlib.util.find_spec(name) is not None]
    name = options.engine
    if name == "auto":
        name = installed[0] if installed else ENGINES[-1]
    if name not in installed:
        extra = "runtime" if name == "openvino" else ""
        raise MissingExtraError(name, extra, "Running an exported captioner")
    with interruption_put_off():
        if name == "openvino":
            from showtell.runtime.openvino_engine import OpenVinoEngine

            return OpenVinoEngine(options)
        from showtell.runtime.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(options)
