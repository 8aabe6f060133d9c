"""The names of the rivals that need `transformers`, for those who only want the names."""

from __future__ import annotations

TRANSFORMERS = ("blip-base", "vit-gpt2")
