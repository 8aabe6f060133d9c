"""Asking a captioner why: by its attention, or by hiding parts of the picture."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from showtell.captioner import Captioner
from showtell.captioning import Backend, Caption
from showtell.decoding import FloatArray, Judgement
from showtell.errors import UsageError, VocabularyError, did_you_mean
from showtell.explain.explanation import KEPT, Explanation
from showtell.explain.occlusion import find_box, find_readers, judge_hidden
from showtell.images import ImageSource, Preprocessing, keep_source, open_image
from showtell.images.sources import path_of
from showtell.text import FIRST_WORD, Vocabulary, tokenize

METHODS = ("auto", "attention", "occlusion")
WINDOWS = (7, 7)  # rows and columns of windows


def explain_caption(
    model: Captioner | Backend,
    image: ImageSource,
    caption: Caption | str,
    method: str = "auto",
    *,
    windows: tuple[int, int] = WINDOWS,
) -> Explanation:
    """Explains the words of a caption of a picture.

    Attention tells where a captioner looked, and costs next to nothing. It need not be why it said what it said (Jain
    and Wallace 2019, "Attention is not Explanation"); occlusion is closer to that, works for any captioner, and
    encodes the picture `rows * columns + 2` times.

    Args:
        model: a captioner, or its backend.
        image: as for `showtell.images.open_image`.
        caption: one that the model found, or any sentence of words that it knows.
        method: "attention", "occlusion", or "auto": attention where the model has it.
        windows: rows and columns that occlusion divides the seen part of the picture into.

    Raises:
        ImageError: the picture cannot be read.
        UsageError: an unknown method, "attention" for a model without, windows that are none, or an empty caption.
        VocabularyError: the model does not know a word of the caption.
    """
    if method not in METHODS:
        raise UsageError(
            f"method must be one of {', '.join(METHODS)}. Received: {method!r}.{did_you_mean(str(method), METHODS)}"
        )
    if len(windows) != 2 or min(windows) < 1:
        raise UsageError(f"windows must be two numbers >= 1, rows and columns. Received: {windows!r}")
    backend = model.backend if isinstance(model, Captioner) else model
    name = str(path_of(image)) if isinstance(image, str | os.PathLike) else ""
    image = keep_source(image)
    words = tokenize(caption) if isinstance(caption, str) else caption.words
    tokens = find_tokens(words, backend.vocabulary)
    picture = open_image(image)
    size, pixels = picture.size, backend.read(image)

    def judge(grid: tuple[int, int] | None) -> list[Judgement]:
        box = find_box(find_readers(backend), size)
        return judge_hidden(backend, pixels, tokens, size=size, box=box, grid=grid)

    judged = judge(windows if method == "occlusion" else None)
    if judged[0].attention is None and method == "attention":
        raise UsageError(
            "This captioner has no attention, so there is nothing to show. Use the method occlusion, or a captioner "
            "whose decoder attends, as attend-gru-additive does."
        )
    if judged[0].attention is None and method == "auto":
        method, judged = "occlusion", judge(windows)
    seen, blind, *hidden = judged
    if hidden:
        falls = np.stack([seen.token_log_probs - one.token_log_probs for one in hidden], axis=1)[:-1]
        maps = falls.reshape(len(words), *windows).astype(np.float32)
        box = find_box(find_readers(backend), size)
    else:
        maps = arrange_cells(seen.attention, backend.grid)
        box = backend.preprocessing.seen_box(*size)
    return Explanation(
        words=tuple(words),
        maps=maps,
        method="occlusion" if hidden else "attention",
        size=size,
        box=box,
        picture=shrink(picture),
        probabilities=tuple(np.exp(seen.token_log_probs[:-1]).tolist()),
        blind=tuple(np.exp(blind.token_log_probs[:-1]).tolist()),
        name=name,
    )


def explain_attention(
    image: Image.Image,
    caption: Caption,
    grid: tuple[int, int],
    preprocessing: Preprocessing,
    *,
    name: str = "",
) -> Explanation:
    """Explains a caption by the attention that it came with, without its captioner.

    Args:
        image: the original picture, upright, in RGB.
        caption: with attention.
        grid: rows and columns of the encoder's cells.
        preprocessing: of the encoder.
        name: of the picture, for the record.

    Raises:
        UsageError: the caption has no attention, or one that does not fit the grid or the words.
    """
    words = caption.words
    known = len(caption.word_log_probs) == len(words)
    maps = arrange_cells(caption.attention, grid)
    if len(maps) != len(words):
        raise UsageError(f"The caption has {len(words)} words, but attention for {len(maps)}.")
    return Explanation(
        words=tuple(words),
        maps=maps,
        method="attention",
        size=image.size,
        box=preprocessing.seen_box(*image.size),
        picture=shrink(image),
        probabilities=tuple(np.exp(caption.word_log_probs).tolist()) if known else None,
        name=name,
    )


def arrange_cells(attention: FloatArray | None, grid: tuple[int, int]) -> FloatArray:
    """Returns attention, (words, cells), as (words, rows, columns).

    Raises:
        UsageError: there is none, or it does not fit the grid.
    """
    if attention is None:
        raise UsageError(
            "This captioner has no attention, so there is nothing to show. Use one whose decoder attends, as "
            "attend-gru-additive does, or showtell.explain.explain_caption with the method occlusion."
        )
    rows, columns = grid
    if attention.shape[1] != rows * columns:
        raise UsageError(f"The attention has {attention.shape[1]} cells, but the grid is {rows}x{columns}.")
    return attention.reshape(-1, rows, columns)


def find_tokens(words: list[str], vocabulary: Vocabulary) -> list[int]:
    """Returns the ids of words.

    Raises:
        UsageError: there is no word.
        VocabularyError: a word that the vocabulary does not have.
    """
    if not words:
        raise UsageError("An empty caption has no words to explain.")
    ids = {word: FIRST_WORD + place for place, word in enumerate(vocabulary.words)}
    for word in words:
        if word not in ids:
            raise VocabularyError(
                f"This captioner does not know the word {word!r}, so it cannot say where it would come from."
                f"{did_you_mean(word, vocabulary.words)}"
            )
    return [ids[word] for word in words]


def shrink(picture: Image.Image) -> Image.Image:
    """Returns the picture, smaller if it is larger than a figure needs."""
    small = picture.copy()
    small.thumbnail((KEPT, KEPT), Image.Resampling.LANCZOS)
    return small
