"""Decoders: attentions, recurrent cells, and the classic captioners, each one `step`."""

from showtell.decoders.base import CaptionBatch, Decoder, Taught, select
from showtell.decoders.registry import check_decoder, create_decoder, list_decoders
from showtell.decoders.torch_stepper import TorchStepper

__all__ = [
    "CaptionBatch",
    "Decoder",
    "Taught",
    "TorchStepper",
    "check_decoder",
    "create_decoder",
    "list_decoders",
    "select",
]
