"""Find where a gradient stopped being finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from brickyard.doctor.observe.tensors import finite

if TYPE_CHECKING:
    from brickyard.doctor.observe.track import Track
    from brickyard.doctor.observe.watcher import Watcher

#: Functions whose derivative is infinite or undefined somewhere they can be evaluated.
RISKY = {
    "sqrt": "1/(2 sqrt(x)) is infinite at 0",
    "rsqrt": "its derivative is infinite at 0",
    "log": "1/x is infinite at 0",
    "log2": "1/x is infinite at 0",
    "log10": "1/x is infinite at 0",
    "pow": "x**p with p < 1 has an infinite derivative at 0",
    "div": "division by 0",
    "reciprocal": "division by 0",
    "acos": "its derivative is infinite at 1 and -1",
    "asin": "its derivative is infinite at 1 and -1",
    "exp": "it overflows above 88",
    "atan2": "its derivative is undefined at (0, 0)",
    "norm": "its derivative is undefined at 0",
    "where": "the branch that is not taken is differentiated, too, and 0 * inf is NaN",
}


def explain(w: Watcher, track: Track) -> None:
    """Note which gradients are not finite, and the operations they came through.

    Args:
        w: the watcher.
        track: the optimizer that is about to step.
    """
    w.forwards.name_parameters()
    bad, good = [], []
    for p in track.params:
        if p.grad is not None:
            (good if finite(p.grad) else bad).append(w.optimizers.seen_of(p))
    if not bad:
        return
    loss = w.backwards.last_value
    weights_bad = not all(finite(p) for p in track.params)
    values: dict[str, Any] = {
        "bad": len(bad),
        "good": len(good),
        "name": bad[-1].name,
        "loss": loss,
        "weights_bad": weights_bad,
        "after": good[0].name if good else "",
    }
    place = w.backwards.last_place
    name, line, reason = w.backwards.suspect(RISKY)
    if name:
        values.update(op=name, reason=reason)
        place = line if line.file else place
    scaled = w.calls.scaling
    w.seen.note("nonfinite-grad", bad[-1].name, place, scaled=scaled, **values)


def walk(root: Any, most: int = 20000) -> list[Any]:
    """Return the nodes of an autograd graph, breadth first from the loss.

    Args:
        root: a ``grad_fn``.
        most: stop after so many nodes.
    """
    seen, queue = {root}, [root]
    for node in queue:
        if len(queue) > most:
            break
        for following, _ in getattr(node, "next_functions", ()):
            if following is not None and following not in seen:
                seen.add(following)
                queue.append(following)
    return queue


def leaves(nodes: list[Any]) -> list[torch.Tensor]:
    """Return the leaf tensors that gradients are accumulated in."""
    return [n.variable for n in nodes if hasattr(n, "variable") and n.variable is not None]
