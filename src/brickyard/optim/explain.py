"""Say what an optimizer's step does: pieces, passes, what is read and written, backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from brickyard.optim.backends import choose
from brickyard.optim.backends.cut import by_units, view
from brickyard.optim.binding import shown
from brickyard.optim.engine import Bucket, Engine, Setup, plan_for
from brickyard.optim.plan import Phase, Plan
from brickyard.optim.rule import Piece

#: What the forms of tensors are called here.
_SHOWN = {"flat": "", "points": "1x1 matrices, ", "lanes": "small matrices, ", "wide": "matrices, "}


def explain(owner: Any, engine: Engine, kernel: bool = False) -> str:
    """Return one paragraph per bucket of parameters that take the same step.

    Args:
        owner: the optimizer.
        engine: its engine.
        kernel: add the generated C.
    """
    if not engine.buckets:
        groups = [_group(owner, place) for place in range(len(owner.param_groups))]
        return "\n\n".join([*groups, "Passes and backends are known after the first step."])
    return "\n\n".join(_bucket(owner, bucket, kernel) for bucket in engine.buckets)


def traffic(engine: Engine) -> float:
    """Return how many bytes the passes of a step read and write, each pass counted in full.

    Args:
        engine: of an optimizer that has taken a step.
    """
    return sum(_moved(phase, sizes) for bucket in engine.buckets
               for form, sizes in _sizes(bucket, bucket.run).items()
               for phase in _passes(bucket.run)[form])  # fmt: skip


def _passes(run: Any) -> Mapping[str, Sequence[Phase]]:
    kernel = getattr(run, "kernel", None)
    return kernel.passes if kernel is not None else {"flat": run.plan.phases()}


def _sizes(bucket: Bucket, run: Any) -> dict[str, dict[str, float]]:
    """Return the bytes of every array, by the form of the tensors that it belongs to."""
    forms = list(_passes(run))
    if forms == ["flat"]:
        chosen = ["flat"] * len(bucket.params)
    else:
        units = by_units(run.plan)
        chosen = [view(p, units)[0] for p in bucket.params]
    found: dict[str, dict[str, float]] = {form: {} for form in forms}
    arrays = {"grad": bucket.gradients(), "param": bucket.params}
    arrays |= {s.name: held for s, held in zip(bucket.slots, bucket.held, strict=True)}
    for name, tensors in arrays.items():
        for form, x in zip(chosen, tensors, strict=True):
            found[form][name] = found[form].get(name, 0.0) + x.numel() * x.element_size()
    return found


def _read(phase: Phase) -> set[str]:
    return {m.attr for m in phase.nodes if m.op == "load"} | set(phase.loads.values())


def _moved(phase: Phase, sizes: Mapping[str, float]) -> float:
    read, written = _read(phase), {*phase.stores, *phase.after}
    return sum(size * ((name in read) + (name in written)) for name, size in sizes.items())


def _group(owner: Any, place: int) -> str:
    """Return what is known of a group before it has taken a step."""
    group = owner.param_groups[place]
    setup, numel = owner.make_setup(group), sum(p.numel() for p in group["params"])
    active = range(len(setup.chain.pieces))
    title = f"group {place}: {_count(len(group['params']), 'tensor')}, {numel:,} elements"
    return "\n".join([title, *_equation(owner, setup, group, active)])


def _equation(owner: Any, setup: Setup, group: Mapping[str, Any], active: Iterable[int]) -> list[
        str]:  # fmt: skip
    """Return two lines: which pieces act, and the numbers they act with now."""
    pieces = [(i, setup.chain.pieces[i]) for i in active]
    found = setup.binding.read(group, owner.steps)
    keys = ["lr", *(setup.binding.keys[i, name] for i, piece in pieces for name in piece.hyper)]
    values = [f"{shown(key)}={found[key]:g}" for key in dict.fromkeys(keys)]
    if group["maximize"]:
        values.append("maximize: the gradient's sign is turned")
    shape = " > ".join(_piece(piece) for _, piece in pieces) or "the gradient itself"
    return [f"  pieces   {shape}", f"  values   {', '.join(values)}"]


def _piece(piece: Piece) -> str:
    """Return a piece's name with the options that are not its rule's defaults."""
    inside = [f"{k}={v!r}" for k, v in piece.options.items() if v != piece.rule.options[k]]
    inside += (
        [] if piece.where is None else [f"where={getattr(piece.where, '__name__', piece.where)!r}"]
    )
    inside += [] if piece.every is None else [f"every={piece.every}"]
    return piece.name + (f"({', '.join(inside)})" if inside else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def _bucket(owner: Any, bucket: Bucket, kernel: bool) -> str:
    place, numel = bucket.place, sum(p.numel() for p in bucket.params)
    run = bucket.run if hasattr(bucket, "run") else choose(
        owner.backend, _plan(owner, bucket), bucket)  # fmt: skip
    why = f" ({run.why})" if run.why and run.name != owner.backend else ""
    lines = [
        f"group {place}: {_count(len(bucket.params), 'tensor')}, {numel:,} elements, "
        f"{bucket.params[0].dtype}, step {bucket.count}",
        *_equation(owner, bucket.setup, bucket.group, bucket.active),
        f"  backend  {run.name}{why}",
    ]
    if why:
        lines.append(f"  tensors  {_names(bucket)}")
    total = 0.0
    if run.name != "native":
        lines.append("  passes   (these are the native backend's; others make more)")
    for form, sizes in _sizes(bucket, run).items():
        elements = sizes["param"] / bucket.params[0].element_size()
        for number, phase in enumerate(_passes(run)[form]):
            read, written = _read(phase), {*phase.stores, *phase.after}
            moved = _moved(phase, sizes)
            total += moved
            sums = f"; {_count(len(phase.sums), 'sum')}" if phase.sums else ""
            if any(name.startswith("scratch.") for name in phase.stores):
                sums += "; then matrix operations, not counted"
            lines.append(
                f"  pass {number}   {_SHOWN[form]}reads {_list(n for n in sizes if n in read)}; "
                f"writes {_list(n for n in sizes if n in written)}{sums}; "
                f"{moved / elements:.3g} bytes/parameter"
            )
    state = sum(x.numel() * x.element_size() for held in bucket.held for x in held)
    lines.append(f"  memory   {state / numel:.3g} bytes of state, {total / numel:.3g} bytes moved "
                 "per parameter")  # fmt: skip
    text = getattr(getattr(run, "kernel", None), "text", "")
    return "\n".join([*lines, *([text] if kernel and text else [])])


def _list(names: Any) -> str:
    return ", ".join(names) or "-"


def _names(bucket: Bucket) -> str:
    """Return which parameters a bucket holds: names, or shapes where there are none."""
    group = bucket.group
    named = group.get("param_names") or [f"shape {tuple(p.shape)}" for p in group["params"]]
    own = set(map(id, bucket.whole))
    found = [name for name, p in zip(named, group["params"], strict=True) if id(p) in own]
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")


def _plan(owner: Any, bucket: Bucket) -> Plan:
    """Return the plan of a bucket that has not run yet."""
    flags = owner.flags(bucket.params[0], False)
    return plan_for(bucket.setup.chain, bucket.active, flags, bucket.setup.binding.keys)
