"""Ragged rows as a block: what a row gets depends on its image and its own past, not on how the block is laid out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.decoding import BlockStepper
from showtell.decoding.rows import RowLayout
from showtell.errors import ShowtellError

VOCAB = 7
ascending = st.lists(st.integers(0, 5), min_size=1, max_size=12).map(sorted)


class Recorder(BlockStepper):
    """A network whose state is the sum of its tokens and whose memory is the image's number."""

    def __init__(self, images: int) -> None:
        memory = (np.arange(images, dtype=np.float32)[:, None],)
        super().__init__(memory, (np.zeros((images, 1), np.float32),), images=images, vocab_size=VOCAB)
        self.shapes: list[tuple[int, int]] = []

    def gather(self, parts: Any, places: Any) -> Any:
        return tuple(part[places] for part in parts)

    def run(self, tokens: Any, state: Any, memory: Any) -> Any:
        (images,) = memory
        width, rest = divmod(len(tokens), len(images))
        assert rest == 0, "slots must be images x width"
        self.shapes.append((len(images), width))
        after = state[0] + tokens[:, None]
        logits = np.repeat(images, width, axis=0) * 100 + after + np.zeros((1, VOCAB), np.float32)
        return logits, (after,), np.repeat(images, width, axis=0)


@given(ascending)
def test_every_row_has_a_slot_of_its_image(owners: list[int]) -> None:
    layout = RowLayout.arrange(np.array(owners))
    assert len(layout.rows) == len(layout.images) * layout.width
    assert layout.width == max(owners.count(owner) for owner in owners)
    np.testing.assert_array_equal(layout.rows[layout.slots], np.arange(len(owners)))
    np.testing.assert_array_equal(np.array(owners)[layout.rows], np.repeat(layout.images, layout.width))
    assert layout.full == (len(layout.rows) == len(owners))


@given(ascending, st.data())
def test_rows_get_their_own_results_whatever_the_block(owners: list[int], data: st.DataObject) -> None:
    stepper = Recorder(images=6)
    rows = np.array(owners)
    sums = np.zeros(len(rows))
    state = stepper.start(rows)
    for _ in range(3):
        tokens = np.array(data.draw(st.lists(st.integers(0, 6), min_size=len(rows), max_size=len(rows))))
        result = stepper.step(tokens, state)
        sums = sums + tokens
        np.testing.assert_allclose(result.logits[:, 0], rows * 100 + sums)
        assert result.attention is not None
        np.testing.assert_allclose(result.attention[:, 0], rows)
        chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=12)))
        chosen = chosen[np.argsort(rows[chosen], kind="stable")]
        state = stepper.select(result.state, chosen)
        rows, sums = rows[chosen], sums[chosen]


def test_beams_share_the_memory_of_their_image_and_images_without_rows_leave() -> None:
    stepper = Recorder(images=3)
    state = stepper.start(np.arange(3))
    result = stepper.step(np.ones(3, dtype=np.int64), state)
    beams = stepper.select(result.state, np.repeat(np.arange(3), 4))
    assert beams.memory is state.memory, "the memory was copied for beams"
    stepper.step(np.ones(12, dtype=np.int64), beams)
    left = stepper.select(beams, np.array([0, 1, 8]))
    stepper.step(np.ones(3, dtype=np.int64), left)
    assert stepper.shapes == [(3, 1), (3, 4), (2, 2)]


@pytest.mark.parametrize("owners", [[], [1, 0]])
def test_rows_out_of_order_are_refused(owners: list[int]) -> None:
    with pytest.raises(ShowtellError, match="ascending image, at least one"):
        RowLayout.arrange(np.array(owners, dtype=np.int64))
