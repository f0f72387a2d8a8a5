"""Build what a recipe names: data, model, loss, optimizer and the rest, in the loop's form."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from brickyard import catalog
from brickyard.augment.manifold import carry
from brickyard.errors import RecipeError
from brickyard.schedules import Length
from brickyard.train.augmenting import augmentation_for
from brickyard.train.curvature import curvature_for
from brickyard.train.data import Batches, Data, batches, from_user
from brickyard.train.data.reading import close_batches
from brickyard.train.distillation import teacher_for
from brickyard.train.evaluate import Evaluator
from brickyard.train.fit import look_over
from brickyard.train.formats import build_precision, settle_precision, try_precision
from brickyard.train.loggers import Logger, build_loggers
from brickyard.train.loop import Parts
from brickyard.train.make import make, place, target_of
from brickyard.train.memory import building_told
from brickyard.train.optimization import Built, build_optimizer
from brickyard.train.precision import Precision
from brickyard.train.recipe import Component, Recipe, Resolved
from brickyard.train.regularizing import (
    Regularizers,
    build_regularizers,
    complete_stopping,
    settle,
)
from brickyard.train.scheduling import bind_schedules
from brickyard.train.switches import compile_model, recompute_layers
from brickyard.train.tally import Tally
from brickyard.train.tasks import Task, task_for
from brickyard.train.telemetry import Telemetry
from brickyard.train.weighing import together, weigh_as, whole

if TYPE_CHECKING:
    from brickyard.train.ranks import Ranks


@dataclass
class Setup:
    """Hold a built recipe."""

    recipe: Recipe
    data: Data
    task: Task
    parts: Parts
    evaluator: Evaluator
    built: Built
    regularizers: Regularizers
    findings: list[dict[str, str]] = field(default_factory=list)
    loggers: list[tuple[str, Logger]] = field(default_factory=list)

    def close(self) -> None:
        """End the processes that read data; they start again when something is read."""
        for one in (self.parts.train, self.evaluator.batches):
            close_batches(one)


@building_told()
def build_setup(resolved: Resolved, ranks: Ranks | None = None) -> Setup:
    """Build everything that a recipe names.

    Args:
        resolved: a checked recipe.
        ranks: the processes that train it together, where there are several.

    Raises:
        RecipeError: a brick refuses its options, or two do not fit together.
        OutOfMemory: the model or the data does not fit.
    """
    recipe = resolved.recipe
    loggers = build_loggers(recipe)
    device = pick_device(recipe.device if ranks is None else ranks.device(recipe.device))
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    seed_everything(recipe.seed)
    data = build_data(resolved)
    loss_card = None if recipe.loss.target else catalog.get(recipe.loss.name, "loss")
    task = task_for(recipe, data, loss_card)
    precision = build_precision(recipe)
    model = _model(recipe, data, task, precision, device)
    model = model if ranks is None else ranks.shard(model)
    with place("loss"):
        loss = make(recipe.loss, "loss")
        loss = loss.to(device) if isinstance(loss, nn.Module) else loss
    weigh_as(loss, task)
    transform = task.views(augmentation_for(recipe, data, task, model, loss))
    train = _batches(recipe, data, device, transform, task)
    window = _window(recipe, task, len(train))
    epoch = -(-len(train) // window)
    steps = partial(_steps, epoch=epoch)
    autocast = precision.autocast(device)
    trained = task.trained(model)
    regularizers = build_regularizers(recipe, trained, data)
    evaluator = _evaluator(recipe, data, task, loss, device, autocast)
    if regularizers.stopping is not None:
        complete_stopping(regularizers.stopping, evaluator)
    built = build_optimizer(recipe, trained)
    total = steps(recipe.budget)
    scheduler = bind_schedules(built, total, epoch, evaluator)
    cycles = [] if scheduler is None else scheduler.restarts(total)
    settle(regularizers, built.optimizer, trained, task, (total, epoch, cycles))
    with place("task"):
        task.begin(model, loss, total, epoch)
    tallied = {name: m for name, m in evaluator.metrics.items() if not hasattr(m, "update_on")}
    parts = Parts(
        model=model, loss=loss, optimizer=built.optimizer, train=train, total=total,
        evaluator=evaluator, evaluate_every=steps(recipe.evaluate_every),
        scheduler=scheduler, clip=_clip(recipe, trained),
        task=task, penalties=regularizers.penalties, average=regularizers.average,
        constraints=regularizers.constraints, snapshots=regularizers.snapshots,
        adversary=regularizers.adversary, stopping=regularizers.stopping,
        autocast=autocast, log_every=recipe.log_every, accumulate=window,
        tally=Tally(task, tallied) if tallied else None,
        allowed_skips=0 if recipe.on_nonfinite == "stop" else recipe.on_nonfinite["skip"],
    )  # fmt: skip
    parts.curvature = curvature_for(parts, recipe)
    if recipe.telemetry is not False:
        parts.telemetry = _telemetry(recipe, built, total, epoch)
    settle_precision(precision, recipe, parts)
    try_precision(precision, recipe, data, parts)
    findings = [*look_over(recipe, data, parts, device), *together(recipe), *whole(recipe, data)]
    parts.teacher = teacher_for(recipe, resolved.root, data, parts)
    compile_model(recipe.compile, parts, data)
    setup = Setup(recipe, data, task, parts, evaluator, built, regularizers, findings, loggers)
    if ranks is not None:
        ranks.join(setup)
    return setup


def _model(
    recipe: Recipe, data: Data, task: Task, precision: Precision, device: torch.device
) -> nn.Module:
    """Return the recipe's network as it is trained: its numbers, its layout, what it recomputes."""
    with place("model"):
        model = task.build(partial(make, recipe.model, "model"), data).to(device)
    precision.store(model)
    if recipe.checkpoint_layers is not None:
        with place("checkpoint_layers"):
            recompute_layers(model, recipe.checkpoint_layers)
    if recipe.channels_last:
        if not any(p.ndim == 4 for p in model.parameters()):
            raise RecipeError(
                "channels_last: true has no effect: the model has no convolution of images (no "
                "weight of four dimensions); leave it out"
            )
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return model


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; ``"auto"`` takes an accelerator when there is one.

    Raises:
        RecipeError: there is no such device here.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        if "device type" in reason:  # a list of all that there might be somewhere
            reason = "devices are called cpu, cuda, cuda:1, mps, xpu ..."
        raise RecipeError(  # noqa: B904
            f"device: {name!r} cannot be used here ({reason[:120]}); take cpu or auto"
        )
    return device


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)  # what the user's own code may draw from
    torch.manual_seed(seed)


def build_data(resolved: Resolved) -> Data:
    """Read and split the recipe's data.

    Raises:
        RecipeError: it cannot be read; the message is the reader's.
    """
    recipe = resolved.recipe
    given: dict[str, Any] = {
        "seed": recipe.split_seed, "root": resolved.root, "on_error": recipe.on_error,
    }  # fmt: skip
    with place("data"):
        if recipe.data.target:
            made, skip = make(recipe.data, "data", **given), recipe.on_error == "skip"
            return from_user(made, name=recipe.data.target, seed=recipe.split_seed, skip=skip)
        return make(recipe.data, "data", **given)


def _telemetry(recipe: Recipe, built: Built, total: int, epoch: int) -> Telemetry:
    rows, asked = recipe.log_every, recipe.telemetry
    every = rows if asked is True else -(-_steps(asked, epoch) // rows) * rows
    with place("telemetry"):
        return Telemetry(built.optimizer, every, total)


def _window(recipe: Recipe, task: Task, batches: int) -> int:
    """Return the number of batches a step, of an epoch that has ``batches``."""
    window = recipe.accumulate * task.window
    if recipe.accumulate > 1 and window > batches:
        raise RecipeError(
            f"accumulate: {recipe.accumulate} asks for {window} batches a step; an epoch has "
            f"{batches}, and no step spans two: take {max(batches // task.window, 1)} at most"
        )
    return window


def _steps(given: int | str, epoch: int) -> int:
    return Length.parse(given).steps(epoch=epoch)


def _batches(
    recipe: Recipe,
    data: Data,
    device: torch.device,
    transform: Any = None,
    task: Task | None = None,
) -> Batches:
    """Return training batches as the task wants them; validation batches without a task."""
    training = task is not None
    split = data.train if training else data.val
    size = recipe.batch_size if training else recipe.eval_batch_size
    if split.in_memory and recipe.on_error == "skip" and "unreadable" not in data.facts:
        raise RecipeError("on_error: skip has no effect: all samples are in memory; leave it out")
    with place("workers" if recipe.workers else "data"):
        own = (recipe.seed, transform, recipe.prefetch)
        made = (task.batches(split, size, *own) if training else None) or batches(
            split, size, shuffle=training, seed=recipe.seed, transform=transform,
            workers=recipe.workers, prefetch=recipe.prefetch, on_error=recipe.on_error,
            pin=device.type != "cpu",
        )  # fmt: skip
    if device.type == "cpu" and not recipe.channels_last:
        return made
    return _Moved(made, device, recipe.channels_last)


class _Moved:
    """Put batches on a device, images with their channels last if asked."""

    def __init__(self, inner: Batches, device: torch.device, channels_last: bool):
        self.inner, self.device, self.channels_last = inner, device, channels_last

    def __len__(self) -> int:
        return len(self.inner)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.inner.epoch(number, start=start):
            moved = x
            if self.channels_last and x.ndim == 4:
                moved = x.contiguous(memory_format=torch.channels_last)
            moved = carry(x, moved.to(self.device, non_blocking=True))
            yield moved, y.to(self.device, non_blocking=True)


def _clip(recipe: Recipe, model: nn.Module) -> Callable[[list[Tensor]], Tensor] | None:
    if recipe.clipping is None:
        return None
    clip = partial(target_of(recipe.clipping, "clipping"), **recipe.clipping.options)
    with place("clipping"):  # options are refused here, not at the first step
        if recipe.clipping.target:
            probe = torch.zeros(1)
            probe.grad = torch.zeros(1)
            clip([probe])
            return clip
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        clip(named)
    return lambda _: clip(named)  # with names, for skip=


def _evaluator(
    recipe: Recipe, data: Data, task: Task, loss: Any, device: torch.device, autocast: Any
) -> Evaluator:
    metrics, modes = {}, {"loss": "min"} if task.held_out_loss else {}
    for i, one in enumerate(recipe.metrics):
        with place(f"metrics.{i}"):
            name = _column(one, metrics, recipe.metrics[:i])
            if one.name:
                card = catalog.get(one.name, "metric")
                if task.name not in card.facts["task"]:
                    raise ValueError(
                        f"{one.name} is for {card.facts['task']}, and {data.name} is {task.name}; "
                        f"take {_metrics_for(task)}"
                    )
                modes[name] = "max" if card.facts["better"] == "higher" else "min"
            metrics[name] = make(one, "metric", outputs=task.metric_outputs, classes=data.classes)
            modes.setdefault(name, "max" if metrics[name].higher_is_better else "min")
    monitor = recipe.monitor or next(iter(metrics), "loss")
    if not modes:
        raise RecipeError(
            f"metrics: the loss of {task.name} says nothing on held-out data, so there must be a "
            f"metric: {_metrics_for(task)}"
        )
    if monitor not in modes:
        known = [card.key for card in catalog.shelf("metric")]
        then = f"; to watch {monitor}, put it into metrics" if monitor in known else ""
        raise RecipeError(
            f"monitor: no metric is called {monitor!r}; there is {', '.join(modes)}{then}"
        )
    val = _batches(recipe, data, device)
    picture = data.facts.get("image")
    return Evaluator(val, loss, task, metrics, monitor, modes[monitor], autocast, picture)


def _column(one: Component, taken: Collection[str], before: Collection[Component]) -> str:
    """Return the name that a metric's values get; with its options when it is not the first."""
    name = one.name or one.target.rpartition(":")[2]
    if name in taken and one not in before:
        options = "_".join(f"{option}_{value}" for option, value in one.options.items())
        name = re.sub(r"[^\w.-]+", "_", f"{name}_{options}").rstrip("_")
    if name in taken:
        raise ValueError(
            f"{name} is measured already, and rows have one column for a name; keep one of them, "
            "or give the other by target as a function of its own name"
        )
    return name


def _metrics_for(task: Task) -> str:
    """Return which metrics can score a task, in words."""
    fit = [card.key for card in catalog.shelf("metric") if task.name in card.facts["task"]]
    own = "one of your own by target, or give your task the name of one that a metric is for"
    return ", ".join(fit) or own
