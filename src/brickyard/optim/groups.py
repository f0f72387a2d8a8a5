"""Parameter groups by the kind of module that owns a parameter, by depth and by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from brickyard.errors import near
from brickyard.optim.ranges import Range, fixed

#: torch's normalization layers. Any other module can say ``no_decay = True`` on its class, or a
#: tuple of names of its own parameters; so can a parameter (``p.no_decay = True``).
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class ParamGroups(list[dict[str, Any]]):
    """A list of groups for any ``torch.optim`` optimizer, and a table that says who got what.

    Args:
        groups: the groups, with named parameters.
        reasons: why each parameter is where it is, by name.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], reasons: Mapping[str, str]) -> None:
        super().__init__(groups)
        self._reasons = dict(reasons)

    @property
    def reasons(self) -> Mapping[str, str]:
        """Return why each parameter is where it is, by name."""
        return self._reasons

    def table(self) -> str:
        """Return one line per parameter: name, shape, its group's options, and why."""
        rows = [("parameter", "shape", "options", "because")]
        for group in self:
            shown = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}"
                              for k, v in group.items() if k != "params")  # fmt: skip
            rows += [(name, "x".join(map(str, p.shape)) or "scalar", shown, self._reasons[name])
                     for name, p in group["params"]]  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join("  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip()
                         for row in rows)  # fmt: skip


def param_groups(
    model: nn.Module, weight_decay: float = 1e-2, no_decay: str | Iterable[str] = "auto",
    layer_decay: float | None = None, lr: float | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> ParamGroups:  # fmt: skip
    """Sort a model's parameters into groups, each parameter into exactly one.

    ``"auto"`` leaves out of weight decay: biases, every parameter of a normalization layer (found
    by the module's type, not by name), learned scales (fewer than two dimensions; outside of
    torch's own layers also one value, or one per channel as in ``(1, 3, 1, 1)``), and what says so
    itself: ``no_decay = True`` on the parameter or the module's class. A parameter that several
    modules share has the first one's place, and patterns may use any of its names.

    Math:
        lr of a layer = lr * layer_decay^(layers above it)

    Args:
        model: the model; frozen parameters are left out.
        weight_decay: of all parameters that are decayed.
        no_decay: ``"auto"``, ``"none"`` (decay everything), or name patterns.
        layer_decay: factor of the rate per layer below the last, up to 1; needs ``lr``.
        lr: base rate; None leaves it to the optimizer.
        overrides: name pattern (``"head.*"``) to options of the parameters it matches, such as
            ``{"lr": 1e-4}``; later patterns win.

    Raises:
        ValueError: a pattern that matches nothing, a number out of range, layer_decay without lr,
            nothing to train.
        TypeError: overrides that are no options, numbers that are none.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        >>> [(g["weight_decay"], [name for name, _ in g["params"]])
        ...  for g in param_groups(model, weight_decay=0.1)]
        [(0.1, ['0.weight']), (0.0, ['0.bias', '1.weight', '1.bias'])]
    """
    _check_numbers(weight_decay, layer_decay, lr)
    owners = _owners(model)
    if not owners:
        raise ValueError("the model has no parameter that requires a gradient: nothing to train")
    patterns = [] if isinstance(no_decay, str) else list(no_decay)
    if isinstance(no_decay, str) and no_decay not in ("auto", "none"):
        raise ValueError(f"no_decay must be 'auto', 'none' or a list of patterns; got {no_decay!r}")
    _check_patterns(patterns, overrides or {}, [name for o in owners for name in o.names])
    depths = _depths([o.names[0] for o in owners])
    made: dict[Any, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    for owned in owners:
        name = owned.names[0]
        why = _spared(owned, patterns) if no_decay != "none" else ""
        options: dict[str, Any] = {"weight_decay": 0.0 if why else float(weight_decay)}
        reasons[name] = why or "weights are decayed"
        if lr is not None:
            options["lr"] = lr * (1.0 if layer_decay is None else layer_decay ** depths[name])
        for pattern, values in (overrides or {}).items():
            if owned.matches(pattern):
                options.update(values)
                reasons[name] = f"matches {pattern!r}"
        key = tuple(sorted((k, repr(v)) for k, v in options.items()))
        made.setdefault(key, {"params": [], **options})["params"].append((name, owned.param))
    return ParamGroups(made.values(), reasons)


@dataclass
class _Owned:
    """Hold a parameter, the first module that has it, its name there, and all its full names."""

    param: nn.Parameter
    module: nn.Module
    own: str
    names: list[str]

    def matches(self, pattern: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for name in self.names)


def _check_numbers(weight_decay: Any, layer_decay: Any, lr: Any) -> None:
    fixed("weight_decay", weight_decay)
    if lr is not None:
        fixed("lr", lr)
    if layer_decay is not None:
        fixed("layer_decay", layer_decay, Range(0.0, 1.0, "(]", "0.75 is usual for fine-tuning"))
        if lr is None:
            raise ValueError("layer_decay is a factor of the rate: give lr too")


def _check_patterns(patterns: list[str], overrides: Mapping[str, Any], names: list[str]) -> None:
    for pattern in [*patterns, *overrides]:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"the pattern {pattern!r} matches no parameter{near(pattern, names)}")
    for pattern, options in overrides.items():
        if not isinstance(options, Mapping) or "params" in options:
            raise TypeError(f"overrides[{pattern!r}] must be options of an optimizer, as in "
                            f"{{'lr': 1e-4}}; got {options!r}")  # fmt: skip


def _owners(model: nn.Module) -> list[_Owned]:
    """Return every parameter that requires a gradient once, in the model's order."""
    found: dict[int, _Owned] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for own, p in module.named_parameters(recurse=False, remove_duplicate=False):
            if p.requires_grad:
                owned = found.setdefault(id(p), _Owned(p, module, own, []))
                owned.names.append(f"{prefix}.{own}" if prefix else own)
    return list(found.values())


def _spared(owned: _Owned, patterns: list[str]) -> str:
    """Return why a parameter is not decayed; empty when it is."""
    p, module, own = owned.param, owned.module, owned.own
    marked = getattr(module, "no_decay", False)
    if (
        getattr(p, "no_decay", False)
        or marked is True
        or (isinstance(marked, tuple | list | set | frozenset) and own in marked)
    ):
        return "marked no_decay"
    if patterns:
        found = [pattern for pattern in patterns if owned.matches(pattern)]
        return f"matches {found[0]!r}" if found else ""
    if isinstance(module, _NORMS):
        return f"{type(module).__name__} is a normalization"
    if own == "bias" or own.startswith("bias_") or own == "in_proj_bias":
        return "a bias"
    if p.ndim < 2:
        return "fewer than two dimensions"
    theirs = type(module).__module__.startswith("torch.")
    wide = sum(size > 1 for size in p.shape)
    if not theirs and (wide == 0 or (wide == 1 and p.ndim > 2)):
        return "a learned scale"
    return ""


def _depths(names: list[str]) -> dict[str, int]:
    """Return how many layers lie above each parameter's: 0 for the last.

    Layers are the top-level children, numbered children of these (``blocks.0``) each on its own.
    """
    layers: dict[str, int] = {}
    where = {}
    for name in names:
        parts = name.split(".")
        numbered = len(parts) > 2 and parts[1].isdigit()
        layer = ".".join(parts[:2]) if numbered else parts[0]
        where[name] = layers.setdefault(layer, len(layers))
    return {name: len(layers) - 1 - place for name, place in where.items()}
