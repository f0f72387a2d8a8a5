"""Data: readers that return a training and a validation split, and batches that can resume."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from brickyard.train.data.archives import npz
from brickyard.train.data.base import TASKS, Data, Split, find_path, fingerprint
from brickyard.train.data.batching import (
    Batches,
    LoaderBatches,
    TensorBatches,
    batches,
    epoch_order,
    mix_seed,
)
from brickyard.train.data.builtin import breast_cancer, diabetes, digits, mnist5k
from brickyard.train.data.splitting import Plan, first_equal, split
from brickyard.train.data.user import from_user

if TYPE_CHECKING:
    from brickyard.train.data.benchmarks import abalone19, casp, page_blocks0
    from brickyard.train.data.environments import gymnasium
    from brickyard.train.data.images import image_folder
    from brickyard.train.data.slices import brain
    from brickyard.train.data.strips import digit_strips
    from brickyard.train.data.tables import csv, parquet
    from brickyard.train.data.text import kjv, text_file

__all__ = [
    "TASKS", "Batches", "Data", "LoaderBatches", "Plan", "Split", "TensorBatches", "abalone19",
    "batches", "brain", "breast_cancer", "casp", "csv", "diabetes", "digit_strips", "digits",
    "epoch_order", "find_path", "fingerprint", "first_equal", "from_user", "gymnasium",
    "image_folder", "kjv", "mix_seed", "mnist5k", "npz", "page_blocks0", "parquet", "split",
    "text_file",
]  # fmt: skip

#: Readers that are imported when they are used.
_LATER = {
    "abalone19": "benchmarks", "brain": "slices", "casp": "benchmarks", "csv": "tables",
    "digit_strips": "strips", "gymnasium": "environments", "image_folder": "images", "kjv": "text",
    "page_blocks0": "benchmarks", "parquet": "tables", "text_file": "text",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
