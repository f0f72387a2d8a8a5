"""CMA-ES saved and restored in the middle of a search: the same asks from then on."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from brickyard import optim
from brickyard.optim import StateError

pytest.importorskip("cma")
SETTINGS: list[dict[str, Any]] = [
    {}, {"popsize": 9, "box": (-4.0, [4.0, 4.0, 0.9])}, {"options": {"CMA_diagonal": True}},
    {"options": {"CMA_elitist": True}}, {"seed": 3},
]  # fmt: skip


def losses(candidates: torch.Tensor) -> torch.Tensor:
    return ((candidates - 0.3) ** 2 * torch.tensor([1.0, 10.0, 100.0])).sum(1)


def search(start: float = 0.5, **options: Any) -> Any:
    return optim.CMAES(torch.full((3,), start), sigma=1.0, **options)


def through_file(saved: Any) -> Any:
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize("generations", [0, 1, 20])
def test_the_same_asks_from_then_on(options: dict[str, Any], generations: int) -> None:
    first = search(**options)
    for k in range(generations):
        found = first.ask()
        if k == 3:
            found = 0.9 * first.ask()  # asked twice, told something else
        told = losses(found)
        if k == 5:
            told[2] = float("nan")
        first.tell(found, told)
    if generations == 20:
        first.ask()  # and interrupted between ask and tell
    second = search(0.0, **{**options, "seed": 77})
    second.load_state_dict(through_file(first.state_dict()))
    for _ in range(12):
        mine, other = first.ask(), second.ask()
        assert torch.equal(mine, other)
        first.tell(mine, losses(mine))
        second.tell(other, losses(other))
        assert first.stopped == second.stopped
    assert torch.equal(first.best[0], second.best[0])
    assert first.best[1] == second.best[1]
    assert torch.equal(first.mean, second.mean)


def test_what_was_restored_can_be_saved_again() -> None:
    first = search(seed=0)
    for _ in range(3):
        first.step(lambda: float(losses(first.params[0][None])))
    second = search(seed=1)
    second.load_state_dict(first.state_dict())
    second.step(lambda: float(losses(second.params[0][None])))
    third = search(seed=2)
    third.load_state_dict(through_file(second.state_dict()))
    assert torch.equal(second.ask(), third.ask())


def test_parameters_are_left_alone() -> None:
    first, second = search(seed=0), search(2.0, seed=1)
    first.step(lambda: 1.0)
    second.load_state_dict(first.state_dict())
    assert second.params[0].tolist() == [2.0] * 3


@pytest.mark.parametrize(("other", "message"), [
    (lambda: optim.CMAES(torch.zeros(2), sigma=1.0), "parameters: 3 in the checkpoint, 2 here"),
    (lambda: optim.CMAES(torch.zeros(3), sigma=0.5), "sigma: 1.0 in the checkpoint, 0.5 here"),
    (lambda: search(popsize=9), "popsize: default in the checkpoint, 9 here"),
    (lambda: search(box=(-1, 1)), "bounds: default in the checkpoint"),
])  # fmt: skip
def test_another_search_is_refused_and_unharmed(other: Any, message: str) -> None:
    first, second = search(seed=0), other()
    first.step(lambda: 1.0)
    strategy = second.strategy
    with pytest.raises(StateError, match=message):
        second.load_state_dict(first.state_dict())
    assert second.strategy is strategy
    with pytest.raises(StateError, match="no state_dict of CMAES"):
        second.load_state_dict({"start": torch.zeros(3)})


def test_a_search_that_does_not_repeat_itself_is_refused_and_unharmed() -> None:
    first, second = search(seed=0), search(seed=1)
    found = first.ask()
    first.tell(found, losses(found))
    saved = first.state_dict()
    saved["log"][0]["losses"] = saved["log"][0]["losses"].flip(0)  # as another cma would have it
    strategy, expected = second.strategy, search(seed=1).ask()
    with pytest.raises(StateError, match="another version of cma"):
        second.load_state_dict(saved)
    assert second.strategy is strategy
    assert torch.equal(second.ask(), expected)
