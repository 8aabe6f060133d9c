"""Captioned images: one record type, readers for every usual layout, splits by image, and the doctor."""

from __future__ import annotations

from showtell.data.doctor import check
from showtell.data.duplicates import find_duplicates
from showtell.data.records import SPLITS, CaptionedImage, Dataset, Problem
from showtell.data.report import Report
from showtell.data.source import READERS, Reader, guess_format, join_datasets, read_dataset
from showtell.data.splits import (
    UNSPLIT_CHOICES,
    SavedSplits,
    apply_splits,
    assign_splits,
    draw_images,
    load_splits,
    resolve_splits,
    save_splits,
)

__all__ = [
    "READERS",
    "SPLITS",
    "UNSPLIT_CHOICES",
    "CaptionedImage",
    "Dataset",
    "Problem",
    "Reader",
    "Report",
    "SavedSplits",
    "apply_splits",
    "assign_splits",
    "check",
    "draw_images",
    "find_duplicates",
    "guess_format",
    "join_datasets",
    "load_splits",
    "read_dataset",
    "resolve_splits",
    "save_splits",
]
