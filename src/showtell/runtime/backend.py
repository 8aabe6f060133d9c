"""The networks of an exported captioner; implements `showtell.captioning.Backend` without torch."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from showtell.bundle import CONSENSUS
from showtell.captioning import Features
from showtell.consensus import open_consensus
from showtell.decoding import BlockStepper, FloatArray, IntArray
from showtell.decoding.rows import Parts
from showtell.errors import ConfigError, ImageError
from showtell.files import digest_file
from showtell.images import DEFAULT_MAX_PIXELS, ImageSource
from showtell.portable import ENCODER, START, STEP, PortableModel
from showtell.runtime.engine import Engine, EngineOptions, Network, open_engine

AT_ONCE = 4  # pictures that go through the encoder together; more are no faster and only take memory


class PortableStepper(BlockStepper):
    """An exported decoder bound to a batch of images.

    Args:
        model: names and number of the parts.
        start: the graph that gives memory and state.
        step: the graph of one word.
        features: float32 (images, cells, channels) or (images, channels).
    """

    def __init__(self, model: PortableModel, start: Network, step: Network, features: FloatArray) -> None:
        self._step = step
        self._states = len(model.state)
        self._attends = model.attends
        parts = start.run([features])
        memory, state = tuple(parts[: len(model.memory)]), tuple(parts[len(model.memory) :])
        super().__init__(memory, state, images=len(features), vocab_size=len(model.vocabulary))

    def gather(self, parts: Parts, places: IntArray) -> Parts:
        """Returns the given places of every part."""
        return tuple(part[places] for part in parts)

    def run(
        self, tokens: IntArray, state: Parts, memory: Parts
    ) -> tuple[FloatArray, Parts, FloatArray | None]:
        """Feeds one token to every slot."""
        images = len(memory[0])
        block = (images, len(tokens) // images)
        results = self._step.run(
            [tokens.reshape(block), *(part.reshape(*block, *part.shape[1:]) for part in state), *memory]
        )
        logits, *rest = (result.reshape(-1, *result.shape[2:]) for result in results)
        return logits, tuple(rest[: self._states]), rest[self._states] if self._attends else None


class PortableBackend:
    """Encoder and decoder of an exported captioner. Threads can share it.

    Attributes:
        engine: its name.
        precision: "float32" or "bf16", of the encoder. The decoder's states are always float32: captions depend on
            them word by word.
    """

    def __init__(self, model: PortableModel, engine: Engine) -> None:
        self.model = model
        self.preprocessing = model.preprocessing
        self.vocabulary = model.vocabulary
        self.grid = model.grid
        channels = model.feature_shape[-1]
        self.consensus = open_consensus(model.consensus, model.vocabulary, channels, model.folder / CONSENSUS)
        self.attends = model.attends
        self.engine = engine.name
        # An int8 graph says itself where it is int8; the rest of it is float32.
        self.precision = "float32" if model.weights == "int8" else engine.choose_precision()
        self._engine = engine
        self._encoders: dict[tuple[int, ...] | None, Network] = {}  # by the shape that they are compiled for
        self._opening = threading.Lock()  # so that no thread compiles what another one is compiling
        compressed = model.weights == "int8"
        self._start, self._step = (
            engine.open(model.folder / graph, precision="float32", compressed=compressed)
            for graph in (START, STEP)
        )

    def identify_encoder(self) -> str:
        """Returns what is equal only for encoders that give equal features for equal pictures."""
        graph = digest_file(self.model.folder / ENCODER)
        return f"{self.engine} {graph} {self.precision} {self.preprocessing.fingerprint()}"

    def read(self, source: ImageSource, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.uint8]:
        """Returns one picture at the encoder's size, (height, width, 3)."""
        return self.preprocessing.read(source, max_pixels=max_pixels)

    def encode(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """Returns the features of pictures, uint8 (images, height, width, 3).

        Raises:
            ImageError: pixels of another type or shape.
        """
        size = self.preprocessing
        fits = pixels.ndim == 4 and pixels.dtype == np.uint8 and pixels.shape[3] == 3
        if not fits or not (self.model.dynamic_size or pixels.shape[1:3] == (size.height, size.width)):
            raise ImageError(
                f"pixels must be uint8 (images, {size.height}, {size.width}, 3). "
                f"Received: {pixels.dtype} {tuple(pixels.shape)}"
            )
        if len(pixels) == 0:
            return np.empty((0, *self.model.feature_shape), dtype=np.float32)
        # One picture of the usual size is worth a network of its own: fixed shapes compute it a quarter faster. Which
        # network computes a picture depends on nothing that was done before, because their last bits may differ.
        usual = (1, size.height, size.width, 3)
        network = self._open_encoder(usual if pixels.shape == usual else None)
        starts = range(0, len(pixels), AT_ONCE)
        parts = [network.run([pixels[start : start + AT_ONCE]])[0] for start in starts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _open_encoder(self, shape: tuple[int, ...] | None) -> Network:
        with self._opening:
            if shape not in self._encoders:
                graph = self.model.folder / ENCODER
                self._encoders[shape] = self._engine.open(graph, precision=self.precision, shape=shape)
            return self._encoders[shape]

    def bind(self, features: Features) -> PortableStepper:
        """Returns a stepper over a batch of features."""
        return PortableStepper(self.model, self._start, self._step, np.asarray(features, dtype=np.float32))


def open_portable(model: PortableModel, options: EngineOptions | None = None) -> PortableBackend:
    """Opens an exported captioner.

    Raises:
        MissingExtraError: the engine is not installed.
        ConfigError: the processor or the captioner does not have the precision.
        BundleError: the engine cannot read a graph.
    """
    options = options or EngineOptions()
    if model.weights == "int8" and options.precision != "auto":
        raise ConfigError(
            f'{model.folder}: precision = "{options.precision}" is an option of captioners exported in float32; this '
            "one was quantised to 8 bits. Leave it out, or export without --int8."
        )
    return PortableBackend(model, open_engine(options))
