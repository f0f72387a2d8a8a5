"""Ask a recipe's model, loss and first batch whether training can work, before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from brickyard.doctor.ladder import Ladder, Rung, preflight
from brickyard.doctor.rungs import NAMES, arrived, signals
from brickyard.errors import RecipeError
from brickyard.train.recipe import Resolved
from brickyard.train.setup import Setup, build_setup
from brickyard.train.tasks import Task

__all__ = ["ladder"]


class _Used(nn.Module):
    """Use a model as its task does."""

    def __init__(self, model: nn.Module, task: Task):
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, x: Tensor) -> Any:
        return self.task.forward(self.model, x)


def ladder(
    resolved: Resolved, samples: int = 32, steps: int = 200, seconds: float = 20.0
) -> Ladder:
    """Ask a recipe's model, loss and first batch whether training can work.

    Games and agents have no loss of one model on one batch: two steps are taken of theirs, which
    answer what can be asked of them; the other rungs say why they are left out.

    Args:
        resolved: a checked recipe.
        samples: of the batch.
        steps: of the trainings on it.
        seconds: that one of these may take at the most.
    """
    setup = _build(resolved, samples)
    task = setup.task
    if type(task).prepare is not Task.prepare or task.state_dict():
        return Ladder(tuple(_steps_of_its_own(setup)))
    model, loss, batch = _first_batch(setup)
    return preflight(model, loss, batch, steps, seconds, with_inputs=True)


def _build(resolved: Resolved, samples: int) -> Setup:
    """Build what a recipe names, without what changes its samples unless the task needs that."""
    changes: dict[str, Any] = {"batch_size": samples, "loggers": [], "accumulate": 1}
    plain = resolved.recipe.model_copy(update={**changes, "augmentation": []})
    try:
        return build_setup(replace(resolved, recipe=plain))
    except RecipeError:
        return build_setup(replace(resolved, recipe=resolved.recipe.model_copy(update=changes)))


def _first_batch(setup: Setup) -> tuple[nn.Module, Callable[..., Tensor], tuple[Any, Any]]:
    """Return a model, its loss of output, inputs and targets, and one training batch."""
    parts, task = setup.parts, setup.task

    def loss(output: Any, x: Tensor, y: Tensor) -> Tensor:
        return task.loss(parts.loss, output, x, y)

    loss.targets = task.reads_targets  # pyright: ignore[reportFunctionMemberAccess]
    return _Used(parts.model, task), loss, next(iter(parts.train.epoch(0)))


#: Why a rung is no question to a game or an agent.
_LEFT_OUT = {
    "initial_loss": "a player's or an agent's loss has no value that knowing nothing would give",
    "samples_apart": "samples are drawn or played, not given",
    "future_hidden": "there are no tokens to predict",
    "labels_matter": "there are no targets",
    "one_batch": "the other player, or what the agent plays, changes with every step",
    "inputs_matter": "a loss that falls proves nothing here",
    "rates": "a loss that falls proves nothing here; compare the metric of short runs",
}


_PLAYERS = ("generator", "critic", "policy", "value")


def _steps_of_its_own(setup: Setup) -> Iterator[Rung]:
    """Take steps as training does, and judge gradients and layers by them."""
    parts, task, model = setup.parts, setup.task, setup.parts.model
    model.train()
    batches = iter(parts.train.epoch(0))
    came: dict[str, Tensor] = {}

    def step() -> None:
        window = task.prepare(model, [next(batches) for _ in range(parts.accumulate)])
        parts.optimizer.zero_grad()
        for x, y in window:
            task.loss(parts.loss, task.forward(model, x), x, y).backward()
        for name, p in model.named_parameters():
            if p.grad is not None and bool(p.grad.any()):
                came[name] = p.grad
        parts.optimizer.step()
        task.stepped(model)

    players = {name: getattr(model, name, None) for name in _PLAYERS}
    networks = {name: part for name, part in players.items() if isinstance(part, nn.Module)}
    layers = _each(networks or {"": model}, step)
    step()
    reached = []
    for name, p in model.named_parameters():
        cancels = p.ndim < 2 and p.grad is not None  # a bias that both sides of a difference share
        p.grad = came.get(name)  # in either step
        if p.grad is not None or not cancels:
            reached.append((name, p))
    arrival = arrived(reached)
    for key, name in NAMES.items():
        if key == "gradients_arrive":
            yield arrival
        elif key == "spread":
            yield layers
        else:
            yield Rung(name, None, f"left out: {_LEFT_OUT[key]}")


def _each(networks: dict[str, nn.Module], step: Callable[[], None]) -> Rung:
    """Measure the layers of several networks in one step: each for itself."""
    found: list[Rung] = []

    def within(left: list[str]) -> None:
        if left:
            rung = signals(networks[left[0]], lambda: within(left[1:]))
            named = f"{left[0]}: {rung.seen}" if left[0] else rung.seen
            found.insert(0, replace(rung, seen=named))
        else:
            step()

    within(list(networks))
    wrong = [rung for rung in found if rung.passed is False]
    asked = wrong or [rung for rung in found if rung.passed] or found[:1]
    return replace(asked[0], seen="; ".join(rung.seen for rung in asked))
