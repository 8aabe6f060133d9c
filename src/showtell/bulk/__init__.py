"""Many images: as one stream through a captioner, or as numbered shards through many captioners on Ray.

Only what needs no extra is imported here; Ray, pyarrow and fsspec come with `showtell.bulk.run`.
"""

from __future__ import annotations

from showtell.bulk.stream import caption_items

__all__ = ["caption_items"]
