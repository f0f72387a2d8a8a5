"""What tests of resumed runs share: a stop at a step, and whether two runs are the same."""

import json
from pathlib import Path
from typing import Any

import torch

from brickyard.train.checkpoint import Checkpoints
from brickyard.train.progress import ProgressLines

__all__ = ["StopAt", "read_rows", "same", "same_runs"]


class StopAt(ProgressLines):
    """Ask for a stop once a step is reached."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def boundary(self, loop: Any) -> None:
        if loop.state.step >= self.step:
            loop.stop_requested = True


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def same(a: Any, b: Any) -> bool:
    """Say whether two states are the same, bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def same_runs(one: Path, other: Path) -> None:
    """Fail where two runs differ in a row, or in a checkpoint beside the seconds it took.

    Args:
        one: a run's folder.
        other: that of a run which was stopped on the way; older checkpoints may differ.
    """
    assert read_rows(one) == read_rows(other)
    known = [set(Checkpoints(p / "checkpoints").entries()) for p in (one, other)]
    for role in sorted(known[0] - {"previous"}):
        assert role in known[1]
        a, b = (Checkpoints(p / "checkpoints").load(role) for p in (one, other))
        for state in (a, b):
            state.get("state", {}).pop("seconds", None)
        assert same(a, b), role
