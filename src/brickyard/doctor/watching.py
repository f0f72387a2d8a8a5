"""Watch a block of code: ``with watch() as doctor:``; for notebooks and one's own loops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from brickyard.doctor.finding import Report
from brickyard.doctor.session import Session

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def watch(
    model: nn.Module | None = None, *, steps: int | None = None, ignore: Iterable[str] = ()
) -> Iterator[Session]:
    """Watch what trains inside the block; hooks and patches are gone after it.

    Args:
        model: described before it is first called, under the name ``model``; None: models are
            met when they are called.
        steps: stop watching after so many optimizer steps; None watches to the end.
        ignore: names of checks whose findings are left out.

    Raises:
        ValueError: a number of steps below 1, or a name that no check has.
        TypeError: a model that is no module.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> x, y = torch.randn(8, 3), torch.randn(8, 1)
        >>> with watch() as doctor:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         torch.nn.functional.mse_loss(model(x), y).backward()
        ...         optimizer.step()
        >>> doctor.report().steps
        3
    """
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be 1 or more, or None for all; got {steps}")
    if model is not None and not hasattr(model, "named_modules"):
        raise TypeError(f"model must be a torch.nn.Module or None; got {type(model).__name__}")
    session = Session(steps=steps, ignore=[ignore] if isinstance(ignore, str) else ignore)
    session.open()
    failed = True
    try:
        if model is not None and session.watcher is not None:
            session.watcher.introduce(model)
        yield session
        failed = False
    finally:
        session.close(finished=not failed)


__all__ = ["Report", "watch"]
