"""Run a model once on a few training samples, to see what it gives and what it is made of."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brickyard import catalog
from brickyard.catalog.pairs import Layer
from brickyard.errors import RecipeError
from brickyard.train.data import Data, batches

__all__ = ["Probe", "probe"]

_SAMPLES = 32
_DIMS = re.compile(r"[123]d$")
_KINDS = ("activation", "normalization", "dropout", "residual")
_WEIGHTS = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass(frozen=True)
class Probe:
    """Hold what a model gave for a few samples.

    Args:
        output: the output, with its graph.
        x: the samples.
        y: the samples' targets as the data has them.
        layers: the layers in the order in which they ran; one that runs twice stands twice.
    """

    output: Any
    x: Tensor
    y: Tensor
    layers: tuple[Layer, ...]


def probe(
    forward: Callable[[nn.Module, Tensor], Any], model: nn.Module, data: Data,
    place: Callable[[Tensor], Tensor], autocast: Any,
) -> Probe:  # fmt: skip
    """Run ``model`` on the first training samples.

    Nothing of the run changes: the model is in eval mode meanwhile, and random numbers that it
    draws are put back.

    Args:
        forward: called with model and samples; returns the output.
        model: the network.
        data: what is trained on.
        place: puts samples on the model's device.
        autocast: context of the forward pass.

    Raises:
        RecipeError: the model cannot take the samples.
    """
    size = min(_SAMPLES, len(data.train))
    ran: list[Layer] = []
    with _undisturbed(model), _watched(model, ran), torch.enable_grad(), autocast:
        x, y = map(
            place, next(batches(data.train, size, shuffle=False, seed=0, on_error="skip").epoch(0))
        )
        try:
            output = forward(model, x)
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            reason = str(error).splitlines()[0] if str(error) else ""
            raise RecipeError(
                f"model: {type(model).__name__} cannot take a batch of {data.name} of shape "
                f"{tuple(x.shape)}: {type(error).__name__}: {reason}"
            ) from error
    return Probe(output, x, y, tuple(ran))


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    drawn = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        model.eval()
        try:
            yield
        finally:
            random.setstate(drawn[0])
            np.random.set_state(drawn[1])
            for module, mode in modes:
                module.training = mode


@contextmanager
def _watched(model: nn.Module, ran: list[Layer]) -> Iterator[None]:
    """Write down every layer as it runs."""

    def note(layer: Layer) -> Callable[..., None]:
        return lambda *_: ran.append(layer)

    handles = [
        module.register_forward_hook(note(_describe(path, module)))
        for path, module in model.named_modules()
        if not set(dict(module.named_children())) - {"parametrizations"} or _key(module)[0]
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _describe(path: str, module: nn.Module) -> Layer:
    key, kind = _key(module)
    bias = getattr(module, "bias", None)
    if isinstance(module, _WEIGHTS):
        kind = "linear" if isinstance(module, nn.Linear) else "convolution"
    rate = getattr(module, "p", None)
    return Layer(
        path=path, key=key, kind=kind, bias=isinstance(bias, Tensor),
        rate=float(rate) if kind == "dropout" and isinstance(rate, int | float) else 0.0,
        parameters=tuple(f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)),
    )  # fmt: skip


def _key(module: nn.Module) -> tuple[str, str]:
    """Return key and kind of the brick that a layer is; empty for what has no card."""
    name = type(module).__name__.removeprefix("Parametrized")
    exact, families = _bricks()
    return exact.get(name) or families.get(_DIMS.sub("", name), ("", ""))


@cache
def _bricks() -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]]:
    """Return the bricks that are layers by class name, and those of ``...2d`` by family."""
    cards = [card for kind in _KINDS for card in catalog.shelf(kind)]
    exact = {card.name: (card.key, card.kind) for card in cards}
    return exact, {_DIMS.sub("", n): brick for n, brick in exact.items() if _DIMS.search(n)}
