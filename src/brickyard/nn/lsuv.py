"""LSUV: orthonormal weights scaled layer by layer until each puts out variance one on a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from brickyard.catalog import brick
from brickyard.nn.follow import has_fan
from brickyard.nn.starts import check_real

__all__ = ["Variance", "Variances", "lsuv_"]


@dataclass(frozen=True)
class Variance:
    """Say how a layer's output varied before and after, and how often it was scaled."""

    layer: str
    before: float
    after: float
    scalings: int


class Variances(dict[str, Variance]):
    """Map each layer's name to its :class:`Variance`, in forward order; ``print`` shows a table."""

    def __init__(self, rows: Mapping[str, Variance], unreached: list[str]) -> None:
        super().__init__(rows)
        self.unreached = unreached

    def __str__(self) -> str:
        wide = max([len("layer"), *(len(name) for name in self)])
        lines = [f"{'layer':{wide}}      before       after  scalings"]
        lines += [f"{v.layer:{wide}}  {v.before:10.4g}  {v.after:10.4g}  {v.scalings:8}"
                  for v in self.values()]  # fmt: skip
        if self.unreached:
            lines.append(f"not reached by the batch, left alone: {', '.join(self.unreached)}")
        return "\n".join(lines)

    __repr__ = __str__


@brick(
    "initializer",
    "lsuv_",
    public="brickyard.nn.init",
    aliases=("lsuv",),
    summary="Scales orthonormal weights layer by layer to an output variance of one on a batch.",
    use_when="A deep network mixes activations for which no formula is known, without "
    "normalization; you have a batch of real, standardized inputs.",
    avoid_when="Normalization follows the layers anyway: it does the same in every step. The batch "
    "is tiny or not like the data. Weights are pretrained.",
    best_for="Deep plain networks of unusual layers.",
    paper="Mishkin & Matas 2016, All You Need Is a Good Init, arXiv:1511.06422",
    tune_first="The batch: as large as memory allows, from the training set.",
    cost="One forward pass before, one while scaling and one after; a QR decomposition a weight.",
    pairs_with=("orthogonal_", "relu", "tanh"),
)
def lsuv_(
    model: nn.Module,
    batch: Any,
    tol: float = 0.05,
    max_iters: int = 10,
    generator: torch.Generator | None = None,
) -> Variances:
    """Scale orthonormal weights until each layer's output has variance one on ``batch``.

    Math:
        W_l orthonormal, b_l = 0; then for l = 1, 2, ... in forward order, until |v - 1| <= tol:
        v = Var(W_l h_l),   W_l <- W_l / sqrt(v)

    All linear layers and convolutions that the batch reaches are set; one that is called several
    times is scaled at its first call. Dropout is off meanwhile and batch statistics are the
    batch's; modes and running statistics are put back.

    Args:
        model: changed in place.
        batch: what the model is called with: a tensor, a tuple of arguments or a dict of them, on
            the model's device.
        tol: how far from one a variance may stay.
        max_iters: scalings of a layer at the most; one is enough unless a weight is computed.
        generator: source of randomness of the orthonormal start; torch's own when None.

    Returns:
        The variance of each layer's output before (with the weights as they came) and after.

    Raises:
        ValueError: ``tol`` not positive, ``max_iters`` below 1, parameters without values, a layer
            whose output does not vary on the batch or is not finite, or one that stays outside
            ``tol``.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        >>> done = lsuv_(model, torch.randn(64, 8))
        >>> all(abs(v.after - 1) <= 0.05 for v in done.values())
        True

    Reference:
        Mishkin & Matas 2016, arXiv:1511.06422, algorithm 1.
    """
    if tol <= 0 or max_iters < 1:
        raise ValueError(
            f"lsuv_: tol must be positive and max_iters at least 1, got tol={tol}, "
            f"max_iters={max_iters}"
        )
    check_real("lsuv_", model)
    layers = {n: m for n, m in model.named_modules() if has_fan(m)}
    with torch.no_grad(), _quiet(model):
        before = _observe(model, layers, batch)
        for name in before:
            _orthonormal(layers[name], generator)
        scalings = _scale(model, {name: layers[name] for name in before}, batch, tol, max_iters)
        after = _observe(model, layers, batch)
    rows = {n: Variance(n, before[n], after[n], scalings[n]) for n in before}
    return Variances(rows, [name for name in layers if name not in before])


@contextmanager
def _quiet(model: nn.Module) -> Iterator[None]:
    """Switch noise off, keep batch statistics on, and put modes and buffers back at the end."""
    modes = {m: m.training for m in model.modules()}
    kept = {b: b.clone() for b in model.buffers()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would pass over the layers inside
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, value in kept.items():
                buffer.copy_(value)


def _call(model: nn.Module, batch: Any) -> None:
    if isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, tuple | list):
        model(*batch)
    else:
        model(batch)


def _variance(name: str, y: Tensor) -> float:
    value = float(y.detach().double().var(correction=0))
    if not 0 < value < float("inf"):
        what = "does not vary" if value == 0 else "is not finite"
        raise ValueError(
            f"lsuv_: the output of {name} {what} on this batch; give a batch of several different "
            f"samples, and check the layers before it"
        )
    return value


def _observe(model: nn.Module, layers: Mapping[str, nn.Module], batch: Any) -> dict[str, float]:
    """Return the variance of each layer's first output, in forward order."""
    seen: dict[str, float] = {}

    def hook(name: str) -> Any:
        def note(module: nn.Module, args: Any, y: Tensor) -> None:
            if name not in seen:
                seen[name] = _variance(name, y)

        return note

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        _call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _orthonormal(layer: Any, generator: torch.Generator | None) -> None:
    weight: Tensor = layer.weight
    exact = torch.promote_types(weight.dtype, torch.float32)
    value = torch.empty(weight.shape, dtype=exact, device=weight.device)
    _assign(layer, nn.init.orthogonal_(value, generator=generator))
    if layer.bias is not None:
        layer.bias.zero_()


def _assign(layer: Any, value: Tensor) -> None:
    if parametrize.is_parametrized(layer, "weight"):
        layer.weight = value.to(layer.weight.dtype)
    else:
        layer.weight.copy_(value)


def _scale(
    model: nn.Module, layers: Mapping[str, nn.Module], batch: Any, tol: float, max_iters: int
) -> dict[str, int]:
    """Scale each layer at its first call within one forward pass; return how often each was."""
    done: dict[str, int] = {}

    def hook(name: str) -> Any:
        def settle(module: Any, args: Any, kwargs: Any, y: Tensor) -> Tensor | None:
            if name in done:
                return None
            done[name] = 0
            value = _variance(name, y)
            while abs(value - 1) > tol:
                if done[name] == max_iters:
                    raise ValueError(
                        f"lsuv_: the output of {name} has variance {value:.3g} after {max_iters} "
                        f"scalings and should be within {tol} of 1; a weight that is computed "
                        f"(spectral_norm) cannot be scaled, otherwise raise max_iters or tol"
                    )
                _assign(module, module.weight / value**0.5)
                y = module.forward(*args, **kwargs)
                value = _variance(name, y)
                done[name] += 1
            return y

        return settle

    handles = [layer.register_forward_hook(hook(name), with_kwargs=True)
               for name, layer in layers.items()]  # fmt: skip
    try:
        _call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return done
