"""Parameter groups by the kind of module that owns a parameter, by depth and by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from brickyard.errors import near

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
    by the module's type, not by name), parameters with fewer than two dimensions (learned scales
    and gates), and what says so itself: ``no_decay = True`` on the parameter or the module's class.

    Math:
        lr of a layer = lr * layer_decay^(layers above it)

    Args:
        model: the model; frozen parameters are left out.
        weight_decay: of all parameters that are decayed.
        no_decay: ``"auto"``, ``"none"`` (decay everything), or name patterns.
        layer_decay: factor of the rate per layer below the last; needs ``lr``.
        lr: base rate; None leaves it to the optimizer.
        overrides: name pattern to options of the parameters it matches; later patterns win.

    Raises:
        ValueError: a pattern that matches nothing, layer_decay without lr, nothing to train.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        >>> [(g["weight_decay"], [name for name, _ in g["params"]])
        ...  for g in param_groups(model, weight_decay=0.1)]
        [(0.1, ['0.weight']), (0.0, ['0.bias', '1.weight', '1.bias'])]
    """
    if layer_decay is not None and lr is None:
        raise ValueError("layer_decay is a factor of the rate: give lr too")
    owners = _owners(model)
    if not owners:
        raise ValueError("the model has no parameter that requires a gradient")
    names = [name for name, _, _, _ in owners]
    patterns = [] if isinstance(no_decay, str) else list(no_decay)
    if isinstance(no_decay, str) and no_decay not in ("auto", "none"):
        raise ValueError(f"no_decay must be 'auto', 'none' or a list of patterns; got {no_decay!r}")
    for pattern in [*patterns, *(overrides or {})]:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"the pattern {pattern!r} matches no parameter{near(pattern, names)}")
    depths = _depths(names)
    made: dict[Any, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    for name, p, module, own in owners:
        why = _spared(name, own, p, module, patterns) if no_decay != "none" else ""
        options: dict[str, Any] = {"weight_decay": 0.0 if why else float(weight_decay)}
        reasons[name] = why or "weights are decayed"
        if lr is not None:
            options["lr"] = lr * (1.0 if layer_decay is None else layer_decay ** depths[name])
        for pattern, values in (overrides or {}).items():
            if fnmatch.fnmatchcase(name, pattern):
                options.update(values)
                reasons[name] = f"matches {pattern!r}"
        key = tuple(sorted((k, repr(v)) for k, v in options.items()))
        made.setdefault(key, {"params": [], **options})["params"].append((name, p))
    return ParamGroups(made.values(), reasons)


def _owners(model: nn.Module) -> list[tuple[str, nn.Parameter, nn.Module, str]]:
    """Return name, parameter, owner and the owner's name for it; shared parameters once."""
    found, seen = [], set[int]()
    for prefix, module in model.named_modules():
        for own, p in module.named_parameters(recurse=False):
            if p.requires_grad and id(p) not in seen:
                seen.add(id(p))
                found.append((f"{prefix}.{own}" if prefix else own, p, module, own))
    return found


def _spared(name: str, own: str, p: nn.Parameter, module: nn.Module, patterns: list[str]) -> str:
    """Return why a parameter is not decayed; empty when it is."""
    marked = getattr(module, "no_decay", False)
    if (
        getattr(p, "no_decay", False)
        or marked is True
        or (isinstance(marked, tuple | list | set | frozenset) and own in marked)
    ):
        return "marked no_decay"
    if patterns:
        found = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)]
        return f"matches {found[0]!r}" if found else ""
    if isinstance(module, _NORMS):
        return f"{type(module).__name__} is a normalization"
    if own == "bias" or own.startswith("bias_") or own == "in_proj_bias":
        return "a bias"
    return "fewer than two dimensions" if p.ndim < 2 else ""


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
