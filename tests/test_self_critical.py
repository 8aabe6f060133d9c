"""Self-critical training: what is rewarded, what the gradient is, and that a run with it learns and resumes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from showtell.config import SelfCriticalConfig
from showtell.decoding import DecodingSettings, decode
from showtell.encoders import build_encoder
from showtell.errors import ConfigError, TrainingError, TrainingInterrupted
from showtell.metrics import ReferenceIndex
from showtell.recipes import Recipe, load_recipe
from showtell.text import SPECIAL, Vocabulary
from showtell.training import train
from showtell.training.batches import collate, encode_captions
from showtell.training.checkpoint import read_checkpoint
from showtell.training.model import CaptionModel, TorchBackend, build_decoder
from showtell.training.self_critical import SelfCritic, drop_channels
from tiny_runs import POOLING, Stopper, assert_equal_checkpoints, pooled_features, shared_dataset, tiny_recipe

MAX_STEPS = 12
CELLS, CHANNELS = 4, 8
KINDS = {
    "show-tell": {"embedding_size": 16, "hidden_size": 16},
    "inject-lstm": {},
    "attend-gru-additive": {"hidden_size": 16, "gate": True},
    "attend-gru-dot": {"size": 16},
    "top-down-lstm": {"hidden_size": 16, "tied": True},
    "adaptive-lstm": {"size": 16, "tied": True},
    "multi-head-lstm": {"hidden_size": 16, "tied": True},
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


def teach(model: CaptionModel, vocabulary: Vocabulary, features: torch.Tensor) -> None:
    """Teacher forcing until greedy captions resemble the references."""
    dataset = shared_dataset().split("train")
    images, batch = collate(encode_captions(dataset, vocabulary, MAX_STEPS))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(80):
        loss = cross_entropy(model.decoder(features[images], batch).logits, batch.pack(batch.targets))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


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
        losses = critic._negative_log_probs(model.decoder(features[images], batch).logits, batch)
    rows = batch.pack(torch.arange(len(batch.lengths))[:, None].expand(-1, batch.inputs.shape[1]))
    sums = torch.zeros(len(batch.lengths)).index_add(0, rows, losses)
    torch.testing.assert_close(-sums, values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(6, 50), (6, 4, 50)])
def test_dropped_channels_are_gone_from_all_cells_of_a_picture(shape: tuple[int, ...]) -> None:
    features = torch.rand(*shape) + 1
    dropped = drop_channels(features, 0.5)
    gone = (dropped == 0).view(6, -1, 50)
    assert torch.equal(gone.all(dim=1), gone.any(dim=1))
    assert 90 < int(gone[:, 0].sum()) < 210
    assert not torch.equal(gone[0], gone[1])  # other ones for each picture
    torch.testing.assert_close(dropped[dropped != 0], 2 * features[dropped != 0])
    assert torch.equal(drop_channels(features, 0.0), features)


@pytest.mark.parametrize("kind", ["show-tell", "adaptive-lstm"])
def test_samples_and_gradients_see_the_same_channels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    critic, model, backend, features = build(kind, samples=2, feature_dropout=0.5)
    seen: list[torch.Tensor] = []
    project, bind = model.decoder.project, backend.bind
    monkeypatch.setattr(
        model.decoder, "project", lambda given: (seen.append(given.detach().clone()), project(given))[1]
    )
    monkeypatch.setattr(backend, "bind", lambda given: (seen.append(torch.from_numpy(given)), bind(given))[1])
    critic.compute_loss(model, backend, features[[0, 3]], [0, 3], seed=1)
    assert len(seen) >= 2
    assert all(torch.equal(one, seen[0]) for one in seen)
    assert 0 < int((seen[0] == 0).sum()) < seen[0].numel()


@pytest.mark.parametrize("baseline", ["samples", "greedy"])
def test_the_gradient_is_that_of_the_expected_reward(baseline: str) -> None:
    """The mean of many estimates against finite differences of the reward of many samples would need millions; the
    estimate of one batch is compared with REINFORCE written out caption by caption."""
    critic, model, backend, features = build("show-tell", samples=4, baseline=baseline, bleu=0.5)
    teach(model, backend.vocabulary, features)
    images = [1, 2, 6, 7]
    found_loss = critic.compute_loss(model, backend, features[images], images, seed=5)
    model.zero_grad()
    found_loss.loss.backward()  # type: ignore[no-untyped-call]
    found = model.decoder.output.weight.grad.clone()

    dataset = shared_dataset().split("train")
    ends = "."
    index = ReferenceIndex({image.id: image.captions for image in dataset.images}, end=ends)
    settings = DecodingSettings(method="sample", count=4, max_steps=MAX_STEPS, seed=5)
    plain = features[images].numpy()
    sampled = decode(backend.bind(plain), settings, SPECIAL, image_seeds=images)
    greedy = decode(backend.bind(plain), DecodingSettings(method="greedy", max_steps=MAX_STEPS), SPECIAL)

    bleus = []

    def rewarded(image: int, hypothesis: Any) -> float:
        words = backend.vocabulary.decode(hypothesis.tokens).split() + [ends] * hypothesis.finished
        scores = index.score([dataset.images[image].id], [words], metrics=["CIDEr", "Bleu"]).per_hypothesis
        bleus.append(scores["Bleu_4"][0])
        return float(scores["CIDEr"][0] + 0.5 * scores["Bleu_4"][0])

    assert min(rewarded(image, greedy[place][0]) for place, image in enumerate(images)) > 0.01
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
    assert max(bleus) > 0.01
    assert -float(found_loss.shown) == pytest.approx(np.mean(rewards))
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
        found = critic.compute_loss(model, backend, features[images], images, seed=step)
        optimizer.zero_grad()
        found.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rewards.append(-float(found.shown))
    assert np.mean(rewards[-10:]) > 1.5 * np.mean(rewards[:10])


def stop(recipe: Recipe, run: Path, *, after: int) -> None:
    """A run that is stopped in some step; those before were saved."""
    eager = replace(recipe, training=replace(recipe.training, checkpoint_seconds=0.0))
    with pytest.raises(TrainingInterrupted):
        train(eager, shared_dataset(), run, features=pooled_features(), watcher=Stopper(after))


def resume(recipe: Recipe, run: Path) -> int:
    """Goes on; returns the finished epochs."""
    return train(recipe, shared_dataset(), run, features=pooled_features(), resume=True).epochs


def test_a_run_goes_on_in_its_self_critical_epochs_bit_for_bit(tmp_path: Path) -> None:
    recipe = reinforced()
    assert train(recipe, shared_dataset(), tmp_path / "whole", features=pooled_features()).epochs == 3
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [entry["loss"] > 0 for entry in log] == [True, False, False], (
        "the loss is then the negative reward"
    )
    # 16 images are five batches of 16 captions, or four of four images; a cosine over eight steps, less the warm-up.
    assert [entry["step"] for entry in log] == [5, 9, 13]
    peak = recipe.self_critical.learning_rate
    warm = recipe.self_critical.warmup * 8
    shares = [(step - warm) / (8 - warm) for step in (3, 7)]
    expected = [0.01, *(peak * 0.5 * (1 + math.cos(math.pi * share)) for share in shares)]
    assert [entry["learning_rate"] for entry in log] == pytest.approx(expected)
    stop(recipe, tmp_path / "cut", after=5 + 4 + 2)
    assert resume(recipe, tmp_path / "cut") == 3
    assert_equal_checkpoints(tmp_path / "whole", tmp_path / "cut")


def test_each_image_is_rewarded_by_its_own_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, list[int]]] = []
    original = SelfCritic.compute_loss

    def spy(self: SelfCritic, model: Any, backend: Any, inputs: Any, images: Any, *, seed: int) -> Any:
        seen.append((inputs.clone(), list(images)))
        return original(self, model, backend, inputs, images, seed=seed)

    monkeypatch.setattr(SelfCritic, "compute_loss", spy)
    train(reinforced(reinforced_epochs=1), shared_dataset(), tmp_path / "run", features=pooled_features())
    images = shared_dataset().split("train").images
    assert sorted(image for _, batch in seen for image in batch) == list(range(len(images)))
    encoder = build_encoder(reinforced().encoder, seed=0)
    for inputs, batch in seen:
        pixels = np.stack([encoder.preprocessing.read(images[index].path) for index in batch])
        np.testing.assert_allclose(inputs, encoder.encode(pixels), atol=0.02, rtol=0.02)


def test_self_critical_epochs_are_added_to_a_finished_run(tmp_path: Path) -> None:
    taught = reinforced(reinforced_epochs=0)
    assert train(taught, shared_dataset(), tmp_path / "run", features=pooled_features()).epochs == 1
    assert resume(reinforced(reinforced_epochs=1), tmp_path / "run") == 2


def test_what_may_change_before_the_first_self_critical_step(tmp_path: Path) -> None:
    recipe = reinforced(epochs=2, reinforced_epochs=1)
    stop(recipe, tmp_path / "run", after=7)
    with pytest.raises(TrainingError, match=r"training\.epochs \(1, but 2 have begun\)"):
        resume(reinforced(epochs=1, reinforced_epochs=1), tmp_path / "run")
    assert resume(reinforced(epochs=2, reinforced_epochs=1, samples=2, batch_size=8), tmp_path / "run") == 3


def test_what_may_not_change_after_it(tmp_path: Path) -> None:
    recipe = reinforced(reinforced_epochs=2)
    stop(recipe, tmp_path / "run", after=5 + 4 + 2)
    for changed, message in (
        (reinforced(reinforced_epochs=2, samples=2), r"self_critical\.samples \(3, now 2\)"),
        (reinforced(epochs=2, reinforced_epochs=2), r"training\.epochs \(1, now 2\)"),
        (reinforced(reinforced_epochs=1), r"self_critical\.epochs \(1, but 2 have begun\)"),
        (reinforced(reinforced_epochs=0), r"self_critical\.epochs \(0, but 2 have begun\)"),
        (
            replace(recipe, decoding=replace(recipe.decoding, max_steps=3)),
            r"decoding\.max_steps \(12, now 3\)",
        ),
    ):
        with pytest.raises(TrainingError, match=message):
            resume(changed, tmp_path / "run")
    assert resume(reinforced(reinforced_epochs=3), tmp_path / "run") == 4


def test_a_trained_encoder_gets_gradients_and_keeps_its_statistics(tmp_path: Path) -> None:
    encoder = {"trainable": True}
    recipe = tiny_recipe(encoder=encoder, decoder=POOLING, training={"epochs": 1, "batch_size": 8})
    recipe = replace(recipe, self_critical=SelfCriticalConfig(epochs=1, batch_size=8, samples=2))
    train(replace(recipe, self_critical=SelfCriticalConfig()), shared_dataset(), tmp_path / "run")
    before = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[0]
    train(recipe, shared_dataset(), tmp_path / "run", resume=True)
    after = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[0]
    names = [
        name for name in before if name.startswith("model.encoder.") and before[name].is_floating_point()
    ]
    moved = {name for name in names if not torch.equal(before[name], after[name])}
    assert any(name.endswith("conv1.weight") for name in moved)
    assert not any("running_" in name for name in moved)


def test_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"self_critical\.samples must be at least 2"):
        load_recipe("show-tell-lstm", ["self_critical.samples=1"])
    with pytest.raises(ConfigError, match=r"self_critical has no key 'sample'\. Did you mean 'samples'"):
        load_recipe("show-tell-lstm", ["self_critical.sample=5"])
    with pytest.raises(ConfigError, match=r"self_critical\.baseline must be one of"):
        load_recipe("show-tell-lstm", ["self_critical.baseline=none"])
    with pytest.raises(ConfigError, match=r"self_critical\.learning_rate must be above 0"):
        load_recipe("show-tell-lstm", ["self_critical.learning_rate=0"])
    with pytest.raises(ConfigError, match=r"training\.patience ends a run"):
        load_recipe("drawn-shapes", ["training.patience=2", "self_critical.epochs=1"])


def test_the_moments_of_adam_go_on(tmp_path: Path) -> None:
    train(reinforced(), shared_dataset(), tmp_path / "run", features=pooled_features())
    tensors, values = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    counted = {int(tensor) for name, tensor in tensors.items() if name.endswith(".step")}
    assert counted == {values["step"]} == {13}
    assert values["reinforced"] == 8


def test_units_are_dropped_in_the_pass_with_gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "attend-gru-additive", {"hidden_size": 16, "dropout": 0.5})
    for dropout in (False, True):
        critic, model, backend, features = build("attend-gru-additive", samples=3, dropout=dropout)
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append(critic.compute_loss(model, backend, features[[0, 3, 5]], [0, 3, 5], seed=7))
        assert found[0].shown == found[1].shown, "the same samples"
        assert bool(found[0].loss == found[1].loss) is not dropout


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_blended_weights_are_kept_and_resume_to_the_bit(ema: float, tmp_path: Path) -> None:
    recipe = reinforced(reinforced_epochs=3, blend=0.25, learning_rate=0.01)
    recipe = replace(recipe, training=replace(recipe.training, ema=ema))
    dataset, features = shared_dataset(), pooled_features()
    train(recipe, dataset, tmp_path / "whole", features=features)
    for after in (2, 8):  # in the epoch with teacher forcing, and later with rewards
        with pytest.raises(TrainingInterrupted):
            train(
                recipe,
                dataset,
                tmp_path / "parts",
                features=features,
                watcher=Stopper(after),
                resume=after > 2,
            )
    train(recipe, dataset, tmp_path / "parts", features=features, resume=True)
    tensors = assert_equal_checkpoints(tmp_path / "whole", tmp_path / "parts")
    start, kept, last = (tensors[f"{part}.decoder.output.weight"] for part in ("anchor", "average", "model"))
    if ema == 0:
        torch.testing.assert_close(kept, torch.lerp(start, last, 0.25))
    assert 0 < (kept - start).norm() < 0.5 * (last - start).norm()


def test_what_needs_a_second_set_of_weights() -> None:
    with pytest.raises(ConfigError, match=r"self_critical\.blend must be at least 0\.01"):
        SelfCriticalConfig(blend=0.0)
    for blend, epochs, ema, expected in (
        (1.0, 2, 0.0, False),
        (1.0, 0, 0.9, True),
        (0.5, 0, 0.0, False),
        (0.5, 2, 0.0, True),
    ):
        recipe = reinforced(reinforced_epochs=epochs, blend=blend)
        assert replace(recipe, training=replace(recipe.training, ema=ema)).averages is expected


def test_rewarded_epochs_that_are_blended_may_be_added_to_a_run_without_an_average(tmp_path: Path) -> None:
    recipe = reinforced(reinforced_epochs=2, blend=0.25, learning_rate=0.01)
    dataset, features = shared_dataset(), pooled_features()
    taught = replace(recipe, self_critical=SelfCriticalConfig())
    train(taught, dataset, tmp_path / "added", features=features)
    before = read_checkpoint(tmp_path / "added" / "checkpoint.safetensors")[0]
    train(recipe, dataset, tmp_path / "added", features=features, resume=True)
    train(recipe, dataset, tmp_path / "whole", features=features)
    after = assert_equal_checkpoints(tmp_path / "added", tmp_path / "whole")
    assert not any(name.startswith("average.") for name in before)
    name = "decoder.output.weight"
    assert torch.equal(after[f"anchor.{name}"], before[f"model.{name}"])
