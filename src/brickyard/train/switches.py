"""Switches that change how a model runs and not what it computes: recomputation, compilation."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from brickyard.errors import RecipeError, near
from brickyard.train.data import Data
from brickyard.train.parts import Parts
from brickyard.train.probe import probe

__all__ = ["compile_model", "recompute_layers"]

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm


def recompute_layers(model: nn.Module, patterns: str | Sequence[str]) -> list[str]:
    """Have layers forget their activations in training and compute them again going backward.

    Gradients are bit-identical, also with dropout, and running statistics move once. Keys of the
    state are unchanged, copies of the model do the same, and evaluation is as before.

    Args:
        model: the network.
        patterns: of module names, such as ``"body.*"``; of nested matches the outermost counts.
                ``"auto"`` takes the model's largest chain of layers: block by block, or a chain of
            n plain layers in sqrt(n) pieces.

    Returns:
        The names of the layers.

    Raises:
        ValueError: a pattern that matches nothing.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> recompute_layers(net, "auto")
        ['']
    """
    named = {name: module for name, module in model.named_modules() if name}
    if patterns == "auto":
        chain, names = _chain(model)
        if not names:
            module = named.get(chain, model)
            module.forward = types.MethodType(_in_pieces, module)
            return [chain]
    else:
        many = [patterns] if isinstance(patterns, str) else list(patterns)
        for one in many:
            if not any(fnmatchcase(name, one) for name in named):
                raise ValueError(f"{one!r} matches no layer{near(one, named)}")
        names = [name for name in named if any(fnmatchcase(name, one) for one in many)]
    outermost: list[str] = []
    for name in names:
        if not any(name.startswith(f"{other}.") for other in outermost):
            outermost.append(name)
    for name in outermost:
        named[name].forward = types.MethodType(_recomputed, named[name])  # copied with the module
    return outermost


def _chain(model: nn.Module) -> tuple[str, list[str]]:
    """Return the chain with the most weights, and the names of its blocks; none if it has none."""
    chains = [
        (sum(p.numel() for p in module.parameters()), name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Sequential | nn.ModuleList) and len(module) > 1
    ]
    if not chains:
        raise ValueError(
            f"{type(model).__name__} has no chain of layers (nn.Sequential, nn.ModuleList) for "
            "auto; give name patterns"
        )
    _, name, chain = max(chains, key=lambda one: one[0])
    children = dict(chain.named_children())
    blocks = sum(1 for child in children.values() if list(child.children()))
    if isinstance(chain, nn.Sequential) and 2 * blocks < len(children):
        return name, []
    return name, [f"{name}.{child}" if name else child for child in children]


def _in_pieces(self: nn.Sequential, x: Any) -> Any:
    """Be the forward pass of a chain that keeps the inputs of some pieces only."""
    count = math.isqrt(len(self))
    size = -(-len(self) // count)
    for start in range(0, len(self), size):
        x = _recomputed(self[start : start + size].train(self.training), x)
    return x


def _recomputed(self: nn.Module, *given: Any, **named: Any) -> Any:
    """Be the forward pass of a layer that keeps its inputs only."""
    forward = type(self).forward
    if not (self.training and torch.is_grad_enabled()):
        return forward(self, *given, **named)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _statistics_rest(self)

    return checkpoint(forward, self, *given, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _statistics_rest(module: nn.Module) -> Iterator[None]:
    """Keep batch norms from counting a batch twice: they count on copies of their statistics."""
    kept = [
        (m._buffers, name, t)
        for m in module.modules() if isinstance(m, _BATCH_NORMS)
        for name, t in m._buffers.items() if t is not None
    ]  # fmt: skip
    for buffers, name, t in kept:
        buffers[name] = t.clone()
    try:
        yield
    finally:
        for buffers, name, t in kept:
            buffers[name] = t


def compile_model(given: bool | Mapping[str, Any], parts: Parts, data: Data) -> None:
    """Compile a model in place and try it, so that a run which cannot work ends here.

    The model stays the same object with the same keys; averages, checkpoints and exports are those
    of a model that was not compiled.

    Args:
        given: the recipe's ``compile``: options of ``torch.compile``.
        parts: holds the model.
        data: what is trained on.

    Raises:
        RecipeError: it cannot be compiled here; the message has the compiler's reason.
    """
    if given is False:
        return
    options = {} if given is True else dict(given)
    backend = options.get("backend", "inductor")
    device = next(parts.model.parameters()).device
    rule = "compile: torch.compile cannot compile this model here"
    try:
        parts.model.compile(**options)
        probe(parts.task.forward, parts.model, data, lambda t: t.to(device), parts.autocast)
    except Exception as error:  # the compiler's errors have no base of their own
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = [line for line in str(cause).splitlines() if line.strip()]
        reason = lines[0][:200] if lines else ""
        raise RecipeError(
            f"{rule} (backend {backend}): {type(cause).__name__}: {reason}; set compile: false, or "
            "another backend such as compile: {backend: aot_eager}"
        ) from error
