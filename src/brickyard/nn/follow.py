"""Find which activation follows each layer: from a trace of the model, or from its order."""

from __future__ import annotations

import inspect
import operator
import warnings
from collections import deque
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from brickyard.nn.gains import LINEAR, Start, of_function, start_before
from brickyard.nn.noise import DropConnect
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
#: Functions that start one with a weight of the model's own.
_PRODUCTS = ("linear", "matmul", "mm", "addmm", "bmm", "einsum", "conv1d", "conv2d", "conv3d")


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

    A layer that has no entry could not be placed: nothing that was traced reaches an activation or
    another layer behind it, and the order of definition does not tell.

    Args:
        model: traced with ``torch.fx``; where that fails its parts are, and for layers that no
            trace decides on, the order of definition does.
    """
    traced = _traced(model, "", whole=True)
    return {**_by_order(model, traced), **traced}


def _trace(module: nn.Module) -> fx.Graph | None:
    """Return the graph of a module, options of its forward at their defaults if need be."""
    given = {
        name: parameter.default
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.default is not parameter.empty
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for constants in (None, given) if given else (None,):
            try:
                return _Tracer().trace(module, constants)
            except Exception:  # models may do anything: conditions on values, packed inputs, ...
                continue
    return None


def _traced(module: nn.Module, dot: str, whole: bool) -> dict[str, Follower]:
    if has_fan(module) or isinstance(module, _ENDS) or not any(module.children()):
        return {}
    graph = _trace(module)
    if graph is not None:
        return _by_graph(module, graph, dot, whole)
    found: dict[str, Follower] = {}
    for name, child in module.named_children():
        found |= _traced(child, f"{dot}{name}.", whole=False)
    return found


def _by_graph(module: nn.Module, graph: fx.Graph, dot: str, whole: bool) -> dict[str, Follower]:
    modules = dict(module.named_modules())
    found: dict[str, Follower] = {}
    for node in graph.nodes:
        if node.op != "call_module":
            continue
        layer, name = modules[node.target], dot + node.target
        if isinstance(layer, DropConnect):
            layer, name = layer.linear, f"{name}.linear"
        start = _search(node, modules, whole) if has_fan(layer) else None
        if start is not None:
            found.setdefault(name, Follower(start, "graph"))
    return found


def _search(node: fx.Node, modules: dict[str, nn.Module], whole: bool) -> Start | None:
    """Return the nearest activation behind a layer, past norms, sums, pooling and the like.

    None when it may lie behind the end of a part of the model.
    """
    queue, seen, left = deque(node.users), set(node.users), False
    while queue:
        here = queue.popleft()
        activation, ends = None, False
        if here.op == "call_module":
            module = modules[str(here.target)]
            activation = module
            ends = any(has_fan(part) or isinstance(part, _ENDS) for part in module.modules())
        elif here.op in ("call_function", "call_method"):
            ends = getattr(here.target, "__name__", here.target) in _PRODUCTS and any(
                arg.op == "get_attr" for arg in here.all_input_nodes
            )
            activation = of_function(here.target, here.args[1:], here.kwargs)
            if isinstance(activation, nn.Sigmoid) and _times_its_input(here):
                activation = nn.SiLU()
        left = left or here.op == "output"
        start = None if activation is None else start_before(activation)
        if start is not None:
            return start
        if not ends:
            fresh = [user for user in here.users if user not in seen]
            seen.update(fresh)
            queue.extend(fresh)
    return None if left and not whole else LINEAR


def _times_its_input(node: fx.Node) -> bool:
    """Say whether ``node`` is the sigmoid in x * sigmoid(x)."""
    return any(
        user.op == "call_function" and user.target in (operator.mul, torch.mul)
        and user.args in ((node, node.args[0]), (node.args[0], node))
        for user in node.users
    )  # fmt: skip


def _by_order(model: nn.Module, traced: Collection[str]) -> dict[str, Follower]:
    """Read what follows from the order in which layers were defined.

    An activation that is defined behind a layer follows it. Where none is, the forward pass may
    still call one; only the last layer of a model that defines its activations ends without one.
    """
    leaves = [(n, m) for n, m in model.named_modules()
              if not any(m.children()) or has_fan(m) or isinstance(m, _ENDS)]  # fmt: skip
    leaves = [(n, m) for n, m in leaves if ".parametrizations" not in f".{n}"]
    found: dict[str, Follower] = {}
    for i, (name, module) in enumerate(leaves):
        if not has_fan(module):
            continue
        for _, later in leaves[i + 1 :]:
            if has_fan(later) or isinstance(later, _ENDS):
                break
            known = start_before(later)
            if known is not None:
                found[name] = Follower(known, "order")
                break
        else:
            if found or traced:
                found[name] = Follower(LINEAR, "order")
    return found
