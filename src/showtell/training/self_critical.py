"""Self-critical sequence training: the decoder is rewarded for the CIDEr of the captions that it samples itself.

Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning". For each image some captions are sampled;
the log-probability of each is raised or lowered by its reward less a baseline. The baseline is the reward of the greedy
caption (section 3.2), or the mean reward of the image's other samples (Luo 2020, "A Better Variant of Self-Critical
Sequence Training"), which costs no further decoding and varies less.

Sampling is the search that captions are made with everywhere (`showtell.decoding`), without gradients and in
evaluation mode. One pass over the samples with teacher forcing, in the same mode, then gives their log-probabilities
with gradients: all words of all samples at once where the decoder allows it, and no graph over the sampling.

References and samples both end with a token of their own when they are rewarded. Without it nothing tells a finished
sentence from one that stops after "a dog in a", and CIDEr soon teaches the decoder to stop there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout

from showtell.captioning import Features
from showtell.config import SelfCriticalConfig
from showtell.data.records import Dataset
from showtell.decoders import CaptionBatch
from showtell.decoding import DecodingSettings, Hypothesis, decode
from showtell.metrics import ReferenceIndex
from showtell.text import SPECIAL, Vocabulary
from showtell.training.batches import EncodedCaption, collate
from showtell.training.model import CaptionModel, TorchBackend
from showtell.training.teacher_forcing import StepLoss

_END = (
    "."  # ends captions where they are rewarded; the tokeniser drops full stops, so no caption has it inside
)


class SelfCritic:
    """Samples captions of a batch of images and says how the decoder should change for them.

    Args:
        dataset: the training split: references, and where CIDEr takes the rarity of n-grams from.
        vocabulary: of the decoder.
        config: of the recipe.
        max_steps: the longest caption.
    """

    def __init__(
        self, dataset: Dataset, vocabulary: Vocabulary, config: SelfCriticalConfig, *, max_steps: int
    ) -> None:
        self._ids = [image.id for image in dataset.images]
        # Images without captions are never in a batch.
        references = {image.id: image.captions for image in dataset.images if image.captions}
        self._index = ReferenceIndex(references, end=_END)
        self._vocabulary = vocabulary
        self._config = config
        self._sampling = DecodingSettings(method="sample", count=config.samples, max_steps=max_steps)

    def compute_loss(
        self, model: CaptionModel, backend: TorchBackend, inputs: Tensor, images: Sequence[int], *, seed: int
    ) -> StepLoss:
        """Samples, rewards, and returns what is to be minimised: its gradient is the policy gradient.

        The log shows the negative mean reward of the samples.

        Args:
            model: the decoder, and the encoder where it is trained. It is put into evaluation mode.
            backend: of the same decoder.
            inputs: what the model is fed with, one entry per image.
            images: their indices in the training split.
            seed: of the samples.
        """
        model.eval()
        features = drop_channels(model.encode(inputs), self._config.feature_dropout)
        plain: Features = features.detach().float().cpu().numpy()
        sampled = decode(backend.bind(plain), replace(self._sampling, seed=seed), SPECIAL, image_seeds=images)
        rewards = self._reward(images, sampled)  # (images, samples)
        if self._config.baseline == "greedy":
            greedy = DecodingSettings(method="greedy", max_steps=self._sampling.max_steps)
            baseline = self._reward(images, decode(backend.bind(plain), greedy, SPECIAL))
        else:
            others = rewards.shape[1] - 1
            baseline = (rewards.sum(axis=1, keepdims=True) - rewards) / others
        batch, advantages = _collate(sampled, rewards - baseline)
        batch, advantages = batch.to(inputs.device), advantages.to(inputs.device)
        for module in model.decoder.modules():
            # cuDNN gives gradients of recurrent layers in training mode alone; with one layer it is the same there.
            if isinstance(module, nn.RNNBase) or (self._config.dropout and isinstance(module, nn.Dropout)):
                module.train()
        losses = self._negative_log_probs(model.decoder(features, batch).logits, batch)
        weights = batch.pack(advantages[:, None].expand(-1, batch.inputs.shape[1]))
        loss = (losses * weights).mean()
        return StepLoss(
            loss, loss.new_tensor(-rewards.mean()), len(images), rewards.size, unscaled=len(losses)
        )

    def _reward(
        self, images: Sequence[int], found: Sequence[Sequence[Hypothesis]]
    ) -> np.ndarray[tuple[int, int]]:
        """Returns (images, captions): CIDEr, and BLEU-4 as the recipe weighs it, of each caption."""
        owners = [self._ids[image] for image, captions in zip(images, found) for _ in captions]
        tokens = [
            [*map(self._vocabulary.word, caption.tokens), *([_END] if caption.finished else [])]
            for captions in found
            for caption in captions
        ]
        metrics = ["CIDEr", "Bleu"] if self._config.bleu else ["CIDEr"]
        scores = self._index.score(owners, tokens, metrics=metrics).per_hypothesis
        rewards = scores["CIDEr"]
        if self._config.bleu:
            rewards = rewards + self._config.bleu * scores["Bleu_4"]
        return rewards.reshape(len(images), -1)

    def _negative_log_probs(self, logits: Tensor, batch: CaptionBatch) -> Tensor:
        """Returns (tokens,), under the distribution that the samples came from: without what never comes out."""
        forbidden = torch.zeros_like(logits, dtype=torch.bool)
        forbidden[:, [SPECIAL.pad, SPECIAL.start, SPECIAL.unknown]] = True
        forbidden[: len(batch.lengths), SPECIAL.end] = True  # packed order: the first words come first
        allowed = logits.float().masked_fill(forbidden, -torch.inf)
        return cross_entropy(allowed, batch.pack(batch.targets), reduction="none")


def drop_channels(features: Tensor, share: float) -> Tensor:
    """Returns features of which each picture lacks a share of the channels in all cells, the others scaled up.

    Args:
        features: (images, cells, channels) or (images, channels).
        share: of the channels, 0 to 1.
    """
    mask = features.new_ones((len(features), *[1] * (features.ndim - 2), features.shape[-1]))
    return features * dropout(mask, share)


def _collate(
    sampled: Sequence[Sequence[Hypothesis]], advantages: np.ndarray[tuple[int, int]]
) -> tuple[CaptionBatch, Tensor]:
    """Returns the samples as a batch, and the advantage of each in the batch's order, (captions,)."""
    captions, values = [], []
    for place, hypotheses in enumerate(sampled):
        for hypothesis, advantage in zip(hypotheses, advantages[place], strict=True):
            words = hypothesis.tokens
            targets = (*words, SPECIAL.end) if hypothesis.finished else words
            captions.append(EncodedCaption(place, (SPECIAL.start, *targets[:-1]), targets))
            values.append(advantage)
    order = sorted(range(len(captions)), key=lambda number: -len(captions[number].targets))
    _, batch = collate([captions[number] for number in order])  # keeps the order, which is longest first
    return batch, torch.tensor([values[number] for number in order], dtype=torch.float32)
