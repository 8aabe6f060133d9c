"""Tied word embeddings: one matrix, used twice, saved once, in every decoder that can tie it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from showtell.bundle import load_bundle
from showtell.decoders import CaptionBatch, Decoder, create_decoder, list_decoders
from showtell.decoders.registry import DECODERS
from showtell.encoders import build_encoder
from showtell.text import Vocabulary
from showtell.training.averaging import AveragedModel
from showtell.training.model import CaptionModel, build_decoder, open_backend
from tiny_runs import tiny_recipe, write_bundle

VOCAB, CHANNELS, CELLS, IMAGES = 13, 6, 4, 3
TYING = [kind for kind in list_decoders() if hasattr(DECODERS[kind][0](), "tied")]


def make_decoder(kind: str, *, tied: bool = True, **options: Any) -> Decoder:
    torch.manual_seed(0)
    options = {"tied": tied, "embedding_size": 16, **options}
    return create_decoder(kind, options, features="grid", channels=CHANNELS, vocab_size=VOCAB).eval()


def make_batch() -> CaptionBatch:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(1, VOCAB, (IMAGES, 5), generator=generator)
    targets = torch.randint(1, VOCAB, (IMAGES, 5), generator=generator)
    return CaptionBatch(words, targets, [5, 4, 2], torch.arange(IMAGES))


def make_features() -> torch.Tensor:
    return torch.randn(IMAGES, CELLS, CHANNELS, generator=torch.Generator().manual_seed(2))


def compute_loss(decoder: Decoder) -> torch.Tensor:
    batch = make_batch()
    return cross_entropy(decoder(make_features(), batch).logits, batch.pack(batch.targets))


def test_there_are_decoders_that_tie() -> None:
    assert {"top-down-lstm", "adaptive-lstm", "multi-head-lstm"} <= set(TYING)


@pytest.mark.parametrize("kind", TYING)
def test_the_matrix_learns_from_both_of_its_uses(kind: str) -> None:
    size = {"size": 16} if kind == "adaptive-lstm" else {"hidden_size": 16}
    tied, apart = make_decoder(kind, **size), make_decoder(kind, tied=False, **size)
    with torch.no_grad():
        apart.load_state_dict({**tied.state_dict(), "output.weight": tied.embedding.weight})
    for decoder in (tied, apart):
        compute_loss(decoder).backward()
    read, said = apart.embedding.weight.grad, apart.output.weight.grad
    assert read.abs().sum() > 0
    assert said.abs().sum() > 0
    torch.testing.assert_close(tied.embedding.weight.grad, read + said)


@pytest.mark.parametrize("kind", TYING)
def test_the_matrix_is_saved_once(kind: str, tmp_path: Path) -> None:
    decoder = make_decoder(kind)
    shaped = [name for name, tensor in decoder.state_dict().items() if tensor.shape == (VOCAB, 16)]
    assert shaped == ["embedding.weight"]
    assert [name for name, _ in decoder.named_parameters(remove_duplicate=False)].count(shaped[0]) == 1
    # safetensors refuses tensors that share their memory.
    save_file(decoder.state_dict(), tmp_path / "weights.safetensors")
    again = make_decoder(kind)
    with torch.no_grad():
        again.embedding.weight.zero_()
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    torch.testing.assert_close(compute_loss(again), compute_loss(decoder), rtol=0, atol=0)


@pytest.mark.parametrize("kind", TYING)
def test_a_bundle_gives_the_tied_decoder_back(kind: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(decoder={"kind": kind, "tied": True, "embedding_size": 24})
    vocabulary = Vocabulary([f"word{number}" for number in range(20)])
    encoder = build_encoder(recipe.encoder, seed=0)
    decoder = build_decoder(recipe, channels=encoder.channels, vocab_size=len(vocabulary))
    bundle = write_bundle(tmp_path / "bundle", recipe, encoder, decoder, vocabulary)
    opened = open_backend(load_bundle(bundle), bundle).decoder
    assert opened.state_dict().keys() == decoder.state_dict().keys()
    with torch.no_grad():
        opened.embedding.weight.mul_(2)  # still one matrix, not two that were equal
        decoder.embedding.weight.mul_(2)
        outputs = torch.randn(4, 512)
        torch.testing.assert_close(opened.logits(outputs), decoder.eval().logits(outputs))


@pytest.mark.parametrize("kind", TYING)
def test_the_moving_average_is_tied_to_itself(kind: str) -> None:
    model = CaptionModel(make_decoder(kind))
    average = AveragedModel(model, 0.5)
    kept = average.module.decoder
    before = compute_loss(kept)
    with torch.no_grad():
        model.decoder.embedding.weight.add_(1.0)
    torch.testing.assert_close(compute_loss(kept), before, rtol=0, atol=0)  # not tied to the model's matrix
    weight = kept.embedding.weight.clone()
    average.follow(model, 1000)
    torch.testing.assert_close(kept.embedding.weight, weight + 0.5)
    copied = make_decoder(kind)
    copied.load_state_dict(kept.state_dict())
    torch.testing.assert_close(compute_loss(kept), compute_loss(copied), rtol=0, atol=0)
    assert len(list(kept.parameters())) == len(list(model.decoder.parameters()))


@pytest.mark.parametrize("kind", TYING)
def test_the_first_loss_is_that_of_a_guess(kind: str) -> None:
    """Embeddings of variance 1 as an output layer would be far too sure from the start."""
    torch.manual_seed(0)
    options = {"tied": True, "embedding_size": 512}
    decoder = create_decoder(kind, options, features="grid", channels=CHANNELS, vocab_size=VOCAB).eval()
    assert compute_loss(decoder).item() == pytest.approx(np.log(VOCAB), abs=0.3)
