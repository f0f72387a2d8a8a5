from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "reference"))  # transcriptions of the papers


@pytest.fixture(scope="session", autouse=True)
def _kernels(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Build kernels once per session, outside of the user's cache; workers share them."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    os.environ.setdefault("BRICKYARD_CACHE", str(folder / "kernels"))


@pytest.fixture
def make() -> Callable[..., list[torch.nn.Parameter]]:
    """Return a function that makes parameters with gradients from a seed."""

    def build(shapes: Sequence[tuple[int, ...]] = ((4, 3), (5,), (2, 3, 4), ()), seed: int = 0,
              dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]

    return build
