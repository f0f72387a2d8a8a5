"""Watch a block of code: ``with watch() as doctor:``; for notebooks and one's own loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from brickyard.doctor.finding import Report
from brickyard.doctor.session import Session


@contextmanager
def watch(*, steps: int | None = None) -> Iterator[Session]:
    """Watch what trains inside the block; hooks and patches are gone after it.

    Args:
        steps: stop watching after so many optimizer steps; None watches to the end.

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
    session = Session(steps=steps)
    session.open()
    try:
        yield session
    finally:
        session.close()


__all__ = ["Report", "watch"]
