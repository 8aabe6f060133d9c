"""The three graphs of a captioner as torch modules, and how they become ONNX.

The shapes that stay open are the number of images, the rows per image and, where the backbone allows it, the size
of the pictures.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from showtell.decoders import Decoder
from showtell.encoders import Encoder
from showtell.encoders.layouts import to_cells
from showtell.errors import ExportError
from showtell.files import write_atomically

OPSET = 18  # the oldest that torch's exporter writes without conversion; ONNX Runtime and OpenVINO know it
IMAGES, WIDTH = Dim("images", min=1, max=1 << 16), Dim("width", min=1, max=1 << 16)


class EncoderGraph(nn.Module):
    """Pixels, uint8 (images, height, width, 3), to features; normalises inside.

    Args:
        encoder: a frozen encoder of one backbone; its batch norms come folded.
    """

    scale: Tensor  # (1, 3, 1, 1)
    shift: Tensor  # (1, 3, 1, 1)

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network = encoder.fold_backbone()
        self.layout = encoder.layout
        self.output = encoder.output
        std = torch.tensor(encoder.preprocessing.std, dtype=torch.float64)
        mean = torch.tensor(encoder.preprocessing.mean, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * std)).float().view(1, 3, 1, 1))
        self.register_buffer("shift", (mean / std).float().view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns (images, cells, channels), or (images, channels) where the output is pooled."""
        normalised = pixels.permute(0, 3, 1, 2).float() * self.scale - self.shift
        cells = to_cells(self.network.forward_features(normalised), self.layout, self.network)  # type: ignore[operator]
        return cells if self.output == "grid" else cells.mean(dim=1)


class FusedGraph(nn.Module):
    """The same pixels to the features of several encoders, joined along the channels."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        super().__init__()
        self.graphs = nn.ModuleList(EncoderGraph(encoder) for encoder in encoders)

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns (images, cells, channels), or (images, channels) where the output is pooled."""
        return torch.cat([graph(pixels) for graph in self.graphs], dim=-1)


class StartGraph(nn.Module):
    """Features to the memory of the images and the state before the first word."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Returns the parts of the memory, then those of the state; each (images, ...)."""
        memory = self.decoder.project(features)
        return (*memory, *self.decoder.start(memory))


class StepGraph(nn.Module):
    """One word for every row, rows laid out as (images, width).

    Args:
        decoder: in evaluation mode.
        states: how many parts the state has.
    """

    def __init__(self, decoder: Decoder, states: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.states = states

    def forward(self, tokens: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        """Feeds tokens (images, width).

        Args:
            tokens: ids.
            parts: of the state, each (images, width, ...), then of the memory, each (images, ...).

        Returns:
            Logits (images, width, vocab), the new state, and attention (images, width, cells) if there is one.
        """
        block = tokens.shape
        state = tuple(part.flatten(0, 1) for part in parts[: self.states])
        outputs, after, attention = self.decoder.step(tokens.flatten(), state, parts[self.states :])
        results = [self.decoder.logits(outputs), *after, *([] if attention is None else [attention])]
        return tuple(torch.unflatten(result, 0, block) for result in results)


def write_encoder(encoder: Encoder, path: Path) -> bool:
    """Writes the encoder's graph; returns whether it takes pictures of other sizes than the recipe's."""
    size = encoder.preprocessing
    pixels = torch.zeros(2, size.height, size.width, 3, dtype=torch.uint8)
    members = encoder.members
    graph = (EncoderGraph(encoder) if len(members) == 1 else FusedGraph(members)).eval()
    what = f"the backbone {encoder.config.name}"
    fixed: dict[int, Any] = {0: IMAGES}
    if allows_other_sizes(encoder):
        try:
            open_sizes = {**fixed, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC}
            _write(what, graph, (pixels,), (open_sizes,), ["pixels"], ["features"], path)
            return True
        except ExportError:
            pass  # the backbone computes with its input's size: exported for this one
    _write(what, graph, (pixels,), (fixed,), ["pixels"], ["features"], path)
    return False


def allows_other_sizes(encoder: Encoder) -> bool:
    """Returns whether the graph may leave the size of pictures open.

    TensorFlow's "same" padding is computed from the size of each layer's input. With the size left open, tracing it
    takes minutes and every run computes it anew, so such backbones are exported for one size.
    """
    return not any(
        member.layout == "tokens"
        or any("Same" in type(module).__name__ for module in member.backbone.modules())
        for member in encoder.members
    )


def write_decoder(
    decoder: Decoder, feature_shape: tuple[int, ...], vocab_size: int, folder: Path, names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Writes the decoder's two graphs; returns the names of the memory's and of the state's parts.

    Args:
        decoder: in evaluation mode.
        feature_shape: of one image.
        vocab_size: for the example tokens.
        folder: that the graphs go to.
        names: of the files of `StartGraph` and `StepGraph`.
    """
    features = torch.zeros(2, *feature_shape)
    with torch.inference_mode():
        memory = decoder.project(features)
        state = decoder.start(memory)
    memory_names = tuple(f"memory_{number}" for number in range(len(memory)))
    state_names = tuple(f"state_{number}" for number in range(len(state)))
    what = f"the decoder {type(decoder).__name__}"
    _write(
        what,
        StartGraph(decoder),
        (features,),
        ({0: IMAGES},),
        ["features"],
        [*memory_names, *state_names],
        folder / names[0],
    )
    tokens = torch.randint(vocab_size, (2, 3), generator=torch.Generator().manual_seed(0))
    rows = tuple(part.clone().unsqueeze(1).repeat(1, 3, *[1] * (part.ndim - 1)) for part in state)
    shapes = ({0: IMAGES, 1: WIDTH}, tuple([{0: IMAGES, 1: WIDTH}] * len(rows) + [{0: IMAGES}] * len(memory)))
    outputs = [
        "logits",
        *(f"next_{name}" for name in state_names),
        *(["attention"] if decoder.attends else []),
    ]
    _write(
        what,
        StepGraph(decoder, len(state)),
        (tokens, *rows, *(part.clone() for part in memory)),
        shapes,
        ["tokens", *state_names, *memory_names],
        outputs,
        folder / names[1],
    )
    return memory_names, state_names


def _write(
    what: str,
    graph: nn.Module,
    inputs: tuple[Tensor, ...],
    shapes: tuple[Any, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
) -> None:
    # torch's exporter reports its steps on standard output and warns of its own internals.
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                graph,
                inputs,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(input_names),
                output_names=list(output_names),
                opset_version=OPSET,
                verbose=False,
            )
            model = program.model_proto  # type: ignore[union-attr]  # None only without dynamo
            del model.metadata_props[:]
            for node in model.graph.node:  # torch notes source lines and paths of the machine that exported
                del node.metadata_props[:]
                node.doc_string = ""
            onnx.checker.check_model(model)
            for given in model.graph.input:
                images = given.type.tensor_type.shape.dim[0]
                if not images.dim_param:  # torch does not say so when code turns the number into a plain one
                    raise ValueError(f"the input {given.name!r} takes {images.dim_value} images only")
        except Exception as error:  # any part of the network may be untraceable, in many ways
            reason = (str(error).splitlines() or [""])[0]
            raise ExportError(
                f"{what} cannot be exported to ONNX: {type(error).__name__}: {reason}"
            ) from error
    write_atomically(path, model.SerializeToString())
