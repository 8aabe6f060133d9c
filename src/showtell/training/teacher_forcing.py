"""Teacher forcing: the loss of the next word, given those before it in the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from showtell.config import TrainingConfig
from showtell.decoders import CaptionBatch, Decoder, select
from showtell.decoders.base import Memory
from showtell.errors import ConfigError
from showtell.text import SPECIAL
from showtell.training.accumulation import Share
from showtell.training.model import CaptionModel


@dataclass(frozen=True)
class StepLoss:
    """What one step of an objective gives."""

    loss: Tensor  # () to be minimised
    shown: Tensor  # () what the log shows, without a gradient
    counted: int  # what `shown` is a mean over: tokens, or images
    captions: int  # how many were learnt from
    unscaled: int = 0  # what `loss` is a mean over, where that is known of one process's part alone


class TeacherForcing:
    """The cross-entropy of the real tokens, and what a recipe adds to it.

    Args:
        config: `label_smoothing`, `doubly_stochastic`, `word_dropout` and `scheduled_sampling`.
        decoder: that is trained.
        steps: of all epochs with teacher forcing.
    """

    def __init__(self, config: TrainingConfig, decoder: Decoder, *, steps: int) -> None:
        if config.doubly_stochastic and not decoder.attends:
            raise ConfigError(
                "training.doubly_stochastic asks for attention, which this decoder has not. Set it to 0, or choose a "
                "decoder that attends."
            )
        self._config = config
        self._steps = steps

    def compute_loss(
        self,
        model: CaptionModel,
        inputs: Tensor,
        batch: CaptionBatch,
        *,
        step: int,
        bf16: bool,
        share: Share | None = None,
    ) -> StepLoss:
        """Returns the loss of one batch.

        Args:
            model: in training mode.
            inputs: features, or pixels where the encoder is trained.
            batch: the captions.
            step: of the run, from 0.
            bf16: whether to compute in bf16 where torch thinks it safe.
            share: of the batch in its step, where that has several; the losses of these add up to the mean of the step.
        """
        config = self._config
        targets = batch.pack(batch.targets)  # (tokens)
        share = share or Share(len(targets), len(batch.lengths))
        # Blocks of their own: within one, what is computed without gradients would lend its weights in bf16, which
        # have none either, to what follows.
        cast = partial(torch.autocast, inputs.device.type, torch.bfloat16, enabled=bf16)
        with cast():
            features = model.encode(inputs)
        sampled = config.scheduled_sampling * min(1.0, step / self._steps)
        if sampled:
            with cast():
                batch = replace_by_samples(model.decoder, features, batch, sampled)
        if config.word_dropout:
            batch = drop_words(batch, config.word_dropout)
        with cast():
            taught = model.decoder(features, batch)
        loss = cross_entropy(taught.logits.float(), targets, label_smoothing=config.label_smoothing)
        shown = loss.detach()
        loss = loss * (len(targets) / share.tokens)
        if config.doubly_stochastic:
            weight = config.doubly_stochastic * len(batch.lengths) / share.captions
            loss = loss + weight * compute_neglect(taught.attention, batch)
        return StepLoss(loss, shown, len(targets), len(batch.lengths))


def drop_words(batch: CaptionBatch, share: float) -> CaptionBatch:
    """Returns the batch with a share of the input words unknown (Bowman et al. 2016, section 3.3).

    The decoder must then find out from the picture what it cannot read from the words before. The start token stays.
    """
    dropped = torch.rand(batch.inputs.shape, device=batch.inputs.device) < share
    dropped[:, 0] = False
    return replace(batch, inputs=batch.inputs.masked_fill(dropped, SPECIAL.unknown))


@torch.no_grad()
def replace_by_samples(decoder: Decoder, features: Tensor, batch: CaptionBatch, share: float) -> CaptionBatch:
    """Returns the batch with a share of its input words replaced by what the decoder itself would have said there.

    Scheduled sampling (Bengio et al. 2015), exactly: word after word, each sampled after those that are already
    replaced. As in the paper there is no gradient through the choice, so the choosing is a pass of its own, and the
    pass with gradients stays the fast one.
    """
    memory: Memory = select(decoder.project(features), batch.owners)
    state = decoder.start(memory)
    mixed = batch.inputs.clone()
    counts = batch.counts()
    never = torch.tensor([SPECIAL.pad, SPECIAL.start, SPECIAL.unknown, SPECIAL.end], device=mixed.device)
    for step, count in enumerate(counts[:-1]):
        if count < len(memory[0]):
            memory, state = (tuple(part[:count] for part in parts) for parts in (memory, state))
        outputs, state, _ = decoder.step(mixed[:count, step], state, memory)
        following = counts[step + 1]  # captions that have a next input
        rows = torch.nonzero(torch.rand(following, device=mixed.device) < share).flatten()
        if len(rows):
            logits = decoder.logits(outputs[rows]).float().index_fill(1, never, -torch.inf)
            mixed[rows, step + 1] = torch.multinomial(torch.softmax(logits, dim=1), 1).flatten()
    return replace(batch, inputs=mixed)


def compute_neglect(attention: Tensor | None, batch: CaptionBatch) -> Tensor:
    """Returns how far the looks at each cell are from one in all: () mean of (1 - sum over the words) squared.

    The doubly stochastic regularisation of Xu et al. 2015, section 4.2.1 (equation 14), as a mean instead of a sum, as
    the loss of the words is one: attention sums to one over the
    cells at each word, and should do so for each cell over the words, so that no part of the picture is left out.

    Args:
        attention: (tokens, cells) in packed order.
        batch: the captions.
    """
    assert attention is not None  # checked when the objective was made
    places = torch.arange(len(batch.lengths), device=attention.device)
    owners = batch.pack(places[:, None].expand(-1, batch.inputs.shape[1]))  # (tokens) the caption of each row
    looks = attention.new_zeros(len(batch.lengths), attention.shape[1]).index_add(0, owners, attention)
    return ((1 - looks) ** 2).mean()
