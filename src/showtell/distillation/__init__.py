"""A small encoder of one's own, from random weights: it learns to see what a trained captioner's encoder sees."""

from showtell.distillation.distill import DistillationResult, distill
from showtell.distillation.settings import DistillationSettings

__all__ = ["DistillationResult", "DistillationSettings", "distill"]
