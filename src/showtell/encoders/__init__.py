"""Encoders: timm backbones that turn pictures into feature vectors, and the cache of these on disk."""

from __future__ import annotations

from showtell.encoders.backbone import Encoder
from showtell.encoders.cache import FeatureCache
from showtell.encoders.features import ExtractionReport, extract_features, fingerprint_features
from showtell.encoders.fusion import FusedEncoder, build_encoder, list_caches, restore_encoder
from showtell.encoders.precision import default_precision
from showtell.encoders.save import write_weights
from showtell.encoders.weights import WeightsSource, find_weights

__all__ = [
    "Encoder",
    "ExtractionReport",
    "FeatureCache",
    "FusedEncoder",
    "WeightsSource",
    "build_encoder",
    "default_precision",
    "extract_features",
    "find_weights",
    "fingerprint_features",
    "list_caches",
    "restore_encoder",
    "write_weights",
]
