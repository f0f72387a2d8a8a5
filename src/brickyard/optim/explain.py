"""Say what an optimizer's step does: pieces, passes, what is read and written, backend."""

from __future__ import annotations

from typing import Any

from brickyard.optim.backends import choose
from brickyard.optim.engine import Bucket, Engine


def explain(owner: Any, engine: Engine, kernel: bool = False) -> str:
    """Return one paragraph per bucket of parameters that take the same step.

    Args:
        owner: the optimizer.
        engine: its engine.
        kernel: add the generated C.
    """
    if not engine.buckets:
        pieces = [owner.make_setup(group).chain for group in owner.param_groups]
        lines = [f"group {i}: {made!r}" for i, made in enumerate(pieces)]
        return "\n".join([*lines, "passes and backends are known after the first step"])
    return "\n\n".join(_bucket(owner, bucket, kernel) for bucket in engine.buckets)


def _bucket(owner: Any, bucket: Bucket, kernel: bool) -> str:
    place = next(i for i, g in enumerate(owner.param_groups) if g is bucket.group)
    count, numel = len(bucket.params), sum(p.numel() for p in bucket.params)
    chain = bucket.setup.chain
    pieces = " > ".join(chain.pieces[i].name for i in bucket.active) or "the gradient itself"
    run = bucket.run if hasattr(bucket, "run") else choose(
        owner.backend, engine_plan(owner, bucket), bucket)  # fmt: skip
    why = f" ({run.why})" if run.why and run.name != owner.backend else ""
    lines = [
        f"group {place}: {count} tensors, {numel:,} elements, {bucket.params[0].dtype}, "
        f"step {bucket.count}",
        f"  pieces   {pieces}",
        f"  backend  {run.name}{why}",
    ]
    total = 0.0
    size: dict[str, float] = {
        "grad": bucket.grads[0].element_size(), "param": bucket.params[0].element_size(),
    }  # fmt: skip
    for slot, held in zip(bucket.slots, bucket.held, strict=True):
        size[slot.name] = sum(x.numel() for x in held) * held[0].element_size() / numel
    for number, phase in enumerate(run.plan.phases()):
        read = [n for n in size if n in {m.attr for m in phase.nodes if m.op == "load"}
                | set(phase.loads.values())]  # fmt: skip
        written = [n for n in size if n in phase.stores]
        moved = sum(size[n] for n in read) + sum(size[n] for n in written)
        total += moved
        sums = f"; sums per tensor: {len(phase.sums)}" if phase.sums else ""
        lines.append(f"  pass {number}   reads {', '.join(read) or '-'}; writes "
                     f"{', '.join(written) or '-'}{sums}; {moved:.3g} bytes/parameter")  # fmt: skip
    state = sum(size[slot.name] for slot in bucket.slots)
    lines.append(f"  memory   {state:.3g} bytes of state, {total:.3g} bytes moved per parameter")
    text = getattr(getattr(run, "kernel", None), "text", "")
    return "\n".join([*lines, *([text] if kernel and text else [])])


def engine_plan(owner: Any, bucket: Bucket) -> Any:
    """Return the plan of a bucket that has not run yet."""
    from brickyard.optim.engine import plan_for

    flags = owner.flags(bucket.params[0], False)
    return plan_for(bucket.setup.chain, bucket.active, flags, bucket.setup.binding.keys)
