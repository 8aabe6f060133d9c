"""Graphs on ONNX Runtime, which comes with Showtell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from showtell.errors import BundleError, ConfigError
from showtell.runtime.engine import Array, EngineOptions
from showtell.telemetry import refuse_telemetry

refuse_telemetry()
import onnxruntime  # noqa: E402


class OnnxRuntimeNetwork:
    """One session."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._names = [entry.name for entry in session.get_inputs()]

    def run(self, inputs: Sequence[Array]) -> list[npt.NDArray[np.float32]]:
        """Computes all outputs."""
        outputs: list[npt.NDArray[np.float32]] = self._session.run(
            None, dict(zip(self._names, inputs, strict=True))
        )
        return outputs


class OnnxRuntimeEngine:
    """ONNX Runtime's CPU provider. It computes in float32 (and int8 where the graph says so); nothing is cached on
    disk, because its sessions start quickly."""

    name = "onnxruntime"

    def __init__(self, options: EngineOptions) -> None:
        self._options = options

    def choose_precision(self) -> str:
        """Always float32: the CPU provider has no bf16 convolutions."""
        if self._options.precision == "bf16":
            raise ConfigError(
                'precision = "bf16" is not supported by ONNX Runtime on a CPU. Use precision = "float32", or '
                'engine = "openvino".'
            )
        return "float32"

    def open(
        self,
        graph: Path,
        *,
        precision: str,
        shape: tuple[int, ...] | None = None,
        compressed: bool = False,
    ) -> OnnxRuntimeNetwork:
        """Opens a graph; open shapes cost ONNX Runtime nothing, so `shape` is not used."""
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self._options.thread_count
        settings.log_severity_level = 3  # errors only
        # Threads that wait spin for long otherwise, which starves the threads that decode images.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if compressed:
            # Widens the weights once, when the graph is opened. Otherwise ONNX Runtime does so at every step, which
            # takes four times as long as the step itself.
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises classes of its own, without a common base
            raise BundleError(f"{graph}: ONNX Runtime cannot open this graph: {_first_line(error)}") from None
        return OnnxRuntimeNetwork(session)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
