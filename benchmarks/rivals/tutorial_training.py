"""The training loop of the attention tutorials: word by word over padded captions.

Captions are drawn at random, each with a copy of its image's features. All are padded to the longest of the batch
(some tutorials pad to the longest of the whole data set, which costs two or three times more). At every step the cells
are projected anew, all captions go through the output layer, ended ones too, and their loss is masked away.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.rivals.tutorial import END, PAD, START, Decoder
from benchmarks.sides import Round


def compute_loss(decoder: Decoder, features: Tensor, captions: Tensor) -> Tensor:
    """Returns the mean loss of the real tokens.

    Args:
        decoder: in training mode.
        features: (captions, cells, channels), repeated for captions of the same image.
        captions: (captions, steps) start token, words, end token, padding.
    """
    cells = decoder.reduce(features)
    hidden = decoder.reset(cells)
    total = torch.zeros(())
    for step in range(1, captions.shape[1]):
        logits, hidden = decoder(captions[:, step - 1], cells, hidden)
        losses = cross_entropy(logits, captions[:, step], reduction="none")
        total = total + (losses * (captions[:, step] != PAD)).sum()
    return total / (captions[:, 1:] != PAD).sum()


def pad(captions: list[list[int]]) -> Tensor:
    """Returns (captions, steps), padded to the longest."""
    padded = torch.full((len(captions), max(map(len, captions))), PAD)
    for row, caption in enumerate(captions):
        padded[row, : len(caption)] = torch.tensor(caption)
    return padded


def train(folder: str, *, batch: int, steps: int) -> Round:
    """A side: `steps` steps of Adam, each on `batch` captions."""
    facts: dict[str, Any] = json.loads(Path(folder, "facts.json").read_text(encoding="utf-8"))
    written = json.loads(Path(folder, "captions.json").read_text(encoding="utf-8"))
    features = np.load(Path(folder, "features", "features.npy"), mmap_mode="r")
    pairs = [
        (image, [START, *(word + 4 for word in caption), END])
        for image, captions in enumerate(written["captions"][: written["train"]])
        for caption in captions
    ]
    torch.manual_seed(0)
    decoder = Decoder(facts)
    optimizer = torch.optim.Adam(decoder.parameters())
    generator = np.random.default_rng(0)

    def one_round() -> dict[str, Any]:
        losses = []
        for _ in range(steps):
            chosen = [pairs[index] for index in generator.choice(len(pairs), batch, replace=False)]
            images = np.stack([features[image] for image, _ in chosen]).astype(np.float32)
            loss = compute_loss(decoder, torch.from_numpy(images), pad([caption for _, caption in chosen]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        return {"units": batch * steps, "loss": losses[-1]}

    return one_round
