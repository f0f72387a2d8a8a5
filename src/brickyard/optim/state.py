"""Save and load an optimizer's state: torch's form, parameters by name, no shared tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from brickyard.errors import UserError
from brickyard.optim import backends
from brickyard.optim.binding import number
from brickyard.optim.rule import Slot

#: Keys of torch's groups that only choose an implementation.
_TORCHS = frozenset({"foreach", "fused", "capturable", "differentiable",
                     "decoupled_weight_decay"})  # fmt: skip
_OWN = frozenset({"params", "param_names"})


class StateError(UserError, ValueError):
    """A checkpoint that belongs to another chain or to other parameters."""


def save(owner: Any) -> dict[str, Any]:
    """Return the state in torch's form, with the chain's structure beside it.

    Args:
        owner: the optimizer.
    """
    packed, rows, place = [], {}, 0
    for group in owner.param_groups:
        saved = {k: _plain(v, owner.steps) for k, v in group.items() if k != "params"}
        saved["params"] = list(range(place, place + len(group["params"])))
        for p in group["params"]:
            if p in owner.state:
                # Numbers are shared between parameters here; a checkpoint has one of each.
                rows[place] = {k: v.clone() if v.ndim == 0 else v
                               for k, v in owner.state[p].items()}  # fmt: skip
            place += 1
        packed.append(saved)
    about = {"steps": owner.steps, "skipped": owner.skipped,
             "pieces": [_pieces(owner, group) for group in owner.param_groups]}  # fmt: skip
    return {"state": rows, "param_groups": packed, "brickyard": about}


def _plain(value: Any, step: int) -> Any:
    """Return a hyperparameter as a checkpoint can hold it: a schedule as its value now."""
    if callable(value):
        return number(value, step)
    return value


def _pieces(owner: Any, group: Mapping[str, Any]) -> list[str]:
    found = []
    for piece in owner.make_setup(group).chain.pieces:
        flags = [f"{k}={v!r}" for k, v in sorted(piece.options.items())]
        where = [f"where={piece.where!r}"] if isinstance(piece.where, str) else []
        found.append(f"{piece.name}({', '.join(flags + where)})")
    return found


def load(owner: Any, saved: Mapping[str, Any]) -> None:
    """Put a checkpoint into the optimizer.

    Nothing is changed unless everything fits.

    Raises:
        StateError: what differs.
    """
    for key in ("state", "param_groups"):
        if key not in saved:
            raise StateError(f"this is no optimizer's state_dict: it has no {key!r}, "
                             f"only {sorted(saved)}")  # fmt: skip
    groups = saved["param_groups"]
    pairs = _match(owner, groups)
    wrong = _differences(owner, saved, pairs)
    if wrong:
        shown = "\n  ".join(wrong[:12] + ([f"... and {len(wrong) - 12} more"]
                                          if len(wrong) > 12 else []))  # fmt: skip
        raise StateError(f"the checkpoint does not fit this optimizer:\n  {shown}")
    about = saved.get("brickyard", {})
    owner.state.clear()
    for pair in pairs:
        row = saved["state"].get(pair.place)
        if row is not None:
            _load_row(owner, pair, row)
    for group, old in zip(owner.param_groups, groups, strict=True):
        for key, value in old.items():
            known = key in group or key not in _TORCHS
            if key not in _OWN and known and not callable(group.get(key)):
                group[key] = value.clone() if isinstance(value, torch.Tensor) else value
    counts = [int(row["step"]) for row in owner.state.values()]
    owner.steps = about.get("steps", max(counts, default=0))
    owner.skipped = about.get("skipped", 0)


@dataclass(frozen=True)
class _Pair:
    """Hold a live parameter and its place in the checkpoint."""

    name: str | None
    param: torch.Tensor
    place: int
    slots: list[Slot]

    def __str__(self) -> str:
        return self.name or f"parameter {self.place}"


def _named(group: Mapping[str, Any]) -> Iterable[tuple[str | None, Any]]:
    names = group.get("param_names") or [None] * len(group["params"])
    return zip(names, group["params"], strict=True)


def _match(owner: Any, groups: Any) -> list[_Pair]:
    """Pair live parameters with places in the checkpoint: by name where both have names."""
    if len(groups) != len(owner.param_groups):
        raise StateError(f"the checkpoint has {len(groups)} parameter groups, this optimizer "
                         f"{len(owner.param_groups)}: build it with the same groups, in the same "
                         "order")  # fmt: skip
    pairs = []
    for i, (group, old) in enumerate(zip(owner.param_groups, groups, strict=True)):
        setup, live = owner.make_setup(group), list(_named(group))
        names = {name: place for name, place in _named(old) if name is not None}
        if names and all(name is not None for name, _ in live):
            mine = {name for name, _ in live if name is not None}
            if mine != set(names):
                parts = [f"{what}: {', '.join(sorted(found)[:8])}" for what, found in (
                    ("only in the checkpoint", set(names) - mine),
                    ("only in this optimizer", mine - set(names))) if found]  # fmt: skip
                raise StateError(f"group {i} of the checkpoint holds other parameters:\n  "
                                 + "\n  ".join(parts))  # fmt: skip
            places = [names[str(name)] for name, _ in live]
        elif len(old["params"]) != len(live):
            raise StateError(f"group {i} has {len(old['params'])} parameters in the checkpoint, "
                             f"{len(live)} here: build model and groups as they were; with "
                             "named_parameters() the missing ones are named")  # fmt: skip
        else:
            places = list(old["params"])
        pairs += [_Pair(name, p, place, owner.slots_of(setup, name, p))
                  for (name, p), place in zip(live, places, strict=True)]  # fmt: skip
    return pairs


def _differences(owner: Any, saved: Mapping[str, Any], pairs: list[_Pair]) -> list[str]:
    wrong = []
    about = saved.get("brickyard", {}).get("pieces")
    if about is not None:
        live = [_pieces(owner, group) for group in owner.param_groups]
        for i, (ours, theirs) in enumerate(zip(live, about, strict=True)):
            if ours != list(theirs):
                wrong.append(f"group {i}: checkpoint {' > '.join(theirs)}; here {' > '.join(ours)}")
    for pair in pairs:
        row = saved["state"].get(pair.place)
        kept = {k for k, v in (row or {}).items() if v is not None} - {"step"}
        if row is None or not kept:
            continue
        needed = {slot.name for slot in pair.slots}
        if kept - needed or needed - kept - {"master"}:
            wrong.append(f"{pair}: state {sorted(kept)} in the checkpoint, {sorted(needed)} here")
            continue
        for slot in pair.slots:
            if slot.init == "host" or slot.name not in kept:
                continue
            here = tuple(owner.new_slot(slot, pair.param.detach().to("meta")).shape)
            if tuple(row[slot.name].shape) != here:
                wrong.append(f"{pair}: {slot.name} has shape {tuple(row[slot.name].shape)} in the "
                             f"checkpoint, {here} here")  # fmt: skip
    return wrong


def _load_row(owner: Any, pair: _Pair, row: Mapping[str, Any]) -> None:
    """Copy one parameter's state; what torch leaves out (a None) stays to be made."""
    made: dict[str, torch.Tensor] = {}
    for slot in pair.slots:
        value = row.get(slot.name)
        if value is None:
            continue
        if slot.init == "host":
            made[slot.name] = torch.tensor(float(value), dtype=torch.float64)
        else:
            made[slot.name] = backends.put(value, owner.new_slot(slot, pair.param))
    made["step"] = torch.tensor(float(row["step"]) if "step" in row else float(bool(made)))
    owner.state[pair.param] = made
