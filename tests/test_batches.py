"""Captions as ids, the plan of an epoch, and what a batch holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from showtell.data.records import CaptionedImage, Dataset
from showtell.decoders import create_decoder, list_decoders
from showtell.decoders.registry import DECODERS
from showtell.errors import TrainingError
from showtell.text import FIRST_WORD, SPECIAL, Vocabulary
from showtell.training.batches import EncodedCaption, collate, encode_captions, plan_epoch

ODD_CAPTIONS = (
    "<start> a dog <end>",
    "<unk> <pad> <START> <end>",
    "a \x00 \x07 dog\x1b[31m \x7f",
    " ".join(["word"] * 500),
    "一只狗在草地上 跑",
    "собака бежит по траве",
    "a dog 🐕 \ud800 runs",
    "\u202eright to left\u2028line\u0085next",
)

# Of the plan that `test_the_order_is_the_same_on_every_machine` asks for.
PINNED = [[[0, 2], [5, 1], [3, 4]], [[0, 1, 2, 3, 4, 5]]]


def make_dataset(*captions: tuple[str, ...]) -> Dataset:
    images = [CaptionedImage(f"{n}", Path(f"{n}.png"), texts, "train") for n, texts in enumerate(captions)]
    return Dataset("made", "table", tuple(images))


def encode(*captions: tuple[str, ...], max_length: int = 50) -> list[EncodedCaption]:
    dataset = make_dataset(*captions)
    words = Vocabulary.from_captions(text for image in dataset.images for text in image.captions)
    return encode_captions(dataset, words, max_length)


# Captions as ids


def test_inputs_are_the_targets_one_step_later() -> None:
    [caption] = encode(("A dog runs.",))
    words = Vocabulary.from_captions(["A dog runs."]).encode("A dog runs.")
    assert caption == EncodedCaption(0, (SPECIAL.start, *words), (*words, SPECIAL.end))
    assert caption.inputs[1:] == caption.targets[:-1]


def test_a_cut_caption_is_not_taught_to_end() -> None:
    exact, cut = encode(("one two three",), ("one two three four",), max_length=3)
    assert exact.targets[-1] == SPECIAL.end
    assert len(exact.targets) == 4
    assert len(cut.targets) == len(cut.inputs) == 3
    assert SPECIAL.end not in cut.targets
    assert cut.inputs == exact.inputs[:3]


def test_unknown_words_stand_in_captions_and_drop_none() -> None:
    dataset = make_dataset(("a dog runs", "a zebra runs"), ("quagga",))
    vocabulary = Vocabulary(["a", "dog", "runs"])
    encoded = encode_captions(dataset, vocabulary, 50)
    assert [caption.image for caption in encoded] == [0, 0, 1]
    assert encoded[1].targets == (4, SPECIAL.unknown, 6, SPECIAL.end)
    assert encoded[2].targets == (SPECIAL.unknown, SPECIAL.end)


def test_captions_without_a_word_are_left_out_and_only_those() -> None:
    encoded = encode(("a dog", "", " . ! "), ("...", "a cat"))
    assert [caption.image for caption in encoded] == [0, 1]
    with pytest.raises(TrainingError, match=r"No caption of data set 'made' holds a word"):
        encode_captions(make_dataset((" ",), ("...",)), Vocabulary(["a"]), 50)


@pytest.mark.parametrize("caption", ODD_CAPTIONS)
def test_no_caption_can_forge_a_special_token(caption: str) -> None:
    [encoded] = encode((caption,))
    assert encoded.inputs[0] == SPECIAL.start
    assert all(token >= FIRST_WORD for token in encoded.inputs[1:])
    words = encoded.targets if len(encoded.targets) == 50 else encoded.targets[:-1]
    assert all(token >= FIRST_WORD for token in words)


# Plans

lengths_of_images = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=25)


def captions_of(images: list[list[int]]) -> list[EncodedCaption]:
    return [
        EncodedCaption(image, (1,) * length, (2,) * length)
        for image, lengths in enumerate(images)
        for length in lengths
    ]


@given(lengths_of_images, st.sampled_from(["length", "image"]), st.integers(1, 12), st.integers(0, 3))
def test_every_caption_is_in_an_epoch_exactly_once(
    images: list[list[int]], batching: str, batch_size: int, epoch: int
) -> None:
    captions = captions_of(images)
    plan = plan_epoch(captions, batching=batching, batch_size=batch_size, seed=3, epoch=epoch)
    assert Counter(index for batch in plan for index in batch) == Counter(range(len(captions)))
    assert all(plan)


@given(lengths_of_images, st.sampled_from(["length", "image"]), st.integers(2, 12))
def test_no_caption_is_alone_unless_there_is_only_one(
    images: list[list[int]], batching: str, batch_size: int
) -> None:
    captions = captions_of(images)
    plan = plan_epoch(captions, batching=batching, batch_size=batch_size, seed=3, epoch=0)
    assert min(map(len, plan)) > 1 or len(captions) == 1
    if batching == "image":
        sizes = [len({captions[index].image for index in batch}) for batch in plan]
        assert min(sizes) > 1 or len(images) == 1
        assert max(sizes) <= batch_size + 1
    else:
        assert max(map(len, plan)) <= batch_size + max(1, batch_size // 4)


@given(lengths_of_images, st.integers(1, 12))
def test_images_keep_their_captions_together(images: list[list[int]], batch_size: int) -> None:
    captions = captions_of(images)
    plan = plan_epoch(captions, batching="image", batch_size=batch_size, seed=3, epoch=0)
    places = {(captions[index].image, number) for number, batch in enumerate(plan) for index in batch}
    assert len(places) == len(images)


@given(lengths_of_images)
def test_full_batches_hold_one_length(images: list[list[int]]) -> None:
    captions = captions_of(images)
    plan = plan_epoch(captions, batching="length", batch_size=4, seed=3, epoch=0)
    mixed = sum(len({len(captions[index].targets) for index in batch}) > 1 for batch in plan)
    whole = sum(count // 4 for count in Counter(length for image in images for length in image).values())
    assert len(plan) - mixed >= whole - 1  # a left-over caption may have joined one of them


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    captions = captions_of([[3, 4, 5, 5, 6]] * 30)
    for batching in ("length", "image"):

        def plan(seed: int, epoch: int, batching: str = batching) -> list[list[int]]:
            return plan_epoch(captions, batching=batching, batch_size=8, seed=seed, epoch=epoch)

        first = plan(1, 2)
        np.random.seed(5)
        torch.manual_seed(5)
        assert plan(1, 2) == first
        orders = [first, plan(1, 3), plan(2, 2), plan(2, 1)]
        assert all(a != b for n, a in enumerate(orders) for b in orders[n + 1 :])


def test_the_order_is_the_same_on_every_machine() -> None:
    captions = captions_of([[3, 4], [3, 3], [5, 4]])
    plans = [plan_epoch(captions, batching=b, batch_size=2, seed=4, epoch=2) for b in ("length", "image")]
    assert plans == PINNED


# Batches


@settings(deadline=None)
@given(lengths_of_images)
def test_a_batch_holds_its_captions_longest_first(images: list[list[int]]) -> None:
    captions = [
        EncodedCaption(image, (1, *range(10, 9 + length)), (*range(10, 9 + length), 2))
        for image, lengths in enumerate(images)
        for length in lengths
    ]
    indices, batch = collate(captions[::-1])
    assert indices == sorted(set(range(len(images))))
    assert list(batch.lengths) == sorted(batch.lengths, reverse=True)
    rows = Counter()
    for row, length in enumerate(batch.lengths):
        image = indices[int(batch.owners[row])]
        inputs, targets = batch.inputs[row].tolist(), batch.targets[row].tolist()
        assert inputs[length:] == targets[length:] == [SPECIAL.pad] * (batch.inputs.shape[1] - length)
        rows[EncodedCaption(image, tuple(inputs[:length]), tuple(targets[:length]))] += 1
    assert rows == Counter(captions)
    assert SPECIAL.pad not in batch.pack(batch.targets)


@pytest.mark.parametrize("kind", list_decoders())
def test_padding_is_in_neither_loss_nor_gradient(kind: str) -> None:
    """The short caption's part of the loss is the same beside a long caption as beside its equal."""
    short, long = EncodedCaption(0, (1, 5), (5, 2)), EncodedCaption(1, (1, *range(4, 12)), (*range(4, 12), 2))
    torch.manual_seed(0)
    pooled = DECODERS[kind][1].needs == "pooled"
    decoder = create_decoder(
        kind, {}, features="pooled" if pooled else "grid", channels=6, vocab_size=20
    ).eval()
    features = torch.randn((2, 6) if pooled else (2, 4, 6))

    def gradients(captions: list[EncodedCaption]) -> tuple[float, list[torch.Tensor]]:
        images, batch = collate(captions)
        decoder.zero_grad()
        targets = batch.pack(batch.targets)
        loss = cross_entropy(decoder(features[images], batch).logits, targets, reduction="sum")
        loss.backward()
        return float(loss.detach()), [parameter.grad.clone() for parameter in decoder.parameters()]

    together, all_gradients = gradients([short, long])
    losses, parts = zip(gradients([short]), gradients([long]))
    assert together == pytest.approx(sum(losses), rel=1e-5)
    for whole, *pieces in zip(all_gradients, *parts):
        torch.testing.assert_close(whole, sum(pieces), atol=1e-5, rtol=1e-4)
    assert not all_gradients[[name for name, _ in decoder.named_parameters()].index("embedding.weight")][
        0
    ].any()


def test_a_batch_of_one_image_trains_with_batch_normalisation() -> None:
    decoder = create_decoder("show-tell", {}, features="pooled", channels=6, vocab_size=20).train()
    images, batch = collate([EncodedCaption(3, (1, 5), (5, 2)), EncodedCaption(3, (1, 6), (6, 2))])
    assert images == [3]
    before = {name: buffer.clone() for name, buffer in decoder.named_buffers()}
    decoder(torch.randn(1, 6), batch).logits.sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in decoder.named_buffers())
    assert decoder.norm.weight.grad is not None
    decoder(torch.randn(3, 6), collate([EncodedCaption(n, (1, 5), (5, 2)) for n in range(3)])[1])
    assert not torch.equal(decoder.norm.running_mean, before["norm.running_mean"])
