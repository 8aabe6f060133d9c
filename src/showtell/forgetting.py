"""What a captioner that was fine-tuned has forgotten of the data that it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showtell.captioner import Captioner
from showtell.data.records import Dataset
from showtell.metrics import Difference, Scores, compare_paired


@dataclass(frozen=True)
class Forgetting:
    """Both captioners on the same pictures, each with its own search."""

    images: int
    before: dict[str, float]  # scores, by key
    after: dict[str, float]
    differences: dict[str, Difference]  # after less before: negative is forgotten

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-serialisable values."""
        differences = {key: one.to_dict() for key, one in self.differences.items()}
        return {
            "images": self.images,
            "before": self.before,
            "after": self.after,
            "differences": differences,
        }


def measure_forgetting(
    before: Path,
    after: Path,
    dataset: Dataset,
    *,
    split: str = "dev",
    progress: Callable[[int, int], object] | None = None,
) -> Forgetting:
    """Captions one split with both and compares the scores.

    Args:
        before: the captioner that the fine-tuning started from.
        after: what came of it.
        dataset: that the first one was good at.
        split: of it.
        progress: called with (done, total) after each image that one of both has captioned; the total is of both.

    Raises:
        SplitError: no image has this split.
        ShowtellError: a captioner cannot be opened or an image cannot be read.
    """
    images = len(dataset.split(split).images)

    def score(model: Path, done_before: int) -> Scores:
        def show(done: int, _total: int) -> None:
            if progress is not None:
                progress(done_before + done, 2 * images)

        return Captioner.load(model).evaluate(dataset, split=split, resamples=0, progress=show).scored

    old, new = score(before, 0), score(after, images)
    return Forgetting(len(new.per_image), old.corpus, new.corpus, compare_paired(new, old))
