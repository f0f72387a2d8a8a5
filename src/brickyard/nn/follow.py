"""Find which activation follows each layer: from a trace of the model, or from its order."""

from __future__ import annotations

import warnings
from collections import deque
from typing import Any, NamedTuple

from torch import fx, nn

from brickyard.nn.gains import LINEAR, Start, of_function, start_before
from brickyard.nn.residual import Residual

__all__ = ["Follower", "followers", "has_fan"]


class Follower(NamedTuple):
    """Say how the weights of a layer start, and how that was found out: "graph" or "order"."""

    start: Start
    source: str


def has_fan(module: nn.Module) -> bool:
    """Say whether ``module`` is a linear layer or a convolution."""
    return isinstance(module, nn.Linear | nn.modules.conv._ConvNd)


#: What no activation is looked for behind: layers that start a new product.
_ENDS = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear, nn.Embedding)


class _Tracer(fx.Tracer):
    """Trace down to torch's layers and ours, through our skip paths."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, Residual):
            return False
        ours = type(m).__module__.startswith("brickyard.nn.")
        if ours and not type(m).__module__.endswith(".models"):
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(m, Residual):  # without its check of shapes, which a trace has none of
            y = m.branch(*args)
            return args[0] + (y if m.scale is None else m.scale(y))
        return super().call_module(m, forward, args, kwargs)


def followers(model: nn.Module) -> dict[str, Follower]:
    """Return, for the name of every linear layer and convolution, what follows it.

    Args:
        model: traced with ``torch.fx``; where that fails, and for layers that the trace does not
            reach, the order of definition decides.
    """
    by_order = _by_order(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = _Tracer().trace(model)
    except Exception:  # models may do anything: conditions on values, packed inputs, ...
        return by_order
    return {**by_order, **_by_graph(model, graph)}


def _by_graph(model: nn.Module, graph: fx.Graph) -> dict[str, Follower]:
    modules = dict(model.named_modules())
    found: dict[str, Follower] = {}
    for node in graph.nodes:
        if node.op == "call_module" and has_fan(modules[node.target]):
            found.setdefault(node.target, Follower(_search(node, modules), "graph"))
    return found


def _search(node: fx.Node, modules: dict[str, nn.Module]) -> Start:
    """Return the nearest activation behind a layer, past norms, sums, pooling and the like."""
    queue, seen = deque(node.users), set(node.users)
    while queue:
        here = queue.popleft()
        activation, ends = None, False
        if here.op == "call_module":
            module = modules[str(here.target)]
            activation, ends = module, has_fan(module) or isinstance(module, _ENDS)
        elif here.op in ("call_function", "call_method"):
            activation = of_function(here.target, here.args[1:], here.kwargs)
        start = None if activation is None else start_before(activation)
        if start is not None:
            return start
        if not ends:
            fresh = [user for user in here.users if user not in seen]
            seen.update(fresh)
            queue.extend(fresh)
    return LINEAR


def _by_order(model: nn.Module) -> dict[str, Follower]:
    """Read what follows from the order in which layers were defined."""
    leaves = [(n, m) for n, m in model.named_modules()
              if not any(m.children()) or has_fan(m) or isinstance(m, _ENDS)]  # fmt: skip
    leaves = [(n, m) for n, m in leaves if ".parametrizations" not in f".{n}"]
    found: dict[str, Follower] = {}
    for i, (name, module) in enumerate(leaves):
        if not has_fan(module):
            continue
        start = LINEAR
        for _, later in leaves[i + 1 :]:
            if has_fan(later) or isinstance(later, _ENDS):
                break
            known = start_before(later)
            if known is not None:
                start = known
                break
        found[name] = Follower(start, "order")
    return found
