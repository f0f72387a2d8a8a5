"""Write golden.json: ten steps of every optimizer with its defaults. Run it after a wanted change.

    python tests/reference/make_golden.py

The problem is made of sines, so that no random stream can change it; arithmetic is float64 on the
reference backend. CMA-ES is left out: its path belongs to another package and its version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from brickyard import optim

FILE = Path(__file__).with_name("golden.json")
STEPS = 10
NAMES = (
    "SGD", "NAG", "RMSprop", "Adagrad", "Adadelta", "Adam", "AdamW", "AMSGrad", "Adamax", "NAdam",
    "RAdam", "Ranger", "Yogi", "AdaBound", "Lion", "LAMB", "LARS", "Adafactor", "Muon", "SophiaG",
    "SophiaH", "LBFGS", "Lookahead",
)  # fmt: skip
#: Where the defaults are not the whole method.
BUILD: dict[str, Callable[[Any], Any]] = {
    "LBFGS": lambda p: optim.LBFGS(p, max_iter=1),
    "Lookahead": lambda p: optim.Lookahead(optim.SGD(p, lr=0.1)),
}


def waves(*shape: int, start: float = 0.0) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + start).reshape(shape)


def trajectory(name: str) -> list[list[float]]:
    """Return the weights after each of the steps, as one list of numbers per step."""
    w, b = torch.nn.Parameter(waves(3, 4)), torch.nn.Parameter(waves(4, start=0.5))
    x, y = waves(6, 3, start=0.3), waves(6, 4, start=2.0)
    if name in BUILD:
        optimizer = BUILD[name]([w, b])
    else:
        optimizer = getattr(optim, name)([w, b], backend="eager")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = ((x @ w + b - y) ** 2).mean()
        loss.backward()
        return loss

    path = []
    for _ in range(STEPS):
        if getattr(optimizer, "hessian_due", False):
            optimizer.record_hessian([waves(3, 4, start=1.0) ** 2, waves(4, start=1.0) ** 2])
        optimizer.step(closure)
        path.append([*w.detach().flatten().tolist(), *b.detach().tolist()])
    return path


if __name__ == "__main__":
    lines = [f'  "{name}": {json.dumps(trajectory(name))}' for name in sorted(NAMES)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
