"""Ensembles: the mean over models of everything that makes up a captioner, by brute force and with real bundles."""

from __future__ import annotations

import functools
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from showtell.bundle import find_bundle, load_bundle, save_bundle
from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.decoding import DecodingSettings, EnsembleStepper, Voice, decode
from showtell.encoders import build_encoder
from showtell.ensemble import EnsembleBackend, match_vocabularies
from showtell.errors import ShowtellError, UsageError, VocabularyError
from showtell.text import Vocabulary
from showtell.training.model import CaptionModel, build_decoder, make_bundle
from test_decoding import FIRST_WORD, SPECIAL, ScriptedStepper, ToyStepper, next_log_probs
from tiny_runs import (
    POOLING,
    Settings,
    exported_run,
    scratch_folder,
    shared_dataset,
    tiny_recipe,
    trained_run,
)

METHODS = (
    DecodingSettings(method="greedy", max_steps=8),
    DecodingSettings(method="beam", beam=3, count=3, max_steps=8),
    DecodingSettings(method="sample", count=2, seed=4, max_steps=8, no_repeat_ngram=2),
)


# The stepper


class Permuted:
    """A toy model that has other ids for the same words."""

    def __init__(self, inner: ToyStepper, ids: np.ndarray) -> None:
        self.images, self.vocab_size = inner.images, inner.vocab_size
        self._inner, self._ids = inner, ids  # (vocab,) this model's id of each of the inner one's

    def start(self, owners: np.ndarray) -> Any:
        return self._inner.start(owners)

    def step(self, tokens: np.ndarray, state: Any) -> Any:
        result = self._inner.step(np.argsort(self._ids)[tokens], state)
        logits = np.empty_like(result.logits)
        logits[:, self._ids] = result.logits
        return replace(result, logits=logits)

    def select(self, state: Any, rows: np.ndarray) -> Any:
        return self._inner.select(state, rows)


def combine(steppers: list[ToyStepper], prefix: tuple[int, ...]) -> dict[int, float]:
    """The normalised geometric mean of the members' distributions, in plain Python."""
    each = [next_log_probs(stepper, 0, prefix) for stepper in steppers]
    mean = {token: sum(one[token] for one in each) / len(each) for token in each[0]}
    total = math.log(math.fsum(math.exp(value) for value in mean.values()))
    return {token: value - total for token, value in mean.items()}


@pytest.mark.parametrize("members", [1, 2, 3])
def test_a_full_width_beam_over_several_is_brute_force_over_their_mean(members: int) -> None:
    steppers = [ToyStepper([seed], vocab=7) for seed in (3, 14, 15)[:members]]
    everything: dict[tuple[int, ...], float] = {}

    def extend(prefix: tuple[int, ...], log_prob: float) -> None:
        for token, value in combine(steppers, prefix).items():
            if token == SPECIAL.end:
                everything[prefix] = log_prob + value
            elif len(prefix) == 2:
                everything[*prefix, token] = log_prob + value
            else:
                extend((*prefix, token), log_prob + value)

    extend((), 0.0)
    width = len(everything)
    search = DecodingSettings(beam=width, count=width, max_steps=3, length_penalty=0)
    (captions,) = decode(EnsembleStepper([Voice(one) for one in steppers]), search, SPECIAL)
    assert {caption.tokens for caption in captions} == set(everything)
    for caption in captions:
        assert caption.log_prob == pytest.approx(everything[caption.tokens], abs=1e-5)
    assert math.fsum(math.exp(caption.log_prob) for caption in captions) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("settings", METHODS)
def test_members_may_number_their_words_otherwise(settings: DecodingSettings) -> None:
    seeds = [1, 2, 3]
    ids = np.array([0, 1, 2, 3, 6, 4, 7, 5])
    plain = [Voice(ToyStepper(seeds, 8)), Voice(ToyStepper([5, 6, 7], 8))]
    other = [plain[0], Voice(Permuted(ToyStepper([5, 6, 7], 8), ids), ids)]
    expected = decode(EnsembleStepper(plain), settings, SPECIAL)
    assert decode(EnsembleStepper(other), settings, SPECIAL) == expected
    assert expected != decode(ToyStepper(seeds, 8), settings, SPECIAL)


def test_attention_is_the_mean_of_those_that_count() -> None:
    steppers = [ToyStepper([seed]) for seed in (1, 2, 3)]
    voices = [Voice(steppers[0], looks=True), Voice(steppers[1]), Voice(steppers[2], looks=True)]
    tokens, owners = np.array([SPECIAL.start]), np.array([0])
    ensemble = EnsembleStepper(voices)
    found = ensemble.step(tokens, ensemble.start(owners)).attention
    each = [stepper.step(tokens, stepper.start(owners)).attention.copy() for stepper in steppers]
    np.testing.assert_allclose(found, (each[0] + each[2]) / 2, rtol=1e-6)
    silent = EnsembleStepper([Voice(steppers[0]), Voice(ScriptedStepper(np.zeros((1, 3, 7))), looks=True)])
    assert silent.step(tokens, silent.start(owners)).attention is None


def test_members_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShowtellError, match=r"Received: images \[1, 2\], sizes \[7\]"):
        EnsembleStepper([Voice(ToyStepper([1])), Voice(ToyStepper([1, 2]))])
    with pytest.raises(ShowtellError, match=r"Received: images \[1\], sizes \[7, 9\]"):
        EnsembleStepper([Voice(ToyStepper([1])), Voice(ToyStepper([1], vocab=9))])


def test_a_member_that_is_not_finite_is_noticed() -> None:
    script = np.zeros((1, 3, 7))
    script[0, 1, 5] = np.inf
    members = [Voice(ScriptedStepper(script)), Voice(ScriptedStepper(-script))]
    with pytest.raises(ShowtellError, match="non-finite logits at step 2"):
        decode(EnsembleStepper(members), DecodingSettings(max_steps=3), SPECIAL)


def test_vocabularies_are_matched_by_their_words() -> None:
    ours = Vocabulary(["a", "dog", "runs"])
    assert match_vocabularies(ours, Vocabulary(["a", "dog", "runs"]), "x", "y") is None
    ids = match_vocabularies(ours, Vocabulary(["runs", "a", "dog"]), "x", "y")
    assert ids is not None
    assert ids.tolist() == [0, 1, 2, 3, 5, 6, 4]
    with pytest.raises(VocabularyError) as caught:
        match_vocabularies(ours, Vocabulary(["a", "cat", "b", "c", "d"]), "x", "y")
    assert str(caught.value) == (
        "The members of an ensemble must know the same words, but y lacks 2 of them ('dog', 'runs') and x lacks 4 of "
        "them ('cat', 'b', 'c', ...). Train them on the same captions with the same text.min_count and text.max_words."
    )


# Bundles


@functools.cache
def pooled_bundle(size: int = 48) -> Path:
    """Another decoder over pictures of another size, with random weights and the same words."""
    recipe = tiny_recipe(encoder={"image_size": size}, decoder=POOLING)
    return untrained_bundle(recipe.to_dict(), f"pooled-{size}")


def untrained_bundle(tables: Settings, name: str) -> Path:
    from showtell.recipes import Recipe

    recipe = Recipe.from_dict(tables)
    vocabulary = load_bundle(trained_run()).vocabulary
    encoder = build_encoder(recipe.encoder)
    decoder = build_decoder(recipe, channels=encoder.channels, vocab_size=len(vocabulary))
    folder = scratch_folder() / "members" / name
    bundle = make_bundle(recipe, CaptionModel(decoder), encoder, vocabulary, split_fingerprint="", scores={})
    save_bundle(bundle, folder)
    return folder


@functools.cache
def renumbered_bundle() -> Path:
    """The trained bundle with its words in another order."""
    bundle = load_bundle(trained_run())
    words = bundle.vocabulary.words
    order = np.random.default_rng(0).permutation(len(words))
    rows = np.array([*range(FIRST_WORD), *(FIRST_WORD + order)])
    weights = {
        key: value[rows] if value.shape[:1] == (len(bundle.vocabulary),) else value
        for key, value in bundle.decoder_weights.items()
    }
    assert sum(weights[key] is not bundle.decoder_weights[key] for key in weights) >= 3
    folder = scratch_folder() / "members" / "renumbered"
    vocabulary = Vocabulary([words[place] for place in order])
    save_bundle(replace(bundle, vocabulary=vocabulary, decoder_weights=weights), folder)
    return folder


def paths() -> list[Path]:
    return [image.path for image in shared_dataset().images]


@pytest.mark.parametrize("settings", METHODS)
def test_an_ensemble_of_one_model_under_two_numberings_is_that_model(settings: DecodingSettings) -> None:
    alone = Captioner.load(trained_run())
    together = Captioner.load([trained_run(), renumbered_bundle()])
    assert together.settings == alone.settings
    assert together.notes == ()
    assert together.digest == f"{alone.digest}+{load_bundle(renumbered_bundle()).digest}"
    for one, other in zip(alone.caption(paths(), settings), together.caption(paths(), settings), strict=True):
        assert [caption.text for caption in one.captions] == [caption.text for caption in other.captions]
        assert one.grid == other.grid == (2, 2)
        for ours, theirs in zip(one.captions, other.captions, strict=True):
            assert ours.score == pytest.approx(theirs.score, abs=1e-4)
            np.testing.assert_allclose(ours.attention, theirs.attention, atol=1e-5)


def test_members_of_other_decoders_and_sizes_caption_together() -> None:
    members = [trained_run(), pooled_bundle()]
    together = Captioner.load([str(member) for member in members])
    assert together.name == "tiny + tiny"
    settings = DecodingSettings(beam=3, max_steps=8)
    found = [picture.captions[0] for picture in together.caption(paths(), settings)]
    for member in members:
        alone = [picture.captions[0] for picture in Captioner.load(member).caption(paths(), settings)]
        assert [caption.log_prob for caption in alone] != pytest.approx(
            [caption.log_prob for caption in found], abs=1e-3
        )
    assert all(caption.attention is not None for caption in found)  # of the one that attends
    # Every kind of picture is read for both sizes, streams too.
    content = paths()[0].read_bytes()
    for source in (content, io.BytesIO(content), str(paths()[0])):
        (picture,) = together.caption([source], settings)
        assert picture.text == found[0].text


def test_a_bad_picture_disturbs_no_ensemble(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    together = Captioner.load([trained_run(), pooled_bundle()])
    results = list(together.caption([paths()[0], tmp_path / "bad.png", io.BytesIO(b""), paths()[1]]))
    assert [result.error is None for result in results] == [True, False, False, True]


def test_what_members_share_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = Captioner.load([trained_run(), renumbered_bundle(), pooled_bundle(), trained_run()])
    assert isinstance(together.backend, EnsembleBackend)
    calls: list[int] = []
    for number, member in enumerate(together.backend.members):

        def encode(pixels: Any, number: int = number, run: Any = member.encode) -> Any:
            calls.append(number)
            return run(pixels)

        monkeypatch.setattr(member, "encode", encode)
    pictures = together.backend.read(paths()[0])
    assert [picture.shape for picture in pictures] == [(64, 64, 3), (48, 48, 3)]
    assert len(list(together.caption(paths()[:2]))) == 2
    assert calls == [0, 2]


def test_members_that_look_at_other_cells_tell_nothing_and_say_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = tiny_recipe(encoder={"image_size": 96})
    finer = untrained_bundle(recipe.to_dict(), "finer")
    together = Captioner.load([trained_run(), finer])
    assert together.notes == (
        "The ensemble does not tell where it looked: its members look at different cells (2x2, 3x3).",
    )
    (picture,) = together.caption(paths()[:1])
    assert picture.captions[0].attention is None
    words = ["caption", str(paths()[0]), "--model", str(trained_run()), "--model", str(finer)]
    words += ["--explain", str(tmp_path)]
    assert main([*words, "--explain-with", "attention"]) == 2
    assert "look at different cells (2x2, 3x3)" in capsys.readouterr().err
    assert main(words) == 0  # by hiding parts of the picture, which works for every model
    [explained] = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert explained["method"] == "occlusion"
    cropping = untrained_bundle(tiny_recipe(encoder={"fit": "crop"}).to_dict(), "cropping")
    assert len(Captioner.load([trained_run(), cropping]).notes) == 1


def test_an_exported_captioner_and_a_bundle_caption_together() -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    alone = Captioner.load(trained_run())
    both = Captioner.load([exported_run(), renumbered_bundle()])
    settings = DecodingSettings(beam=3, max_steps=8)
    expected = [picture.captions[0] for picture in alone.caption(paths(), settings)]
    found = [picture.captions[0] for picture in both.caption(paths(), settings)]
    assert [caption.text for caption in found] == [caption.text for caption in expected]
    assert [caption.log_prob for caption in found] == pytest.approx(
        [caption.log_prob for caption in expected], abs=1e-2
    )


def test_what_makes_no_ensemble_is_refused() -> None:
    with pytest.raises(UsageError, match="No model was given"):
        Captioner.load([])
    with pytest.raises(UsageError, match=r"needs two models or more\. Received: 1"):
        EnsembleBackend([Captioner.load(trained_run()).backend], ["one"])  # type: ignore[list-item]


# The command line


def test_the_command_line_captions_and_evaluates_with_several_models(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    members = [str(trained_run()), str(pooled_bundle())]
    image = str(paths()[0])
    assert main(["caption", image, "--model", members[0], "--model", members[1]]) == 0
    (picture,) = Captioner.load(members).caption([image])
    assert capsys.readouterr().out == f"{image}\t{picture.text}\n"
    data = ["--data", str(scratch_folder() / "data"), "--split", "dev"]
    report = tmp_path / "report.json"
    assert main(["evaluate", *members, *data, "--output", str(report)]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    right = Captioner.load(members).evaluate(shared_dataset(), split="dev")
    assert scores == right.scores
    digests = "+".join(load_bundle(find_bundle(Path(member))).digest for member in members)
    assert json.loads(report.read_text())["bundle_digest"] == digests


def test_the_command_line_names_the_words_that_a_member_lacks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bundle = load_bundle(trained_run())
    words = [*bundle.vocabulary.words[:-1], "elephant"]
    save_bundle(replace(bundle, vocabulary=Vocabulary(words)), tmp_path / "other")
    models = ["--model", str(trained_run()), "--model", str(tmp_path / "other")]
    assert main(["caption", str(paths()[0]), *models]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'other'} lacks 1 of them ({bundle.vocabulary.words[-1]!r})" in error
    assert f"{trained_run()} lacks 1 of them ('elephant')" in error
