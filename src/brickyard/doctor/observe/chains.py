"""See which layer is given exactly what another layer returned, in the order of calls."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch import nn

from brickyard.doctor.observe.nonfinite import walk
from brickyard.doctor.observe.record import Seen
from brickyard.doctor.observe.tensors import first_tensor, tensors


class Chains:
    """Follow the outputs of linear layers within one call of a model."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[nn.Linear, weakref.ref[torch.Tensor]]] = {}  # by output
        self.used: dict[int, list[nn.Module]] = {}

    def layer(self, module: nn.Module, args: Any, output: Any) -> None:
        """Hear of a layer without children that was called.

        Args:
            module: the layer.
            args: what it was given.
            output: what it returned.
        """
        given = first_tensor(args)
        maker = self.made.get(id(given))
        if given is not None and maker is not None and maker[1]() is given:
            self.used.setdefault(id(given), []).append(module)
        if isinstance(module, nn.Linear) and isinstance(output, torch.Tensor):
            self.made[id(output)] = (module, weakref.ref(output))

    def end(self, seen: Seen, names: dict[int, str], result: Any) -> None:
        """Note linear layers whose output went into one other linear layer alone, and forget.

        Args:
            seen: where to.
            names: paths of modules by id.
            result: what the model returned; its graph tells who else was given an output.
        """
        edges: Counter[Any] | None = None
        for key, users in self.used.items():
            first, made = self.made[key][0], self.made[key][1]()
            second = users[0]
            if len(users) > 1 or not isinstance(second, nn.Linear) or id(first) not in names:
                continue
            edges = _edges(result) if edges is None else edges
            if made is None or edges[made.grad_fn] != 1:
                continue
            inner = first.out_features
            if inner >= first.in_features or inner >= second.out_features:
                seen.note("linear-linear", names[id(first)], inner=inner,
                          sizes=(first.in_features, inner, second.out_features),
                          second=names.get(id(second), ""))  # fmt: skip
        self.made.clear()
        self.used.clear()


def _edges(result: Any) -> Counter[Any]:
    """Return how often each node of a graph is the input of another one."""
    roots = {t.grad_fn for t in tensors(result) if t.grad_fn is not None}
    nodes = {node for root in roots for node in walk(root)}
    return Counter(n for node in nodes for n, _ in node.next_functions if n is not None)
