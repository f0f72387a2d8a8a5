"""Leave the fast paths of torch's transformer layers to them while functions are looked at.

In evaluation these layers run as one fused kernel, unless a function mode is on: then they take
another way, whose results differ in the last bits. So the mode is off while they run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from brickyard.doctor.observe.patches import Patches

_KINDS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


class FastPaths:
    """Patch the layers that have a fast path, while a mode is on torch's stack."""

    def __init__(self, lift: Callable[[], Any], put_back: Callable[[Any], None]) -> None:
        self._lift, self._put_back = lift, put_back
        self._patches = Patches()

    def begin(self) -> None:
        """Patch the layers."""
        for kind in _KINDS:
            self._patches.replace(kind, "forward", self._patched)

    def end(self) -> None:
        """Put back what was patched."""
        self._patches.undo()

    def _patched(self, original: Any) -> Any:
        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            mode = None if module.training else self._lift()
            try:
                return original(module, *args, **kwargs)
            finally:
                self._put_back(mode)

        return forward
