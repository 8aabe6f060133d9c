"""Teacher forcing and what recipes add to it; the moving average of the weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from showtell.bundle import load_bundle
from showtell.captioner import Captioner
from showtell.config import TrainingConfig
from showtell.decoders import CaptionBatch, create_decoder
from showtell.errors import ConfigError, TrainingError, TrainingInterrupted
from showtell.text import SPECIAL
from showtell.training import train
from showtell.training.averaging import AveragedModel
from showtell.training.model import CaptionModel
from showtell.training.teacher_forcing import (
    TeacherForcing,
    compute_neglect,
    drop_words,
    replace_by_samples,
)
from tiny_runs import POOLING, Stopper, assert_equal_checkpoints, pooled_features, shared_dataset, tiny_recipe

VOCAB, CHANNELS, CELLS = 11, 6, 4
LENGTHS = [6, 4, 4, 2, 1]


def make_batch(rows: int = 1) -> CaptionBatch:
    """Captions of five lengths, each as often as `rows` says, of three images."""
    lengths = [length for length in LENGTHS for _ in range(rows)]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.full((len(lengths), max(lengths)), SPECIAL.pad)
    targets = inputs.clone()
    for row, length in enumerate(lengths):
        words = torch.randint(4, VOCAB, (length,), generator=generator)
        inputs[row, 0], inputs[row, 1:length] = SPECIAL.start, words[:-1]
        targets[row, :length] = words
    return CaptionBatch(inputs, targets, lengths, torch.arange(len(lengths)) % 3)


def make_model(kind: str = "attend-gru-additive") -> tuple[CaptionModel, torch.Tensor]:
    torch.manual_seed(1)
    needs = "pooled" if kind == "show-tell" else "grid"
    decoder = create_decoder(kind, {}, features=needs, channels=CHANNELS, vocab_size=VOCAB)
    features = torch.randn(3, *([CELLS] if needs == "grid" else []), CHANNELS)
    return CaptionModel(decoder).eval(), features


def compute(config: TrainingConfig, *, step: int = 5) -> tuple[float, float]:
    model, features = make_model()
    torch.manual_seed(2)
    teacher = TeacherForcing(config, model.decoder, steps=10)
    found = teacher.compute_loss(model, features, make_batch(), step=step, bf16=False)
    assert (found.counted, found.captions) == (sum(LENGTHS), len(LENGTHS))
    return found.loss.item(), found.shown.item()


def test_the_loss_is_the_mean_over_the_real_tokens() -> None:
    model, features = make_model()
    batch = make_batch()
    expected = cross_entropy(model.decoder(features, batch).logits, batch.pack(batch.targets)).item()
    assert compute(TrainingConfig()) == pytest.approx((expected, expected))


def test_a_share_of_the_words_is_dropped_and_never_the_start() -> None:
    torch.manual_seed(0)
    batch = make_batch(rows=200)
    dropped = drop_words(batch, 0.3).inputs
    real = batch.inputs[:, 1:] != SPECIAL.pad
    gone = (dropped[:, 1:] == SPECIAL.unknown) & real
    assert gone.sum() / real.sum() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(dropped[:, 0], batch.inputs[:, 0])
    assert torch.equal(dropped[:, 1:][real & ~gone], batch.inputs[:, 1:][real & ~gone])


@pytest.mark.parametrize("kind", ["attend-gru-additive", "attend-gru-dot", "show-tell", "adaptive-lstm"])
def test_replaced_words_are_sampled_from_what_the_decoder_says_there(kind: str) -> None:
    model, features = make_model(kind)
    batch = make_batch(rows=400)
    torch.manual_seed(3)
    mixed = replace_by_samples(model.decoder, features, batch, 0.5)
    assert torch.equal(mixed.inputs[:, 0], batch.inputs[:, 0])
    assert mixed.targets is batch.targets
    inside = torch.arange(batch.inputs.shape[1])[None] < torch.tensor(batch.lengths)[:, None]
    assert torch.equal(mixed.inputs[~inside], batch.inputs[~inside])
    assert not set(mixed.inputs[:, 1:][inside[:, 1:]].tolist()) & {0, 1, 2, 3}
    changed = (mixed.inputs != batch.inputs)[:, 1:] & inside[:, 1:]
    # A sample may be the word that was there.
    assert 0.35 < changed.sum() / inside[:, 1:].sum() < 0.5
    # At the second place, given the start token alone: the share of each word, for one image.
    rows = (batch.owners == 0) & inside[:, 1]
    with torch.no_grad():
        memory = model.decoder.project(features[:1])
        output, _, _ = model.decoder.step(torch.tensor([SPECIAL.start]), model.decoder.start(memory), memory)
        logits = model.decoder.logits(output)[0]
    logits[[SPECIAL.pad, SPECIAL.start, SPECIAL.end, SPECIAL.unknown]] = -torch.inf
    expected = torch.softmax(logits, 0)
    given = torch.bincount(batch.inputs[rows, 1], minlength=VOCAB) / rows.sum()
    found = torch.bincount(mixed.inputs[rows, 1], minlength=VOCAB) / rows.sum()
    np.testing.assert_allclose(found, 0.5 * given + 0.5 * expected, atol=0.07)


def test_all_words_replaced_are_a_sample_of_the_decoder() -> None:
    """With a share of 1 the words before are samples, too: what is likely after the words that stand there now."""
    model, features = make_model()
    with torch.no_grad():  # a decoder that says after each word the next one in the vocabulary
        decoder = model.decoder
        for parameter in decoder.parameters():
            parameter.zero_()
        decoder.embedding.weight[:, 0] = torch.arange(VOCAB) * 1.0

        def step(tokens, state, memory):  # type: ignore[no-untyped-def]
            following = torch.where(tokens < 4, 4, 4 + (tokens - 3) % (VOCAB - 4))
            return torch.nn.functional.one_hot(following, VOCAB) * 100.0, state, None

        decoder.step = step  # type: ignore[method-assign]
        decoder.logits = lambda outputs: outputs  # type: ignore[method-assign]
        mixed = replace_by_samples(model.decoder, features, make_batch(), 1.0)
    assert mixed.inputs[0].tolist() == [SPECIAL.start, 4, 5, 6, 7, 8]
    assert mixed.inputs[3].tolist()[:3] == [SPECIAL.start, 4, SPECIAL.pad]


def test_sampled_words_come_slowly() -> None:
    plain = compute(TrainingConfig())
    config = TrainingConfig(scheduled_sampling=0.9)
    assert compute(config, step=0) == plain
    assert compute(config, step=5) != plain


def test_cells_that_are_seen_once_in_all_cost_nothing() -> None:
    batch = CaptionBatch(torch.ones(2, 3), torch.ones(2, 3), [3, 2], torch.tensor([0, 1]))
    # Packed order: both captions' first words, both second ones, the first caption's third.
    attention = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]])
    # The first caption saw each cell once; the second saw one cell twice and two never: 1 + 1 + 1 of six.
    assert compute_neglect(attention, batch).item() == pytest.approx(3 / 6)


def test_the_neglect_is_added_to_the_loss_and_not_shown() -> None:
    model, features = make_model()
    batch = make_batch()
    neglect = compute_neglect(model.decoder(features, batch).attention, batch).item()
    plain, _ = compute(TrainingConfig())
    loss, shown = compute(TrainingConfig(doubly_stochastic=2.0))
    assert loss == pytest.approx(plain + 2 * neglect)
    assert shown == pytest.approx(plain)


def test_a_decoder_without_attention_cannot_neglect(tmp_path: Path) -> None:
    recipe = tiny_recipe(decoder=POOLING, training={"doubly_stochastic": 1.0})
    with pytest.raises(ConfigError, match=r"training\.doubly_stochastic asks for attention"):
        train(recipe, shared_dataset(), tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value"),
    [("word_dropout", 1.0), ("scheduled_sampling", -0.1), ("ema", 1.0), ("doubly_stochastic", -1.0)],
)
def test_shares_out_of_range(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"training\.{key} must be at least"):
        TrainingConfig(**{key: value})


def follow(average: AveragedModel, model: Any, steps: int, *, blend: float = 1.0) -> torch.Tensor:
    """Moves the model by one at each step; returns the mean of its output weights by the formula, decay 0.9."""
    weight = model.decoder.output.weight
    mean = weight.detach().clone()
    for step in range(steps):
        with torch.no_grad():
            weight.add_(1.0)
            model.decoder.norm.running_mean.add_(1.0)
        decay = min(0.9, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weight.detach()
        average.follow(model, step, blend=blend)
    return mean


def test_the_average_is_that_of_the_formula() -> None:
    model, _ = make_model("show-tell")
    average = AveragedModel(model, 0.9)
    weight = model.decoder.output.weight
    expected = follow(average, model, 200)
    kept = average.module.decoder
    torch.testing.assert_close(kept.output.weight, expected)
    # Far from the start it lags behind by decay / (1 - decay) steps.
    torch.testing.assert_close(kept.output.weight + 9.0, weight, atol=0.01, rtol=0)
    assert torch.equal(kept.norm.running_mean, model.decoder.norm.running_mean)
    assert not any(parameter.requires_grad for parameter in kept.parameters())
    average.restart(model)
    assert torch.equal(kept.output.weight, weight)


def test_an_anchored_average_goes_a_part_of_the_way() -> None:
    model, _ = make_model("show-tell")
    average = AveragedModel(model, 0.9)
    weight = model.decoder.output.weight
    start = weight.detach().clone()
    average.set_anchor()
    assert average.anchor is not None
    mean = follow(average, model, 30, blend=0.25)
    kept = average.module.decoder
    torch.testing.assert_close(kept.output.weight, 0.75 * start + 0.25 * mean)
    assert torch.equal(average.anchor.decoder.output.weight, start)
    assert torch.equal(kept.norm.running_mean, model.decoder.norm.running_mean)
    alone = AveragedModel(model, 0.0)  # keeps nothing of before
    with torch.no_grad():
        weight.mul_(2.0)
    alone.follow(model, 5)
    assert torch.equal(alone.module.decoder.output.weight, weight)


EVERYTHING = {
    "ema": 0.8,
    "word_dropout": 0.2,
    "scheduled_sampling": 0.5,
    "learning_rate": 0.01,
    "checkpoint_seconds": 0.0,
}


def test_with_everything_a_run_goes_on_bit_for_bit_and_keeps_its_average(tmp_path: Path) -> None:
    recipe = tiny_recipe(decoder=POOLING, training=EVERYTHING)
    dataset, features = shared_dataset(), pooled_features()
    whole = train(recipe, dataset, tmp_path / "whole", features=features)
    with pytest.raises(TrainingInterrupted):
        train(recipe, dataset, tmp_path / "cut", features=features, watcher=Stopper(7))
    train(recipe, dataset, tmp_path / "cut", features=features, resume=True)
    first = assert_equal_checkpoints(tmp_path / "whole", tmp_path / "cut")
    # What captions is the average, not the last weights.
    last = [name for name in first if name.startswith("average.decoder.")]
    assert last
    assert any(not torch.equal(first[name], first[name.replace("average", "model", 1)]) for name in last)
    if whole.best_epoch == 2:
        weights = load_bundle(whole.bundle).decoder_weights
        for name in last:
            np.testing.assert_array_equal(first[name].numpy(), weights[name.removeprefix("average.decoder.")])
    # And its captions have the score that the log says.
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert whole.scores == log[whole.best_epoch - 1]["dev"]
    settings = replace(recipe.decoding, method="greedy", count=1)
    report = Captioner.load(whole.bundle).evaluate(dataset, split="dev", settings=settings)
    assert report.scores["CIDEr"] == pytest.approx(whole.scores["CIDEr"], abs=1e-6)


def test_a_run_with_an_average_is_not_resumed_without_it(tmp_path: Path) -> None:
    dataset, features = shared_dataset(), pooled_features()
    run = tmp_path / "run"
    with pytest.raises(TrainingInterrupted):
        train(
            tiny_recipe(decoder=POOLING, training=EVERYTHING),
            dataset,
            run,
            features=features,
            watcher=Stopper(3),
        )
    for ema in (0.0, 0.5):
        with pytest.raises(TrainingError, match=rf"training\.ema \(0\.8, now {ema}\)"):
            train(
                tiny_recipe(decoder=POOLING, training={**EVERYTHING, "ema": ema}),
                dataset,
                run,
                features=features,
                resume=True,
            )


def test_a_trained_encoder_sees_each_picture_once_per_step() -> None:
    class Counting(torch.nn.Module):
        calls = 0

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            Counting.calls += 1
            return pixels

    model, features = make_model()
    model.encoder = Counting()  # type: ignore[assignment]
    teacher = TeacherForcing(TrainingConfig(scheduled_sampling=0.9), model.decoder, steps=10)
    teacher.compute_loss(model, features, make_batch(), step=9, bf16=False)
    assert Counting.calls == 1


def test_bf16_with_sampled_words_gives_every_weight_a_gradient() -> None:
    model, features = make_model()
    teacher = TeacherForcing(TrainingConfig(scheduled_sampling=0.9), model.decoder, steps=10)
    teacher.compute_loss(model, features, make_batch(), step=9, bf16=True).loss.backward()  # type: ignore[no-untyped-call]
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
