"""torch's own classes are the oracle: same weights, and checkpoints in both directions."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from brickyard import optim

CASES = [
    ("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "maximize": True}),
    ("Adam", {"lr": 0.01}), ("Adam", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.7, 0.9)}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "eps": 1e-3}),
    ("AdamW", {"lr": 0.01}), ("AdamW", {"lr": 0.01, "weight_decay": 0.0, "maximize": True}),
    ("AdamW", {"lr": 0.01, "amsgrad": True}),
    ("RMSprop", {"lr": 0.01}), ("RMSprop", {"lr": 0.01, "momentum": 0.9, "centered": True}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.5, "eps": 1e-2, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1}), ("Adagrad", {"lr": 0.1, "lr_decay": 0.3, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-2}),
    ("Adadelta", {}), ("Adadelta", {"lr": 0.7, "rho": 0.5, "eps": 1e-2, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.01}), ("NAdam", {"lr": 0.01, "weight_decay": 0.1, "momentum_decay": 0.1}),
    ("NAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True, "eps": 1e-3}),
    ("RAdam", {"lr": 0.01}), ("RAdam", {"lr": 0.01, "betas": (0.8, 0.6)}),
    ("RAdam", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.9)}),
    ("RAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True, "eps": 1e-2}),
    ("Adamax", {"lr": 0.01}), ("Adamax", {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1}),
    ("Adamax", {"lr": 0.1, "betas": (0.5, 0.7), "maximize": True}),
    ("Adafactor", {}), ("Adafactor", {"lr": 0.5, "weight_decay": 0.1, "d": 1.1}),
    ("Adafactor", {"beta2_decay": -0.5, "eps": (1e-6, 0.1)}),
]  # fmt: skip
NAMES = [f"{name}-{'-'.join(map(str, o))}" for name, o in CASES]


def run(optimizer: Any, params: list[torch.nn.Parameter], steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        optimizer.step()


def close(a: list[torch.nn.Parameter], b: list[torch.nn.Parameter], loose: bool = False) -> None:
    tolerance = (2e-7 if loose else 1e-10) if a[0].dtype == torch.float64 else 1e-5
    torch.testing.assert_close([p.data for p in a], [p.data for p in b],
                               rtol=tolerance, atol=tolerance)  # fmt: skip


@pytest.mark.parametrize("backend", ["eager", "foreach", "native"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_same_weights_as_torch(
    make: Any, name: str, options: Any, dtype: Any, backend: str
) -> None:
    if name == "Adafactor" and dtype == torch.float64 and "eps" not in options:
        options = {**options, "eps": (torch.finfo(torch.float64).eps, 1e-3)}
    ours, theirs = make(dtype=dtype), make(dtype=dtype)
    run(getattr(optim, name)(ours, backend=backend, **options), ours, 6, 3)
    run(getattr(torch.optim, name)(theirs, **options), theirs, 6, 3)
    close(ours, theirs, loose=name == "NAdam")  # torch multiplies its momenta in float32


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_checkpoints_continue_in_both_directions(make: Any, name: str, options: Any) -> None:
    there, back, straight = make(), make(), make()
    whole = getattr(torch.optim, name)(straight, **options)
    run(whole, straight, 3, 1)
    run(whole, straight, 3, 2)
    for params, first, second in ((there, optim, torch.optim), (back, torch.optim, optim)):
        before = getattr(first, name)(params, **options)
        run(before, params, 3, 1)
        after = getattr(second, name)(params, **({"lr": 77.0} if name != "Adafactor" else {}))
        if first is torch.optim:  # torch shares tensors with the checkpoint; ours must not
            saved = before.state_dict()
        else:
            saved = copy.deepcopy(before.state_dict())
        if second is optim and {"momentum", "amsgrad"} & set(options):
            after = getattr(second, name)(params, **options)
        after.load_state_dict(saved)
        run(after, params, 3, 2)
        close(params, straight)
