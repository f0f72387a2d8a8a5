"""Build the optimizer that a recipe names: its parameter groups, and what it refuses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from brickyard.errors import RecipeError, near
from brickyard.optim import CMAES, Muon, ParamGroups, param_groups
from brickyard.train.closure import innermost
from brickyard.train.make import place, target_of
from brickyard.train.recipe import Component, Recipe
from brickyard.train.recipe.model import REFUSED, Groups

#: Options of a group that the run folder tells.
_SHOWN = ("lr", "weight_decay", "momentum", "use_muon")


@dataclass
class Built:
    """Hold an optimizer, who got what, and the schedules of its hyperparameters by name.

    Args:
        optimizer: steps the model.
        groups: why each parameter is where it is.
        schedules: pieces, by hyperparameter.
        told: the groups as the run folder tells them, with base values.
    """

    optimizer: Optimizer
    groups: ParamGroups
    schedules: dict[str, list[Component]]
    told: list[dict[str, Any]] = field(default_factory=list)

    def table(self) -> str:
        """Return a line for every parameter: name, shape, its group's options, and why."""
        rows = [("parameter", "shape", "options", "because")]
        for group in self.told:
            options = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}"
                                for k, v in group["options"].items())  # fmt: skip
            rows += [(row["name"], "x".join(map(str, row["shape"])) or "scalar", options,
                      row["because"]) for row in group["parameters"]]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) for row in rows)
        return "".join(f"{line.rstrip()}\n" for line in lines)


def build_optimizer(recipe: Recipe, model: nn.Module) -> Built:
    """Build the recipe's optimizer over a model's parameter groups.

    Args:
        recipe: a checked recipe.
        model: the network, on its device.

    Raises:
        RecipeError: options out of range, groups that match nothing, or a combination that the
            loop cannot drive.
    """
    with place("optimizer"):
        built = _build(recipe.optimizer, model, recipe.groups)
        _check_options(built.optimizer, recipe)
    built.told = _describe(built)
    if recipe.schedule:
        if "lr" in built.schedules:
            raise RecipeError("schedule: optimizer.lr has a schedule of its own; keep one of them")
        built.schedules["lr"] = recipe.schedule
    return built


def build_inner_optimizer(given: Any, model: nn.Module) -> Built:
    """Build an optimizer that a task steps itself, with the usual parameter groups.

    Args:
        given: names it, as a recipe does.
        model: what it steps.

    Raises:
        ValueError: options out of range.
    """
    return _build(Component.parse(given), model, Groups())


def _build(component: Component, model: nn.Module, groups: Groups) -> Built:
    """Build an optimizer, with the one inside of it first where it wraps one."""
    target = target_of(component, "optimizer")
    options, schedules = _apart(component.options)
    if isinstance(options.get("inner"), Mapping):
        built = _build(Component.parse(options.pop("inner")), model, groups)
        own = target(built.optimizer, **options)
        return Built(own, built.groups, {**built.schedules, **schedules})
    if _first_parameter(target) == "model":
        if groups != Groups():
            raise RecipeError(f"groups: {component.label} takes the model, so it makes the groups")
        made, optimizer = ParamGroups([], {}), target(model, **options)
    else:
        made = _groups(component, target, model, options, groups)
        optimizer = target(made[0]["params"] if _bare(made) else made, **options)
    if isinstance(optimizer, CMAES):
        raise ValueError(REFUSED["cma_es"])
    if not isinstance(optimizer, Optimizer):
        what = type(optimizer).__name__
        raise TypeError(f"{component.label} made a {what}; the loop takes a torch.optim.Optimizer")
    for pattern, values in groups.overrides.items():
        unknown = [key for key in values if key not in optimizer.defaults]
        if unknown:
            hint = near(unknown[0], optimizer.defaults)
            raise RecipeError(
                f"groups.overrides.{pattern}: {component.label} has no option {unknown[0]!r}{hint}"
            )
    return Built(optimizer, made, schedules)


def _first_parameter(target: Any) -> str:
    try:
        return next(iter(inspect.signature(target).parameters), "")
    except ValueError:  # a class of C without a signature
        return ""


def _apart(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Component]]]:
    """Return options with the base values of those that have a schedule, and the schedules."""
    options, schedules = dict(given), {}
    for name, value in given.items():
        if isinstance(value, Mapping) and set(value) == {"base", "schedule"}:
            options[name] = value["base"]
            schedules[name] = [Component.parse(one) for one in value["schedule"]]
    return options, schedules


def _groups(
    component: Component, target: Any, model: nn.Module, options: Mapping[str, Any], groups: Groups
) -> ParamGroups:
    """Sort the model's parameters: by the recipe's wishes, as far as the optimizer has them."""
    label, decays = component.label, options.get("weight_decay") is not None
    named = [values for values in groups.overrides.values() if "weight_decay" in values]
    if not decays and (groups.no_decay != "auto" or named):
        raise RecipeError(f"groups: {label} has no weight_decay, so there is nothing to leave out")
    rate = None if groups.layer_decay is None else options.get("lr")
    if isinstance(rate, int | float) and not rate >= 0:  # said of the optimizer, where it stands
        raise ValueError(f"lr must be 0 or more; got {rate!r}")
    with place("groups"):
        made = param_groups(
            model,
            weight_decay=options["weight_decay"] if decays else 0.0,
            no_decay=groups.no_decay if decays else "none",
            layer_decay=groups.layer_decay,
            lr=rate,
            overrides=groups.overrides,
        )
    for group in made if not decays else ():
        del group["weight_decay"]
    if inspect.isclass(target) and issubclass(target, torch.optim.LBFGS) and len(made) > 1:
        raise RecipeError(f"groups: {label} takes one group only; leave layer_decay and overrides")
    if inspect.isclass(target) and issubclass(target, Muon):
        made = _embeddings_apart(made, model)
    return made


def _bare(groups: ParamGroups) -> bool:
    """Say whether there is one group without options of its own."""
    return len(groups) == 1 and set(groups[0]) == {"params"}


def _embeddings_apart(groups: ParamGroups, model: nn.Module) -> ParamGroups:
    """Leave embeddings to Muon's AdamW: they are tables, and only the module's type tells."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, kinds)}
    found, reasons = [], dict(groups.reasons)
    for group in groups:
        for apart in (False, True):
            pairs = [(n, p) for n, p in group["params"] if (id(p) in tables) == apart]
            if pairs and apart:
                found.append({"use_muon": False, **group, "params": pairs})
                reasons |= {n: f"{reasons[n]}; an embedding is left to AdamW" for n, _ in pairs}
            elif pairs:
                found.append({**group, "params": pairs})
    return ParamGroups(found, reasons)


def _describe(built: Built) -> list[dict[str, Any]]:
    """Return each group's numbers, and its parameters with the reason."""
    found = []
    for group in built.optimizer.param_groups:
        names = group.get("param_names") or [str(i) for i in range(len(group["params"]))]
        shown = {k: v for k, v in group.items() if isinstance(v, int | float) and k in _SHOWN}
        rows = [
            {"name": name, "shape": list(p.shape), "because": built.groups.reasons.get(name, "")}
            for name, p in zip(names, group["params"], strict=True)
        ]
        count = sum(p.numel() for p in group["params"])
        found.append({"options": shown, "weights": count, "parameters": rows})
    return found


def _check_options(optimizer: Optimizer, recipe: Recipe) -> None:
    """Refuse what the optimizer and the rest of the recipe cannot do together."""
    label = recipe.optimizer.label
    if not isinstance(innermost(optimizer), torch.optim.LBFGS):
        return
    why = "its line search compares losses along the way with the gradients there"
    if recipe.clipping is not None:
        raise RecipeError(f"clipping: not with {label}: {why}, and clipping changes these")
    if recipe.precision.name != "fp32":
        raise RecipeError(
            f"precision: {label} needs fp32: {why}, and {recipe.precision.label} rounds both"
        )
