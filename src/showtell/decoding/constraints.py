"""What captions must include: a finite-state machine that counts the words which each caption of a beam still lacks.

Anderson et al. 2017, "Guided Open Vocabulary Image Captioning with Constrained Beam Search", follow each caption with a
machine whose states are the sets of met constraints, any of several words meeting one of them, and keep a beam for each
state. Hokamp and Liu 2017, "Lexically Constrained Decoding for Sequence Generation Using Grid Beam Search", keep a beam
for each number of constraint words that a caption has, and offer the next word of every phrase even where the model
would not think of it. Here the machine is Anderson's and the beams are Hokamp and Liu's: as the machine knows the least
number of words that a caption still needs, there is one beam for each such number. Post and Vilar 2018, "Fast
Lexically Constrained Decoding with Dynamic Beam Allocation", share one beam out among these banks to keep it small; a
captioner's beam of 3 would then be narrower than the banks are many, and captions are short enough for a beam each.

Phrases may overlap ("a red shirt" holds "red" and "red shirt"): the machine reads them all at once, as in Aho and
Corasick 1975, "Efficient String Matching". A phrase that was begun and left counts as missing again.

The least number of words is that of the phrases alone. Exclusions and repetition rules may need more, and then a beam
can run into a dead end. So a sequence of words that keeps every rule is known before the search (`find_opening`); an
image whose beams found no caption is searched again with captions that begin with it. Every caption that is returned
holds everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from showtell.decoding.phrases import Constraints, TokenPhrase, is_banned
from showtell.decoding.settings import DecodingSettings
from showtell.decoding.stepper import FloatArray, IntArray
from showtell.errors import ConfigError
from showtell.text.vocabulary import SpecialTokens

_FAR = np.iinfo(np.int64).max // 2
_TRIES = 20_000  # words that are tried to find an opening, before there is said to be none


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """Reads captions word by word. Its state is a node, what of the phrases was read last, and the set of met entries.

    Words are symbols: symbol 0 is any word that no phrase has, symbol s is `words[s - 1]`. Sets are bits.
    """

    words: IntArray  # (words,) the token ids that phrases have, ascending
    after: IntArray  # (nodes, symbols) the next node; node 0 is the start
    meets: IntArray  # (nodes,) the entries that reaching a node meets
    missing: IntArray  # (nodes, sets) the least number of words after which nothing is missing

    @property
    def least(self) -> int:
        """The number of words of the shortest caption that includes everything."""
        return int(self.missing[0, 0])


@lru_cache(maxsize=16)
def build_machine(include: tuple[tuple[TokenPhrase, ...], ...]) -> Machine:
    """Returns the machine of some entries, each with its alternatives."""
    phrases = {phrase for alternatives in include for phrase in alternatives}
    words = sorted({word for phrase in phrases for word in phrase})
    symbols = {word: symbol for symbol, word in enumerate(words, start=1)}
    # A node is what begins a phrase, and stands for the longest such end of what was read. Short ones come first.
    begun = {phrase[:end] for phrase in phrases for end in range(len(phrase) + 1)}
    nodes = {
        prefix: node for node, prefix in enumerate(sorted(begun, key=lambda prefix: (len(prefix), prefix)))
    }
    longer_by_one: dict[TokenPhrase, list[TokenPhrase]] = {}
    for prefix in nodes:
        longer_by_one.setdefault(prefix[:-1], []).append(prefix)
    del longer_by_one[()][0]  # the empty one is not longer than itself
    after = np.zeros((len(nodes), len(words) + 1), dtype=np.int64)
    meets = np.zeros(len(nodes), dtype=np.int64)
    for prefix, node in nodes.items():
        ends = [prefix[start:] for start in range(len(prefix))]
        meets[node] = sum(1 << entry for entry, own in enumerate(include) if not set(own).isdisjoint(ends))
        # A word that does not go on with this goes on with the longest end of it that begins a phrase, too.
        after[node] = after[next((nodes[end] for end in ends[1:] if end in nodes), 0)]
        for longer in longer_by_one.get(prefix, ()):
            after[node, symbols[longer[-1]]] = nodes[longer]
    everything = (1 << len(include)) - 1
    missing = np.full((len(nodes), everything + 1), _FAR, dtype=np.int64)
    missing[:, everything] = 0
    for met in range(everything - 1, -1, -1):  # sets only grow, so those that may follow are known
        then = met | meets[after]
        while True:  # words that meet nothing lead to other nodes of the same set
            found = np.minimum(1 + missing[after, then].min(axis=1), _FAR)
            if (found == missing[:, met]).all():
                break
            missing[:, met] = found
    return Machine(np.array(words, dtype=np.int64), after, meets, missing)


class Coverage:
    """What every unfinished caption still has to say.

    Args:
        machine: of what captions must include.
        special: the ids that are no words.
        vocab_size: the width of the logits.
        rows: how many captions begin.
    """

    def __init__(self, machine: Machine, special: SpecialTokens, *, vocab_size: int, rows: int) -> None:
        self.banks = machine.least + 1  # beams of an image: one for each number of words that are missing
        self._machine = machine
        self._special = special
        self._symbols = np.zeros(vocab_size, dtype=np.int64)
        self._symbols[machine.words] = np.arange(1, len(machine.words) + 1)
        self._nodes = np.zeros(rows, dtype=np.int64)
        self._met = np.zeros(rows, dtype=np.int64)

    def hold_back_end(self, logits: FloatArray) -> FloatArray:
        """Returns a copy of the logits, (rows, vocab), in which captions with something missing may not end."""
        allowed = logits.copy()
        allowed[self._machine.missing[self._nodes, self._met] > 0, self._special.end] = -np.inf
        return allowed

    def offer(self, ranked: IntArray) -> IntArray:
        """Adds the words with which less is missing to the candidates of each row.

        Args:
            ranked: (rows, width), what the model would say.

        Returns:
            (rows, width + words): where a word does not help, or is there already, padding, which may not come out.
        """
        machine = self._machine
        nodes = machine.after[self._nodes, 1:]
        left = machine.missing[nodes, self._met[:, None] | machine.meets[nodes]]
        helps = left < machine.missing[self._nodes, self._met][:, None]
        there = (ranked[:, :, None] == machine.words).any(axis=1)
        offered = np.where(helps & ~there, machine.words, self._special.pad)
        return np.concatenate([ranked, offered], axis=1)

    def count_missing(self, rows: IntArray, tokens: IntArray) -> IntArray:
        """Returns how many words are missing at least, (candidates,), when rows go on with tokens."""
        nodes, met = self._follow(rows, tokens)
        return self._machine.missing[nodes, met]

    def extend(self, rows: IntArray, tokens: IntArray) -> None:
        """Goes on with the given rows, each with a new word."""
        self._nodes, self._met = self._follow(rows, tokens)

    def _follow(self, rows: IntArray, tokens: IntArray) -> tuple[IntArray, IntArray]:
        nodes = self._machine.after[self._nodes[rows], self._symbols[tokens]]
        return nodes, self._met[rows] | self._machine.meets[nodes]


def check_words(constraints: Constraints, special: SpecialTokens, *, vocab_size: int) -> None:
    """Raises ConfigError where the ids are no words of the decoder, or no caption could begin."""
    if not constraints.include and not constraints.exclude:
        return
    never = {special.pad, special.start, special.end, special.unknown}
    phrases = [*constraints.exclude, *(phrase for own in constraints.include for phrase in own)]
    wrong = sorted(
        {token for phrase in phrases for token in phrase if token in never or not 0 <= token < vocab_size}
    )
    if wrong:
        raise ConfigError(
            f"The words to include or exclude have the ids {wrong}, which are no words of the decoder's {vocab_size} "
            "tokens: decoder and vocabulary do not belong together."
        )
    if len({phrase for phrase in constraints.exclude if len(phrase) == 1}) == vocab_size - len(never):
        raise ConfigError(
            "decoding.exclude names every word of the model's vocabulary, so it could say nothing."
        )


def find_opening(
    machine: Machine,
    settings: DecodingSettings,
    exclude: tuple[TokenPhrase, ...],
    special: SpecialTokens,
    *,
    vocab_size: int,
) -> TokenPhrase:
    """Returns words that include everything and that nothing forbids, as few as possible.

    They can have words that no phrase has, to keep two phrases apart.

    Args:
        machine: of what captions must include.
        settings: max_steps and what may not be repeated are used.
        exclude: words and phrases that never come out.
        special: the ids that are no words.
        vocab_size: the width of the logits.

    Raises:
        ConfigError: there are no such words within `max_steps`.
    """
    if machine.least > settings.max_steps:
        raise ConfigError(
            f"What decoding.include asks for is {machine.least} words long at least, but captions have at most "
            f"decoding.max_steps = {settings.max_steps}. Include less, or raise max_steps."
        )
    never = {special.pad, special.start, special.end, special.unknown}
    symbols = {int(word): symbol for symbol, word in enumerate(machine.words, start=1)}
    ruled = {word for phrase in exclude for word in phrase}
    others = [token for token in range(vocab_size) if token not in never and token not in symbols]
    # A new word that no rule speaks of serves as well as any other; where there are too few of them, all are tried.
    neutral = [token for token in others if token not in ruled][: settings.max_steps]
    plenty = len(neutral) == settings.max_steps
    tries = 0

    def write(words: TokenPhrase, node: int, met: int, left: int) -> TokenPhrase | None:
        nonlocal tries
        if machine.missing[node, met] == 0:
            return words
        tries += 1
        if tries > _TRIES:
            return None
        between = [next(token for token in neutral if token not in words)] if plenty else others
        nexts = []
        for token in (*symbols, *between):
            reached = int(machine.after[node, symbols.get(token, 0)])
            then = met | int(machine.meets[reached])
            nexts.append((int(machine.missing[reached, then]), token, reached, then))
        for missing, token, reached, then in sorted(nexts):
            said = (*words, token)
            if missing >= left or is_banned(
                said, exclude, order=settings.no_repeat_ngram, doubles=settings.no_double_words
            ):
                continue
            if (found := write(said, reached, then, left - 1)) is not None:
                return found
        return None

    for length in range(machine.least, settings.max_steps + 1):
        if (opening := write((), 0, 0, length)) is not None:
            return opening
        if tries > _TRIES:
            break
    rules = {"max_steps": settings.max_steps, "no_repeat_ngram": settings.no_repeat_ngram}
    given = [f"{name} = {value}" for name, value in rules.items() if value]
    given += ["no_double_words"] * settings.no_double_words + ["exclude"] * bool(exclude)
    raise ConfigError(
        f"No caption was found that has everything decoding.include asks for and keeps {', '.join(given)}. "
        "Include less, or forbid less."
    )
