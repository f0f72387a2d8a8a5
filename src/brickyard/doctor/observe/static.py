"""Describe a model as it stands: layers, their settings, and containers torch does not see."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from brickyard.doctor.observe.record import NOWHERE, ModuleSeen, Place, Seen
from brickyard.doctor.observe.tensors import first_tensor

if TYPE_CHECKING:
    from brickyard.doctor.observe.forward import Forwards, Root

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
_AFFINE = (nn.Linear, nn.modules.conv._ConvNd)


def describe(seen: Seen, model: nn.Module, name: str) -> None:
    """Record the settings of every layer that can be judged before the first batch.

    Args:
        seen: where to.
        model: the model.
        name: the user's name for it.
    """
    for path, module in model.named_modules():
        where = f"{name}.{path}" if path else name
        facts: dict[str, Any] = {}
        if isinstance(module, nn.modules.dropout._DropoutNd):
            facts["p"] = module.p
        elif isinstance(module, _BATCH_NORM):
            facts["momentum"] = module.momentum
            facts["tracks"] = module.track_running_stats
        elif isinstance(module, _AFFINE):
            facts.update(_spread(module))
        if facts:
            seen.modules[id(module)] = ModuleSeen(where, type(module).__name__, name, facts)
    _neighbours(seen, model, name)


def _spread(module: nn.Module) -> dict[str, Any]:
    # Not the attribute: a parametrization such as spectral_norm computes, and changes its state.
    weight = module._parameters.get("weight")
    if not isinstance(weight, torch.Tensor) or weight.ndim < 2 or weight.is_meta:
        return {}
    if nn.parameter.is_lazy(weight):
        return {}
    values = weight.detach().float()
    inputs = max(1, weight[0].numel())
    deviation = float(values.std()) if values.numel() > 1 else 0.0
    facts: dict[str, Any] = {"spread": deviation * math.sqrt(inputs), "fan_in": inputs}
    facts["in_out"] = (weight.shape[1], weight.shape[0])
    return facts


def _neighbours(seen: Seen, model: nn.Module, name: str) -> None:
    """Record pairs of layers that follow each other directly in a Sequential."""
    for path, module in model.named_modules():
        if not isinstance(module, nn.Sequential):
            continue
        where = f"{name}.{path}" if path else name
        layers = [m for m in module if not isinstance(m, nn.Identity)]
        for i, (first, second) in enumerate(pairwise(layers)):
            if isinstance(first, nn.Linear) and isinstance(second, nn.Linear):
                inner = first.out_features
                if inner >= first.in_features or inner >= second.out_features:
                    seen.note("linear-linear", f"{where}.{i}", inner=inner,
                              sizes=(first.in_features, inner, second.out_features),
                              second=f"{where}.{i + 1}")  # fmt: skip
            affine = isinstance(first, _AFFINE) and first._parameters.get("bias") is not None
            if affine and isinstance(second, _BATCH_NORM):
                seen.note("bias-before-norm", f"{where}.{i}.bias", norm=type(second).__name__)


def layer_called(seen: Seen, forwards: Forwards, module: nn.Module, args: Any) -> None:
    """Record what a layer meets in a training step: batch sizes, frozen statistics that move."""
    if not isinstance(module, _BATCH_NORM) or not module.training or not torch.is_grad_enabled():
        return
    given = first_tensor(args)
    facts = seen.modules.get(id(module))
    if given is None or facts is None or given.ndim < 2:
        return
    count = given.numel() // max(1, given.shape[1])
    if hasattr(module, "normalized"):  # the trainer's, by the values of all processes
        count *= torch.distributed.get_world_size()
    facts.looks += 1
    facts.facts.setdefault("values", []).append(count)
    own = list(module.parameters(recurse=False))
    frozen = bool(own) and not any(p.requires_grad for p in own)
    at = facts.facts.setdefault("frozen", {})
    at[seen.step] = at.get(seen.step, True) and frozen and module.track_running_stats


def find_container(
    roots: Iterable[Root], owner: nn.Module | None, leaf: torch.Tensor
) -> tuple[str, Place]:
    """Return the attribute, in a list, tuple or dict, that hides a module or parameter.

    Args:
        roots: the models.
        owner: the hidden module, if the parameter has one.
        leaf: the parameter.
    """
    for root in roots:
        model = root.ref()
        for path, module in model.named_modules() if model is not None else ():
            for attr, value in vars(module).items():
                if attr.startswith("_") and attr in nn.Module().__dict__:
                    continue
                items = value.values() if isinstance(value, dict) else value
                if not isinstance(items, list | tuple | type({}.values())):
                    continue
                for item in items:
                    if item is leaf or _contains(item, owner):
                        parts = [p for p in (root.name, path, attr) if p]
                        return ".".join(parts), _made_at(module, attr)
    return "", NOWHERE


def _contains(item: Any, owner: nn.Module | None) -> bool:
    if isinstance(item, list | tuple):
        return any(_contains(i, owner) for i in item)
    if owner is None or not isinstance(item, nn.Module):
        return False
    return any(m is owner for m in item.modules())


def _made_at(module: nn.Module, attr: str) -> Place:
    """Return the line of the class's source that sets the attribute."""
    import inspect
    import re

    from brickyard.doctor.observe.places import make_place

    try:
        lines, start = inspect.getsourcelines(type(module))
        file = inspect.getsourcefile(type(module)) or ""
    except (OSError, TypeError):
        return NOWHERE
    for i, line in enumerate(lines):
        if re.search(rf"\bself\.{re.escape(attr)}\s*(:[^=]+)?=", line):
            return make_place(file, start + i)
    return make_place(file, start)


def holds(ref: weakref.ref[nn.Module], name: str, param: Any) -> bool:
    """Say whether a module is alive and holds a parameter under a name."""
    module = ref()
    return module is not None and module._parameters.get(name) is param


def reaches(module: nn.Module, ids: set[int]) -> bool:
    """Say whether a module has one of some parameters."""
    return any(id(p) in ids for p in module.parameters())
