"""Clip gradients: bounds that never poison what they bound."""

from brickyard.clip.bounds import (
    adaptive_clip,
    clip_by_global_norm,
    clip_by_layer_norm,
    clip_by_value,
)
from brickyard.clip.norms import joint_norm

__all__ = [
    "adaptive_clip", "clip_by_global_norm", "clip_by_layer_norm", "clip_by_value", "joint_norm",
]  # fmt: skip
