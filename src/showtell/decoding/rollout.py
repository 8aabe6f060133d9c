"""One token per row and step: what greedy decoding and sampling have in common, and how each chooses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from showtell.decoding.bans import Bans
from showtell.decoding.distribution import Emission, gather_log_probs, top_tokens
from showtell.decoding.hypothesis import DoubleArray, Hypothesis, Trellis
from showtell.decoding.phrases import TokenPhrase
from showtell.decoding.settings import DecodingSettings
from showtell.decoding.stepper import FloatArray, IntArray, Stepper
from showtell.text.vocabulary import SpecialTokens

# (logits (rows, vocab), slots (rows,), depth) -> tokens (rows,); a slot is a row's number at the first step.
Choose = Callable[[FloatArray, IntArray, int], IntArray]
# (slots (rows,), tokens (rows,)) of one step, as they were decided; end tokens are among them.
Watch = Callable[[IntArray, IntArray], None]

_FIRST_NUCLEUS = 256  # tokens looked at before more are: the nucleus of a caption model is far smaller


def decode_greedily(
    stepper: Stepper,
    settings: DecodingSettings,
    special: SpecialTokens,
    exclude: Collection[TokenPhrase] = (),
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """Returns one caption per image: at every step the likeliest token, of equals the lowest id.

    Args:
        stepper: the decoder and its images.
        settings: max_steps, length_penalty and what may not be repeated are used.
        special: the ids that never come out.
        exclude: words and phrases that never come out.
        watch: told the tokens of every step as soon as they are decided; slot i is image i.
    """

    def choose(logits: FloatArray, _slots: IntArray, _depth: int) -> IntArray:
        return np.asarray(logits.argmax(axis=1))

    owners = np.arange(stepper.images, dtype=np.int64)
    return [[caption] for caption in _roll_out(stepper, owners, choose, settings, special, exclude, watch)]


def sample_captions(
    stepper: Stepper,
    settings: DecodingSettings,
    special: SpecialTokens,
    image_seeds: Sequence[int],
    exclude: Collection[TokenPhrase] = (),
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """Returns `settings.count` sampled captions per image, those with the best score first.

    The logits are divided by the temperature; of these the `top_k` highest stay; of these the fewest that
    hold at least `top_p` of the probability that is left (the nucleus of Holtzman et al. 2020, section 3.1).
    The log-probabilities of the captions are the model's own, without all this. Two samples may be the same.

    Args:
        stepper: the decoder and its images.
        settings: temperature, top_k, top_p, seed and count are used.
        special: the ids that never come out.
        image_seeds: one per image. The random numbers of a caption depend on the seed, its image's seed and
            the number of the sample, and on nothing else.
        exclude: words and phrases that never come out.
        watch: told the tokens of every step as soon as they are decided; slot `i * count + n` is sample n of image i.
    """
    owners = np.repeat(np.arange(stepper.images, dtype=np.int64), settings.count)
    streams = [(image_seed, sample) for image_seed in image_seeds for sample in range(settings.count)]
    draws = np.stack(
        [
            np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=stream)).random(
                settings.max_steps
            )
            for stream in streams
        ]
    )

    def choose(logits: FloatArray, slots: IntArray, depth: int) -> IntArray:
        return draw_tokens(logits, draws[slots, depth - 1], settings)

    captions = _roll_out(stepper, owners, choose, settings, special, exclude, watch)
    grouped = [captions[first : first + settings.count] for first in range(0, len(captions), settings.count)]
    return [sorted(group, key=lambda caption: -caption.score) for group in grouped]


def draw_tokens(logits: FloatArray, draws: DoubleArray, settings: DecodingSettings) -> IntArray:
    """Returns one token per row, (rows,), drawn from the distribution that the settings cut out.

    Args:
        logits: (rows, vocab), -inf where a token may not come out.
        draws: (rows,) uniform in [0, 1).
        settings: temperature, top_k and top_p are used.
    """
    if settings.top_k:
        tokens = top_tokens(logits, settings.top_k)
        weights = _weigh(np.take_along_axis(logits, tokens, axis=1), settings.temperature)
        weights = _cut_nucleus(weights, weights.sum(axis=1, dtype=np.float64), settings.top_p)
    elif settings.top_p < 1:
        tokens, weights = _find_nucleus(logits, settings.temperature, settings.top_p)
    else:
        tokens = np.broadcast_to(np.arange(logits.shape[1], dtype=np.int64), logits.shape)
        weights = _weigh(logits, settings.temperature)
    cumulative = np.cumsum(weights, axis=1, dtype=np.float64)
    # The first place that exceeds the draw has a weight above zero, so what is forbidden is never drawn.
    places = np.argmax(cumulative > (draws * cumulative[:, -1])[:, None], axis=1)
    return np.take_along_axis(tokens, places[:, None], axis=1)[:, 0]


def _weigh(logits: FloatArray, temperature: float) -> FloatArray | DoubleArray:
    # Unnormalised probabilities; the highest of each row is 1 at any temperature, so no row sums to zero.
    # Exponentials of single precision are several times quicker, and as exact as the logits are.
    wide = logits if temperature == 1 else logits.astype(np.float64)
    with np.errstate(over="ignore"):
        shifted = wide - logits.max(axis=1, keepdims=True)
        if temperature != 1:
            shifted /= temperature
    return np.asarray(np.exp(shifted, out=shifted))


def _cut_nucleus(
    weights: FloatArray | DoubleArray, totals: DoubleArray, top_p: float
) -> FloatArray | DoubleArray:
    # A token stays while those before it hold less than top_p, so the likeliest always does.
    before = np.cumsum(weights, axis=1, dtype=np.float64) - weights
    return np.where(before < top_p * totals[:, None], weights, 0.0) if top_p < 1 else weights


def _find_nucleus(
    logits: FloatArray, temperature: float, top_p: float
) -> tuple[IntArray, FloatArray | DoubleArray]:
    totals = _weigh(logits, temperature).sum(axis=1, dtype=np.float64)
    looked_at = _FIRST_NUCLEUS
    while True:
        tokens = top_tokens(logits, looked_at)
        weights = _weigh(np.take_along_axis(logits, tokens, axis=1), temperature)
        if looked_at >= logits.shape[1] or (weights.sum(axis=1, dtype=np.float64) >= top_p * totals).all():
            return tokens, _cut_nucleus(weights, totals, top_p)
        looked_at *= 4


def _roll_out(
    stepper: Stepper,
    owners: IntArray,
    choose: Choose,
    settings: DecodingSettings,
    special: SpecialTokens,
    exclude: Collection[TokenPhrase],
    watch: Watch | None,
) -> list[Hypothesis]:
    emission = Emission(stepper.vocab_size, special)
    trellis = Trellis(special.end)
    bans = Bans(settings, len(owners), exclude)
    slots = np.arange(len(owners), dtype=np.int64)
    places: list[tuple[int, int]] = [(0, 0)] * len(
        owners
    )  # the depth and entry where each slot's caption ends
    state = stepper.start(owners)
    tokens = np.full(len(owners), special.start, dtype=np.int64)
    for depth in range(1, settings.max_steps + 1):
        result = stepper.step(tokens, state)
        logits = emission.admit(result, owners[slots], depth=depth)
        chosen = choose(bans.forbid(logits), slots, depth)
        if watch is not None:
            watch(slots, chosen)
        log_probs = gather_log_probs(logits, chosen[:, None])[:, 0]
        closed = (chosen == special.end) | (depth == settings.max_steps)
        rows = np.argsort(closed, kind="stable")  # those that go on first, as the trellis wants them
        trellis.add(rows, chosen[rows], log_probs[rows], result.attention)
        going_on = len(rows) - int(closed.sum())
        for entry in range(going_on, len(rows)):
            places[slots[rows[entry]]] = (depth, entry)
        if going_on == 0:
            break
        rows = rows[:going_on]
        state = stepper.select(result.state, rows) if going_on < len(slots) else result.state
        slots, tokens = slots[rows], chosen[rows]
        bans.extend(rows, tokens)
    return [trellis.trace(depth, entry, settings.length_penalty) for depth, entry in places]
