"""The captioning pipeline of the attention tutorials: PyTorch eager, float32, one image at a time.

After the algorithm that the widely read tutorials share (Xu et al. 2015 with a recurrent decoder and additive
attention): the picture is opened, converted, resized and normalised; a CNN gives the cells; at every step the attention
projects all cells anew; for a beam the cells are copied for each of its captions, and Python loops keep the books.

Where the mathematics is free it is Showtell's, so that both sides give the same captions: the same weights, the same
tokens that never come out, the same division by the length.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.photographs import draw_pixels
from benchmarks.rivals.operators import import_torchvision
from benchmarks.sides import Round

import_torchvision()
import timm  # noqa: E402
from torchvision import transforms  # noqa: E402

PAD, START, END, UNKNOWN = 0, 1, 2, 3


class Attention(nn.Module):
    """Additive attention over the cells; everything is computed at every step."""

    def __init__(self, feature_size: int, hidden_size: int, size: int) -> None:
        super().__init__()
        self.key = nn.Linear(feature_size, size)
        self.query = nn.Linear(hidden_size, size)
        self.score = nn.Linear(size, 1)

    def forward(self, cells: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the context vector (rows, features) and the weights of the cells (rows, cells, 1)."""
        scores = self.score(torch.tanh(self.key(cells) + self.query(hidden.unsqueeze(1))))
        weights = torch.softmax(scores, dim=1)
        context: Tensor = (weights * cells).sum(dim=1)
        return context, weights


class Decoder(nn.Module):
    """A GRU that looks at the picture before every word."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__()
        options: dict[str, Any] = {
            "feature_size": 256,
            "attention_size": 512,
            "embedding_size": 256,
            "hidden_size": 512,
        }
        options.update(initial_state="zero", gate=False)
        options.update(facts["decoder_options"])
        vocab = len(facts["words"]) + 4
        self.hidden_size = int(options["hidden_size"])
        self.cell = nn.Linear(facts["channels"], options["feature_size"])
        self.attention = Attention(options["feature_size"], self.hidden_size, options["attention_size"])
        has_initial, has_gate = options["initial_state"] == "mean", options["gate"]
        self.initial = nn.Linear(options["feature_size"], self.hidden_size) if has_initial else None
        self.gate = nn.Linear(self.hidden_size, options["feature_size"]) if has_gate else None
        self.embedding = nn.Embedding(vocab, options["embedding_size"])
        self.gru = nn.GRUCell(options["feature_size"] + options["embedding_size"], self.hidden_size)
        self.dense = nn.Linear(self.hidden_size, self.hidden_size)
        self.output = nn.Linear(self.hidden_size, vocab)
        self.dropout = nn.Dropout(options.get("dropout", 0.0))

    def reduce(self, features: Tensor) -> Tensor:
        """The dense(relu) layer on the cells: (rows, cells, features)."""
        cells: Tensor = self.dropout(torch.relu(self.cell(features)))
        return cells

    def forward(self, words: Tensor, cells: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One step: returns logits (rows, vocab) and the new state (rows, hidden)."""
        context, _ = self.attention(cells, hidden)
        if self.gate is not None:
            context = torch.sigmoid(self.gate(hidden)) * context
        inputs = torch.cat([context, self.dropout(self.embedding(words))], dim=1)
        hidden = self.gru(inputs, hidden)
        return self.output(self.dropout(self.dense(hidden))), hidden

    def reset(self, cells: Tensor) -> Tensor:
        """Returns the state before the first word: (rows, hidden)."""
        if self.initial is None:
            return torch.zeros(len(cells), self.hidden_size)
        return torch.tanh(self.initial(cells.mean(dim=1)))


class Pipeline:
    """From a file to words.

    Args:
        folder: weights.safetensors and facts.json.
        beam: captions that are kept after each step; 1 is greedy.
        steps: the longest caption.
        length_penalty: the power of the length that divides a finished caption's log-probability.
    """

    def __init__(self, folder: Path, *, beam: int, steps: int, length_penalty: float) -> None:
        facts, tensors = read_plain(folder)
        self.words: list[str] = facts["words"]
        self.beam, self.steps, self.length_penalty = beam, steps, length_penalty
        self.encoder = build_encoder(facts, tensors)
        self.decoder = build_decoder(facts, tensors).eval()
        self.transform = build_transform(facts["preprocessing"])

    @torch.no_grad()
    def caption(self, path: str) -> str:
        """Returns the caption of one JPEG file."""
        picture = Image.open(path).convert("RGB")
        pixels = self.transform(picture).unsqueeze(0)
        tokens = self.search(to_cells(self.encoder, pixels))
        return " ".join(self.words[token - 4] for token in tokens)

    @torch.no_grad()
    def search(self, features: Tensor) -> list[int]:
        """Returns the ids of the best caption's words; features are (1, cells, channels)."""
        width = self.beam
        cells = self.decoder.reduce(features).repeat(width, 1, 1)
        words = torch.full((width,), START)
        hidden = self.decoder.reset(cells)
        sequences = torch.empty(width, 0, dtype=torch.int64)
        totals = torch.zeros(width, 1)
        finished: list[tuple[float, list[int]]] = []
        for step in range(1, self.steps + 1):
            logits, hidden = self.decoder(words, cells, hidden)
            logits[:, [PAD, START, UNKNOWN]] = -torch.inf
            if step == 1:
                logits[:, END] = -torch.inf
            scores = totals + torch.log_softmax(logits, dim=1)
            # At first all rows of the beam are the same caption, so only one of them is looked at.
            best, places = (scores[0] if step == 1 else scores.view(-1)).topk(width)
            parents = torch.div(places, scores.shape[1], rounding_mode="floor")
            words = places % scores.shape[1]
            sequences = torch.cat([sequences[parents], words.unsqueeze(1)], dim=1)
            going_on = []
            for row in range(width):
                if words[row].item() == END:
                    finished.append(
                        (best[row].item() / step**self.length_penalty, sequences[row].tolist()[:-1])
                    )
                else:
                    going_on.append(row)
            width = len(going_on)
            if width == 0:
                break
            if step == self.steps:
                for row in going_on:
                    finished.append((best[row].item() / step**self.length_penalty, sequences[row].tolist()))
                break
            sequences, words, totals = sequences[going_on], words[going_on], best[going_on].unsqueeze(1)
            hidden, cells = hidden[parents[going_on]], cells[parents[going_on]]
        return max(finished, key=lambda one: one[0])[1]


def read_plain(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the facts and the weights of a model."""
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return facts, load_file(folder / "weights.safetensors")


def build_encoder(facts: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    """Returns timm's network in evaluation mode."""
    network: nn.Module = timm.create_model(
        facts["encoder"], pretrained=False, num_classes=0, **facts["encoder_arguments"]
    )
    for *path, name in facts["encoder_identities"]:
        module: Any = network
        for part in path:
            module = module[int(part)] if str(part).isdigit() else getattr(module, part)
        setattr(module, name, nn.Identity())
    network.load_state_dict(_part(tensors, "encoder."))
    return network.eval()


def build_decoder(facts: dict[str, Any], tensors: dict[str, Tensor]) -> Decoder:
    """Returns the decoder with its weights, in training mode."""
    if facts["decoder"] != "attend-gru-additive":
        raise SystemExit(
            f"benchmarks: the tutorial pipeline has additive attention, not {facts['decoder']!r}"
        )
    decoder = Decoder(facts)
    decoder.load_state_dict(_part(tensors, "decoder."))
    return decoder


def build_transform(preprocessing: dict[str, Any]) -> Any:
    """Returns torchvision's usual chain: resize, to a tensor in [0, 1], normalise."""
    size = (preprocessing["height"], preprocessing["width"])
    return transforms.Compose(
        [
            transforms.Resize(
                size, interpolation=transforms.InterpolationMode(preprocessing["interpolation"])
            ),
            transforms.ToTensor(),
            transforms.Normalize(preprocessing["mean"], preprocessing["std"]),
        ]
    )


def to_cells(network: nn.Module, pixels: Tensor) -> Tensor:
    """Returns the last feature map row by row: (images, cells, channels)."""
    features: Tensor = network.forward_features(pixels)  # type: ignore[operator]
    return features.permute(0, 2, 3, 1).reshape(len(pixels), -1, features.shape[1])


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def caption(
    folder: str, photographs: list[str], *, beam: int, steps: int, length_penalty: float = 0.6
) -> Round:
    """A side: captions JPEG files one after the other."""
    pipeline = Pipeline(Path(folder), beam=beam, steps=steps, length_penalty=length_penalty)

    def one_round() -> dict[str, Any]:
        return {"units": len(photographs), "captions": [pipeline.caption(path) for path in photographs]}

    return one_round


def encode(folder: str, *, batch: int) -> Round:
    """A side: the features of a batch of pictures, which are normalised already."""
    facts, tensors = read_plain(Path(folder))
    network = build_encoder(facts, tensors)
    transform = build_transform(facts["preprocessing"])
    pictures = draw_pixels(batch, facts["preprocessing"]["height"], facts["preprocessing"]["width"])
    pixels = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])

    @torch.no_grad()
    def one_round() -> dict[str, Any]:
        cells = to_cells(network, pixels)
        features = cells if facts["grid"] else cells.mean(dim=1)
        return {"units": batch, "features": features.reshape(batch, -1)[:, :8].tolist()}

    return one_round


def extract_features(folder: str, *, photographs: list[str]) -> Round:
    """A side: the features of JPEG files, one after the other, each into a .npy file of its own."""
    facts, tensors = read_plain(Path(folder))
    network = build_encoder(facts, tensors)
    transform = build_transform(facts["preprocessing"])

    @torch.no_grad()
    def one_round() -> dict[str, Any]:
        size = 0
        with tempfile.TemporaryDirectory(prefix="showtell-benchmark-rival-") as target:
            for number, path in enumerate(photographs):
                cells = to_cells(network, transform(Image.open(path).convert("RGB")).unsqueeze(0))
                file = Path(target, f"{number}.npy")
                np.save(file, cells[0].numpy())
                size += file.stat().st_size
        return {"units": len(photographs), "bytes": size}

    return one_round
