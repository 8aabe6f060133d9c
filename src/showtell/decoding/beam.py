"""Beam search with length normalisation, for all images of a batch at once.

After each step the beam of an image keeps its best-scoring captions, finished or not. Finished ones are
never extended; they stay until others that score better have crowded them out. So a beam of 1 is greedy
decoding, and one as wide as the number of possible captions finds the best of them all.

Where captions must include words, an image has one such beam for each number of words that may still be missing
(`showtell.decoding.constraints`). Captions end only in the one where nothing is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from showtell.decoding.bans import Bans
from showtell.decoding.constraints import Coverage, Machine, build_machine, find_opening
from showtell.decoding.distribution import Emission, gather_log_probs, top_tokens
from showtell.decoding.hypothesis import DoubleArray, Hypothesis, Trellis, normalise_score
from showtell.decoding.phrases import UNCONSTRAINED, Constraints, TokenPhrase
from showtell.decoding.settings import DecodingSettings
from showtell.decoding.stepper import FloatArray, IntArray, Stepper
from showtell.text.vocabulary import SpecialTokens


@dataclass(frozen=True, slots=True)
class _Closed:
    """The captions, of all images, that are in a beam and will not be extended."""

    owners: IntArray  # (captions,) the image
    scores: DoubleArray  # (captions,)
    depths: IntArray  # (captions,) the step that closed it: its layer in the trellis
    entries: IntArray  # (captions,) its entry in that layer

    def take(self, chosen: IntArray) -> _Closed:
        return _Closed(self.owners[chosen], self.scores[chosen], self.depths[chosen], self.entries[chosen])

    def join(self, other: _Closed) -> _Closed:
        return _Closed(
            np.concatenate([self.owners, other.owners]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.depths, other.depths]),
            np.concatenate([self.entries, other.entries]),
        )


def search_beams(
    stepper: Stepper,
    settings: DecodingSettings,
    special: SpecialTokens,
    constraints: Constraints = UNCONSTRAINED,
) -> list[list[Hypothesis]]:
    """Returns the `settings.count` best captions per image, best first.

    There are fewer only where fewer are possible in `max_steps` steps, or fewer were found that include what they must.
    A caption that `max_steps` cuts off competes like a finished one. Of equal scores the one that was found first wins,
    then the one of the better prefix, then the lower token id.

    Args:
        stepper: the decoder and its images. The rows of an image lie together, images in ascending order.
        settings: beam, count, max_steps, length_penalty and what may not be repeated are used.
        special: the ids that never come out.
        constraints: what captions must and must not say.

    Raises:
        ConfigError: no caption can include what it must.
    """
    everyone = np.arange(stepper.images, dtype=np.int64)
    if not constraints.include:
        return _search(stepper, everyone, settings, special, constraints.exclude)
    machine = build_machine(constraints.include)
    opening = find_opening(machine, settings, constraints.exclude, special, vocab_size=stepper.vocab_size)
    captions = _search(stepper, everyone, settings, special, constraints.exclude, machine)
    lost = np.array([image for image, found in enumerate(captions) if not found], dtype=np.int64)
    if len(lost):
        again = _search(stepper, lost, settings, special, constraints.exclude, machine, opening)
        captions = [first or second for first, second in zip(captions, again, strict=True)]
    return captions


def _search(
    stepper: Stepper,
    owners: IntArray,
    settings: DecodingSettings,
    special: SpecialTokens,
    exclude: Collection[TokenPhrase],
    machine: Machine | None = None,
    opening: TokenPhrase = (),
) -> list[list[Hypothesis]]:
    """Searches the captions of some images, `owners`, that begin with `opening`; the others get none."""
    emission = Emission(stepper.vocab_size, special)
    trellis = Trellis(special.end)
    bans = Bans(settings, len(owners), exclude)
    coverage = (
        None
        if machine is None
        else Coverage(machine, special, vocab_size=stepper.vocab_size, rows=len(owners))
    )
    no_ids = np.zeros(0, dtype=np.int64)
    closed = _Closed(no_ids, np.zeros(0), no_ids, no_ids)
    log_probs = np.zeros(len(owners))  # (rows,) of each row's tokens so far; rows ascend by owner
    tokens = np.full(len(owners), special.start, dtype=np.int64)
    state = stepper.start(owners)
    for depth in range(1, settings.max_steps + 1):
        result = stepper.step(tokens, state)
        logits = emission.admit(result, owners, depth=depth)

        # No beam needs more than `beam` candidates from one row.
        width = min(settings.beam, emission.choices(depth=depth))
        allowed = bans.forbid(logits)
        if coverage is not None:
            allowed = coverage.hold_back_end(allowed)
        if depth <= len(opening):
            allowed = _allow_only(opening[depth - 1], allowed)
        ranked = top_tokens(allowed, width)
        if coverage is not None:
            ranked = coverage.offer(ranked)
        next_log_probs = gather_log_probs(logits, ranked).ravel()
        next_tokens = ranked.ravel()
        parents = np.repeat(np.arange(len(owners)), ranked.shape[1])
        if allowed is not logits:  # a row may have fewer words left than were asked for
            possible = np.isfinite(allowed[parents, next_tokens])
            parents, next_tokens = parents[possible], next_tokens[possible]
            next_log_probs = next_log_probs[possible]
        beams, closed_beams = owners[parents], closed.owners
        if coverage is not None:
            missing = coverage.count_missing(parents, next_tokens)
            beams = beams * coverage.banks + missing
            closed_beams = closed_beams * coverage.banks  # where nothing is missing
            able = missing <= settings.max_steps - depth  # to say everything in the steps that are left
            beams, parents, next_tokens = beams[able], parents[able], next_tokens[able]
            next_log_probs = next_log_probs[able]
        totals = log_probs[parents] + next_log_probs
        scores = normalise_score(totals, depth, settings.length_penalty)

        # Closed captions come first, so that they win against candidates of the same score.
        kept = _best_per_owner(
            np.concatenate([closed_beams, beams]), np.concatenate([closed.scores, scores]), settings.beam
        )
        stay = kept[kept < len(closed.owners)]
        fresh = kept[kept >= len(closed.owners)] - len(closed.owners)
        closing = (next_tokens[fresh] == special.end) | (depth == settings.max_steps)
        ending, going_on = fresh[closing], fresh[~closing]
        closed = closed.take(stay)
        settled = _find_settled(
            np.concatenate([closed.owners, owners[parents[ending]]]),
            np.concatenate([closed.scores, scores[ending]]),
            owners[parents[going_on]],
            totals[going_on],
            images=stepper.images,
            settings=settings,
        )
        going_on = going_on[~settled[owners[parents[going_on]]]]

        layer = np.concatenate([going_on, ending])  # those that go on first, as the trellis wants them
        trellis.add(parents[layer], next_tokens[layer], next_log_probs[layer], result.attention)
        entries = len(going_on) + np.arange(len(ending))
        closed = closed.join(
            _Closed(owners[parents[ending]], scores[ending], np.full(len(ending), depth), entries)
        )
        if len(going_on) == 0:
            break
        rows = parents[going_on]
        unchanged = np.array_equal(rows, np.arange(len(owners)))
        state = result.state if unchanged else stepper.select(result.state, rows)
        owners, log_probs, tokens = owners[rows], totals[going_on], next_tokens[going_on]
        bans.extend(rows, tokens)
        if coverage is not None:
            coverage.extend(rows, tokens)

    captions: list[list[Hypothesis]] = [[] for _ in range(stepper.images)]
    best = closed.take(_best_per_owner(closed.owners, closed.scores, settings.count))
    for owner, depth, entry in zip(best.owners.tolist(), best.depths.tolist(), best.entries.tolist()):
        captions[owner].append(trellis.trace(depth, entry, settings.length_penalty))
    return captions


def _allow_only(token: int, logits: FloatArray) -> FloatArray:
    """Returns logits that are -inf but for one token."""
    allowed = np.full_like(logits, -np.inf)
    allowed[:, token] = logits[:, token]
    return allowed


def _best_per_owner(owners: IntArray, scores: DoubleArray, count: int) -> IntArray:
    """Returns the indices of the `count` best of each owner: by owner, best first, of equals the first."""
    order = np.lexsort((-scores, owners))
    grouped = owners[order]
    ranks = np.arange(len(order)) - np.searchsorted(grouped, grouped)
    return np.asarray(order[ranks < count])


def _find_settled(
    closed_owners: IntArray,
    closed_scores: DoubleArray,
    open_owners: IntArray,
    open_log_probs: DoubleArray,
    *,
    images: int,
    settings: DecodingSettings,
) -> npt.NDArray[np.bool_]:
    """Returns which images, (images,), have `count` closed captions that no other can still beat.

    A log-probability only falls, and the division helps it most at the greatest length. So no continuation
    scores better than the present log-probability divided by what `max_steps` would give, and stopping here
    changes no result.

    Args:
        closed_owners: (closed,) the image of each closed caption in a beam.
        closed_scores: (closed,) their scores.
        open_owners: (open,) the image of each caption that could go on.
        open_log_probs: (open,) their log-probabilities so far.
        images: how many there are.
        settings: count, max_steps and length_penalty are used.
    """
    reachable = np.full(images, -np.inf)
    bounds = normalise_score(open_log_probs, settings.max_steps, settings.length_penalty)
    np.maximum.at(reachable, open_owners, bounds)
    unbeaten = closed_owners[closed_scores >= reachable[closed_owners]]
    return np.asarray(np.bincount(unbeaten, minlength=images) >= settings.count)
