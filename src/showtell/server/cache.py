"""Captions that were written before, by the digest of the image and what was asked; the least used leave first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from showtell.captioning import Caption
from showtell.decoding import DecodingSettings

Key = tuple[bytes, DecodingSettings]  # SHA-256 of the image's file, and how captions were searched for
_ENTRY = 700  # bytes of the key, the settings and the bookkeeping, measured
_CAPTION = 400  # bytes of a caption beyond its text, numbers and attention


class CaptionCache:
    """A cache with a limit in bytes. It may be used by several threads at once.

    Args:
        limit: bytes; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0  # bytes that are kept
        self._entries: OrderedDict[Key, tuple[tuple[Caption, ...], int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> tuple[Caption, ...] | None:
        """Returns the captions that are kept, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Key, captions: Sequence[Caption]) -> None:
        """Keeps captions; what was used least recently makes room. What is larger than the limit is not kept."""
        size = _ENTRY + sum(_measure(caption) for caption in captions)
        if size > self.limit:
            return
        with self._lock:
            before = self._entries.pop(key, None)
            self.size += size - (before[1] if before else 0)
            self._entries[key] = (tuple(captions), size)
            while self.size > self.limit:
                _, (_, dropped) = self._entries.popitem(last=False)
                self.size -= dropped


def _measure(caption: Caption) -> int:
    numbers = len(caption.word_log_probs) + len(caption.word_confidences or ())
    attention = 0 if caption.attention is None else caption.attention.nbytes
    return _CAPTION + 2 * len(caption.text) + 32 * numbers + attention
