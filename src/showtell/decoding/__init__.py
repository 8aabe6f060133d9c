"""Searching for captions: greedy, beam and sampling, written once over `Stepper`, batched, in NumPy."""

from __future__ import annotations

from showtell.decoding.ensemble import EnsembleStepper, Voice
from showtell.decoding.hypothesis import Hypothesis
from showtell.decoding.rows import BlockStepper
from showtell.decoding.search import decode
from showtell.decoding.settings import METHODS, DecodingSettings
from showtell.decoding.stepper import FloatArray, IntArray, Stepper, StepResult
from showtell.text.vocabulary import SpecialTokens

__all__ = [
    "METHODS",
    "BlockStepper",
    "DecodingSettings",
    "EnsembleStepper",
    "FloatArray",
    "Hypothesis",
    "IntArray",
    "SpecialTokens",
    "StepResult",
    "Stepper",
    "Voice",
    "decode",
]
