"""State is the least that each method can do with, measured from the tensors that are kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optimizer_cases import CASES

from brickyard import optim
from brickyard.catalog import shelf

SIDE = 64
#: Numbers kept per parameter of a SIDE x SIDE matrix with the defaults, counted in the papers'
#: algorithms: one per moment, velocity, accumulator or slow weight.
NUMBERS: dict[str, float] = {
    "sgd": 0, "nag": 1, "lars": 1, "lion": 1, "muon": 1, "adagrad": 1, "rmsprop": 1, "adadelta": 2,
    "adam": 2, "adamw": 2, "adamax": 2, "nadam": 2, "radam": 2, "yogi": 2, "adabound": 2, "lamb": 2,
    "sophia_g": 2, "sophia_h": 2, "amsgrad": 3, "ranger": 3,
    "adafactor": 2 / SIDE,  # a row and a column of means
    "lookahead": 1,  # slow weights, beside the inner optimizer's (here plain SGD's: none)
}  # fmt: skip
#: L-BFGS keeps up to history_size pairs; CMA-ES a covariance of all parameters.
WITHOUT_FIGURE = {"lbfgs", "cma_es"}
GROWS: list[tuple[str, dict[str, Any], float]] = [
    ("SGD", {"momentum": 0.9}, 1), ("SGD", {"momentum": 0.9, "velocity": "classic"}, 1),
    ("RMSprop", {"centered": True}, 2), ("RMSprop", {"momentum": 0.9}, 2),
    ("RMSprop", {"momentum": 0.9, "centered": True}, 3), ("Adam", {"amsgrad": True}, 3),
    ("AdamW", {"amsgrad": True}, 3), ("AdaBound", {"amsbound": True}, 3),
    ("LARS", {"momentum": 0}, 0), ("Adafactor", {"momentum": 0.9}, 1 + 2 / SIDE),
    ("AdamW", {"weight_decay": 0.0}, 2), ("Muon", {"use_muon": False}, 2),
]  # fmt: skip


def kept(optimizer: Any, w: torch.nn.Parameter) -> float:
    """Take two steps; return the bytes of the tensors in the optimizer's state per parameter."""
    for _ in range(2):
        w.grad = torch.ones_like(w)
        if getattr(optimizer, "hessian_due", False):
            optimizer.record_hessian([torch.ones_like(w)])
        optimizer.step(lambda: 0.0)
    rows = [*optimizer.state[w].values(), *getattr(optimizer, "slow", {}).values()]
    tensors = [v for v in rows if v.ndim]
    return sum(v.numel() * v.element_size() for v in tensors) / w.numel()


def matrix(dtype: torch.dtype = torch.float32) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(SIDE, SIDE, dtype=dtype))


def build(key: str, w: torch.nn.Parameter, **options: Any) -> Any:
    if key == "lookahead":
        return optim.Lookahead(optim.SGD([w], lr=0.1))
    kind: Any = next(c for c in shelf("optimizer") if c.key == key).load()
    return kind([w], **options)


def test_every_optimizer_of_the_shelf_has_a_figure() -> None:
    assert {card.key for card in shelf("optimizer")} == {*NUMBERS, *WITHOUT_FIGURE}
    assert set(CASES) <= {card.load().__name__ for card in shelf("optimizer")}


@pytest.mark.parametrize("key", NUMBERS)
def test_state_is_as_small_as_the_method_allows(key: str) -> None:
    w = matrix()
    assert kept(build(key, w), w) == 4 * NUMBERS[key]


@pytest.mark.parametrize("key", [key for key in NUMBERS if key != "lookahead"])
def test_half_precision_halves_it_and_master_weights_add_four_bytes(key: str) -> None:
    w = matrix(torch.bfloat16)
    assert kept(build(key, w), w) == 2 * NUMBERS[key]
    w = matrix(torch.bfloat16)
    assert kept(build(key, w, master_weights=True), w) == 4 * NUMBERS[key] + 4
    w = matrix()
    assert kept(build(key, w, state_dtype=torch.bfloat16), w) == 2 * NUMBERS[key]


@pytest.mark.parametrize(("name", "options", "numbers"), GROWS)
def test_it_grows_only_with_options_that_need_it(
    name: str, options: dict[str, Any], numbers: float
) -> None:
    w = matrix()
    kind: Any = getattr(optim, name)
    assert kept(kind([w], **options), w) == 4 * numbers


def test_numbers_that_all_parameters_share_are_kept_once() -> None:
    params = [matrix() for _ in range(3)]
    optimizer = optim.NAdam(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    for name in ("step", "mu_product"):
        assert len({optimizer.state[p][name].data_ptr() for p in params}) == 1
