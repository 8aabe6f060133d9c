"""Self-critical training: what is rewarded, what the gradient is, and that a run with it learns and resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from showtell.config import SelfCriticalConfig
from showtell.decoding import DecodingSettings, decode
from showtell.errors import ConfigError, TrainingInterrupted
from showtell.metrics import ReferenceIndex
from showtell.recipes import Recipe, load_recipe
from showtell.text import SPECIAL, Vocabulary
from showtell.training import SilentWatcher, train
from showtell.training.model import CaptionModel, TorchBackend, build_decoder
from showtell.training.self_critical import SelfCritic
from tiny_runs import POOLING, scratch_folder, shared_dataset, tiny_recipe

MAX_STEPS = 12
CELLS, CHANNELS = 4, 8
KINDS = {
    "show-tell": {"embedding_size": 16, "hidden_size": 16},
    "inject-lstm": {},
    "attend-gru-additive": {"hidden_size": 16, "gate": True},
    "attend-gru-dot": {"size": 16},
}


def reinforced(*, epochs: int = 1, reinforced_epochs: int = 2, **settings: Any) -> Recipe:
    recipe = tiny_recipe(decoder=POOLING, training={"epochs": epochs, "learning_rate": 0.01})
    config = SelfCriticalConfig(**{"epochs": reinforced_epochs, "batch_size": 4, "samples": 3, **settings})
    return replace(recipe, self_critical=config)


def build(
    kind: str = "show-tell", **settings: Any
) -> tuple[SelfCritic, CaptionModel, TorchBackend, torch.Tensor]:
    """A critic of the shared data set, a decoder with random weights, and features for its images."""
    dataset = shared_dataset().split("train")
    captions = [caption for image in dataset.images for caption in image.captions]
    vocabulary = Vocabulary.from_captions(captions, min_count=1)
    recipe = replace(
        tiny_recipe(decoder={"kind": kind, **KINDS[kind]}),
        self_critical=SelfCriticalConfig(epochs=1, **settings),
    )
    decoder = build_decoder(recipe, channels=CHANNELS, vocab_size=len(vocabulary))
    pooled = decoder.needs == "pooled"
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(dataset.images), *([] if pooled else [CELLS]), CHANNELS, generator=generator)
    preprocessing: Any = None  # no picture is read here
    backend = TorchBackend(None, decoder, preprocessing=preprocessing, vocabulary=vocabulary, grid=(2, 2))
    critic = SelfCritic(dataset, vocabulary, recipe.self_critical, max_steps=MAX_STEPS)
    return critic, CaptionModel(decoder), backend, features


@pytest.mark.parametrize("kind", KINDS)
def test_the_pass_with_gradients_gives_the_probabilities_that_were_sampled_from(kind: str) -> None:
    from showtell.training.self_critical import _collate

    critic, model, backend, features = build(kind, samples=3)
    images = [0, 3, 5]
    settings = DecodingSettings(method="sample", count=3, max_steps=MAX_STEPS)
    sampled = decode(backend.bind(features[images].numpy()), settings, SPECIAL, image_seeds=images)
    # The sum of a caption's losses as its "advantage" finds the caption again after collating.
    expected = np.array([[hypothesis.log_prob for hypothesis in group] for group in sampled])
    batch, values = _collate(sampled, expected)
    with torch.no_grad():
        losses = critic._negative_log_probs(model(features[images], batch), batch)
    rows = batch.pack(torch.arange(len(batch.lengths))[:, None].expand(-1, batch.inputs.shape[1]))
    sums = torch.zeros(len(batch.lengths)).index_add(0, rows, losses)
    torch.testing.assert_close(-sums, values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("baseline", ["samples", "greedy"])
def test_the_gradient_is_that_of_the_expected_reward(baseline: str) -> None:
    """The mean of many estimates against finite differences of the reward of many samples would need millions; the
    estimate of one batch is compared with REINFORCE written out caption by caption."""
    critic, model, backend, features = build("show-tell", samples=4, baseline=baseline, bleu=0.5)
    images = [1, 2, 6, 7]
    loss, reward = critic.compute_loss(model, backend, features[images], images, seed=5)
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    found = model.decoder.output.weight.grad.clone()

    dataset = shared_dataset().split("train")
    ends = "."
    index = ReferenceIndex({image.id: image.captions for image in dataset.images}, end=ends)
    settings = DecodingSettings(method="sample", count=4, max_steps=MAX_STEPS, seed=5)
    plain = features[images].numpy()
    sampled = decode(backend.bind(plain), settings, SPECIAL, image_seeds=images)
    greedy = decode(backend.bind(plain), DecodingSettings(method="greedy", max_steps=MAX_STEPS), SPECIAL)

    def rewarded(image: int, hypothesis: Any) -> float:
        words = backend.vocabulary.decode(hypothesis.tokens).split() + [ends] * hypothesis.finished
        scores = index.score([dataset.images[image].id], [words], metrics=["CIDEr", "Bleu"]).per_hypothesis
        return float(scores["CIDEr"][0] + 0.5 * scores["Bleu_4"][0])

    total, tokens, rewards = torch.zeros(()), 0, []
    for place, image in enumerate(images):
        values = [rewarded(image, hypothesis) for hypothesis in sampled[place]]
        rewards += values
        for number, hypothesis in enumerate(sampled[place]):
            others = values[:number] + values[number + 1 :]
            base = rewarded(image, greedy[place][0]) if baseline == "greedy" else sum(others) / len(others)
            targets = [*hypothesis.tokens, *([SPECIAL.end] if hypothesis.finished else [])]
            state = model.decoder.start(model.decoder.project(features[[image]]))
            memory = model.decoder.project(features[[image]])
            given = SPECIAL.start
            for step, target in enumerate(targets):
                output, state, _ = model.decoder.step(torch.tensor([given]), state, memory)
                logits = model.decoder.logits(output)[0]
                never = [SPECIAL.pad, SPECIAL.start, SPECIAL.unknown, *([SPECIAL.end] if step == 0 else [])]
                logits = logits.index_fill(0, torch.tensor(never), -torch.inf)
                total = total - (values[number] - base) * torch.log_softmax(logits, 0)[target]
                given = target
            tokens += len(targets)
    model.zero_grad()
    (total / tokens).backward()
    assert reward == pytest.approx(np.mean(rewards))
    torch.testing.assert_close(found, model.decoder.output.weight.grad, atol=1e-5, rtol=1e-3)


def test_an_unfinished_sentence_is_worth_less() -> None:
    references = {"1": ["a dog runs in a field"], "2": ["two men sit"]}
    index = ReferenceIndex(references, end=".")
    words = references["1"][0].split()
    whole, cut, unfinished = index.score(
        ["1"] * 3,
        [[*words, "."], [*words[:-1], "."], words],
        metrics=["CIDEr"],
    ).per_hypothesis["CIDEr"]
    assert whole > unfinished > 0
    assert whole > cut


def test_rewards_rise() -> None:
    critic, model, backend, features = build("show-tell", samples=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    images = list(range(8))
    rewards = []
    for step in range(60):
        loss, reward = critic.compute_loss(model, backend, features[images], images, seed=step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rewards.append(reward)
    assert np.mean(rewards[-10:]) > 1.5 * np.mean(rewards[:10])


class Logger(SilentWatcher):
    def __init__(self, *, stop_after: int = 0) -> None:
        self.left = stop_after

    def advance(self, amount: int, **values: float) -> None:
        if "loss" in values and self.left:
            self.left -= 1
            if not self.left:
                raise TrainingInterrupted("stopped by the test")


def test_a_run_goes_on_in_its_self_critical_epochs_bit_for_bit(tmp_path: Path) -> None:
    dataset, features = shared_dataset(), scratch_folder() / "pooled-features"
    recipe = reinforced()
    whole = train(recipe, dataset, tmp_path / "whole", features=features)
    assert whole.epochs == 3
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [entry["loss"] > 0 for entry in log] == [True, False, False], (
        "the loss is then the negative reward"
    )
    steps = 5 + 4 + 2  # of one taught epoch, of one reinforced, and two more
    eager = replace(recipe, training=replace(recipe.training, checkpoint_seconds=0.0))
    with pytest.raises(TrainingInterrupted):
        train(eager, dataset, tmp_path / "cut", features=features, watcher=Logger(stop_after=steps))
    train(eager, dataset, tmp_path / "cut", features=features, resume=True)
    from showtell.training.checkpoint import read_checkpoint

    first, second = (
        read_checkpoint(tmp_path / run / "checkpoint.safetensors")[0] for run in ("whole", "cut")
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"self_critical\.samples must be at least 2"):
        load_recipe("show-tell-lstm", ["self_critical.samples=1"])
    with pytest.raises(ConfigError, match=r"self_critical has no key 'sample'\. Did you mean 'samples'"):
        load_recipe("show-tell-lstm", ["self_critical.sample=5"])
    with pytest.raises(ConfigError, match=r"self_critical\.baseline must be one of"):
        load_recipe("show-tell-lstm", ["self_critical.baseline=none"])
