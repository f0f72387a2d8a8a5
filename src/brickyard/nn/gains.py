"""What an activation asks of the weights before it: a family of initializers, and a gain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brickyard.nn.thresholds import TLU, SquaredReLU, squared_relu

__all__ = ["LINEAR", "TANH_GAIN", "Start", "best_of", "of_function", "spread", "start_before"]

#: For tanh, 1 lets a deep stack fade (each layer shrinks what it gets: after 30 layers 0.2 of the
#: first layer's spread is left, and of the gradient), and 5/3 keeps activations level but makes
#: gradients 14 times as large on their way back through 30 layers. At 1.1 both settle.
TANH_GAIN = 1.1


class Start(NamedTuple):
    """Name a family, "kaiming", "xavier" or "lecun", with the gain and the reason for them."""

    family: str
    gain: float
    why: str


LINEAR = Start("xavier", 1.0, "no activation follows")

#: Pass the positive side on and cut or damp the negative one.
_RECTIFIERS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.PReLU, nn.ELU, nn.CELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Softplus, nn.Hardswish, TLU, SquaredReLU,
)  # fmt: skip
_SQUASHES = (nn.Sigmoid, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.GLU)
_WEIGHTS = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin)

#: Functions that stand for modules in code that a trace reads; True: takes the module's options.
_FUNCTIONS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "relu": (nn.ReLU, ()), "relu_": (nn.ReLU, ()), "relu6": (nn.ReLU6, ()),
    "leaky_relu": (nn.LeakyReLU, ("negative_slope",)), "elu": (nn.ELU, ("alpha",)),
    "celu": (nn.CELU, ("alpha",)), "selu": (nn.SELU, ()), "silu": (nn.SiLU, ()),
    "gelu": (nn.GELU, ()), "mish": (nn.Mish, ()), "softplus": (nn.Softplus, ("beta",)),
    "hardswish": (nn.Hardswish, ()), "hardtanh": (nn.Hardtanh, ("min_val", "max_val")),
    "tanh": (nn.Tanh, ()), "tanh_": (nn.Tanh, ()), "sigmoid": (nn.Sigmoid, ()),
    "sigmoid_": (nn.Sigmoid, ()), "hardsigmoid": (nn.Hardsigmoid, ()),
    "softsign": (nn.Softsign, ()), "logsigmoid": (nn.LogSigmoid, ()), "glu": (nn.GLU, ()),
    "softmax": (nn.Softmax, ()), "log_softmax": (nn.LogSoftmax, ()),
    squared_relu.__name__: (SquaredReLU, ()),
}  # fmt: skip


def of_function(function: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> nn.Module | None:
    """Return the activation module that a function (or a method's name) stands for, or None.

    Args:
        function: what is called: ``F.gelu``, ``torch.relu``, ``"relu"``.
        args: its positional arguments behind the input.
        kwargs: its keyword arguments.
    """
    name = function if isinstance(function, str) else getattr(function, "__name__", "")
    module = getattr(function, "__module__", None) or ""
    if not isinstance(function, str) and not module.startswith(("torch", "brickyard", "_")):
        return None  # somebody's own function of that name
    found = _FUNCTIONS.get(name)
    if found is None:
        return None
    options = dict(zip(found[1], args, strict=False))
    options |= {k: v for k, v in (kwargs or {}).items() if k in found[1]}
    return found[0](**{k: v for k, v in options.items() if isinstance(v, int | float)})


def start_before(activation: nn.Module) -> Start | None:
    """Return how weights start before ``activation``; None if it is none that is known.

    Args:
        activation: the module that follows.
    """
    name = type(activation).__name__
    if isinstance(activation, nn.SELU):
        return Start("lecun", 1.0, "SELU follows")
    if isinstance(activation, nn.Hardtanh) and activation.min_val >= 0:  # ReLU6 and its like
        return Start("kaiming", spread(activation), f"{name} follows")
    if isinstance(activation, nn.Tanh | nn.Hardtanh):
        return Start("xavier", TANH_GAIN, f"{name} follows")
    if isinstance(activation, _RECTIFIERS):
        return Start("kaiming", spread(activation), f"{name} follows")
    if isinstance(activation, _SQUASHES + _WEIGHTS):
        return Start("xavier", 1.0, f"{name} follows")
    return None


def spread(activation: nn.Module) -> float:
    """Return one over the root mean square of ``activation`` on a standard normal input.

    sqrt(2) for ReLU, sqrt(2 / (1 + a^2)) for a leaky one: with this gain a layer puts out what it
    gets in, if its output is normal with variance 1.

    Args:
        activation: a module that works value by value; PReLU is taken at its mean slope.
    """
    function: Callable[[Tensor], Tensor] = activation
    if isinstance(activation, nn.PReLU):
        slope = float(activation.weight.detach().double().mean())
        function = nn.LeakyReLU(slope)
    elif isinstance(activation, nn.RReLU):
        function = nn.LeakyReLU((activation.lower + activation.upper) / 2)
    elif isinstance(activation, TLU):
        function = nn.ReLU()
    elif getattr(activation, "inplace", False):
        return spread(type(activation)(**_options(activation)))
    z, weight = _normal()
    with torch.no_grad():
        return float((weight * function(z).square()).sum().rsqrt())


def _options(activation: nn.Module) -> dict[str, Any]:
    names = ("negative_slope", "alpha", "min_val", "max_val")
    return {name: getattr(activation, name) for name in names
            if hasattr(activation, name) and not isinstance(activation, nn.ReLU6)}  # fmt: skip


def _normal() -> tuple[Tensor, Tensor]:
    """Return points on a line and the weights of a standard normal on them."""
    z = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    weight = torch.exp(-z.square() / 2)
    return z, weight / weight.sum()


def best_of(pieces: int) -> float:
    """Return one over the root mean square of the largest of ``pieces`` standard normals."""
    z, weight = _normal()
    below = torch.special.ndtr(z).pow(pieces - 1)
    return float((pieces * weight * below * z.square()).sum().rsqrt())


def gate(kind: str) -> float:
    """Return one over the root mean square of ``silu`` or ``gelu`` of a normal times another."""
    z, weight = _normal()
    function = F.silu if kind == "silu" else F.gelu
    return 1 / math.sqrt(float((weight * function(z).square()).sum()))
