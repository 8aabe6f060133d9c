"""Searching for captions: greedy, beam (with words that must come) and sampling, once over `Stepper`, in NumPy."""

from __future__ import annotations

from showtell.decoding.ensemble import EnsembleStepper, Voice
from showtell.decoding.forced import Judgement, judge_captions
from showtell.decoding.hypothesis import Hypothesis
from showtell.decoding.phrases import Constraints
from showtell.decoding.rollout import Watch
from showtell.decoding.rows import BlockStepper
from showtell.decoding.search import decode
from showtell.decoding.settings import METHODS, DecodingSettings
from showtell.decoding.stepper import FloatArray, IntArray, Stepper, StepResult
from showtell.text.vocabulary import SpecialTokens

__all__ = [
    "METHODS",
    "BlockStepper",
    "Constraints",
    "DecodingSettings",
    "EnsembleStepper",
    "FloatArray",
    "Hypothesis",
    "IntArray",
    "Judgement",
    "SpecialTokens",
    "StepResult",
    "Stepper",
    "Voice",
    "Watch",
    "decode",
    "judge_captions",
]
