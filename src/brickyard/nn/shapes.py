"""Sizes that reference networks hand to the layers they make, and what all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

__all__ = ["HEAD_STD", "channels_of", "features_of", "real", "size_of", "sizes_of", "start_head"]

#: Spread of the output layer's weights: small, so that training starts near even odds
#: (cross-entropy ln K for K classes) whatever the layers below put out.
HEAD_STD = 0.01


def features_of(width: int) -> dict[str, Any]:
    """Return the sizes that layers on ``(N, width)`` may ask for."""
    names = ("num_features", "num_channels", "normalized_shape", "dim", "in_features")
    return dict.fromkeys((*names, "out_features"), width)


def channels_of(channels: int, size: Sequence[int]) -> dict[str, Any]:
    """Return the sizes that layers on ``(N, channels, *size)`` may ask for."""
    return {
        "num_features": channels,
        "num_channels": channels,
        "normalized_shape": (channels, *size),
    }


def real(*layers: nn.Module) -> list[nn.Module]:
    """Return the layers that do something."""
    return [layer for layer in layers if not isinstance(layer, nn.Identity)]


def start_head(head: nn.Linear | nn.Conv2d) -> None:
    """Start an output layer near even odds."""
    nn.init.normal_(head.weight, std=HEAD_STD)
    if head.bias is not None:
        nn.init.zeros_(head.bias)


def sizes_of(name: str, values: Sequence[int], least: int = 1) -> list[int]:
    """Return whole numbers of at least ``least``; refuse others by name."""
    values = list(values)
    if not values:
        raise ValueError(f"{name} must have at least one entry, got []")
    return [size_of(name, value, least) for value in values]


def size_of(name: str, value: int, least: int = 1) -> int:
    """Return a whole number of at least ``least``; refuse others by name."""
    if isinstance(value, bool) or value != int(value) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)
