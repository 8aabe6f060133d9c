"""Captions and scores of dev while a run trains, which decide which of its checkpoints is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from showtell.captioning import caption_feature_batches
from showtell.data.records import CaptionedImage, Dataset
from showtell.decoding.settings import DecodingSettings
from showtell.metrics import score
from showtell.recipes import Recipe
from showtell.training.model import TorchBackend
from showtell.training.processes import Processes
from showtell.training.sources import ImageSource
from showtell.training.watcher import Watcher


class Validation:
    """The dev images, divided among the processes of a run.

    Args:
        recipe: says how many of them are used, and how they are searched.
        dataset: with images in "dev".
        processes: of the run.
        watcher: is told how it goes.

    Raises:
        SplitError: the data set has no image in "dev".
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, processes: Processes, watcher: Watcher) -> None:
        dev = dataset.split("dev")
        self.images: Sequence[CaptionedImage] = dev.images[: recipe.training.dev_images or None]
        self.own = replace(dev, images=tuple(processes.share(self.images)))  # of this process
        self._settings = _plain(recipe)
        self._processes, self._watcher = processes, watcher

    def score(self, backend: TorchBackend, source: ImageSource) -> dict[str, float]:
        """Captions them and returns the scores, the same in all processes.

        Args:
            backend: in evaluation mode.
            source: of the images in `own`.
        """
        self._watcher.stage("dev captions", len(self.own.images), "images")
        own: dict[str, str] = {}
        captions = caption_feature_batches(backend, source.feature_batches(), self._settings)
        for image, found in zip(self.own.images, captions, strict=True):
            own[image.id] = found[0].text
            self._watcher.advance(1)
        everyone = {key: text for part in self._processes.gather(own) for key, text in part.items()}
        references = {image.id: image.captions for image in self.images}
        hypotheses = {key: everyone[key] for key in references}
        return self._processes.first(lambda: score(references, hypotheses).corpus)

    def describe(self) -> dict[str, float]:
        """Returns what the scores are of, to be kept beside them."""
        return {"images": len(self.images), "beam": self._settings.beam, "consensus": 0.0}


def _plain(recipe: Recipe) -> DecodingSettings:
    """Returns the recipe's search without what the network does not say by itself."""
    plain = replace(recipe.decoding, count=1, consensus=0.0, include=())
    return replace(plain, method="beam", beam=recipe.training.dev_beam)
