"""Activations that hold weights: Maxout, and the gated feed-forward blocks SwiGLU and GeGLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brickyard.catalog import brick

__all__ = ["GeGLU", "Maxout", "SwiGLU", "geglu", "maxout", "swiglu"]

_SHAZEER = "Shazeer 2020, GLU Variants Improve Transformer, arXiv:2002.05202"


def maxout(x: Tensor, pieces: int = 2) -> Tensor:
    """Return the largest of ``pieces`` values for each unit; see :class:`Maxout`.

    Args:
        x: ``(*, pieces * units)``: the first pieces of all units, then the second of all, ...
        pieces: how many values compete for a unit.

    Raises:
        ValueError: ``pieces`` below 1, or the last axis is no multiple of it.

    Example:
        >>> maxout(torch.tensor([1.0, 2.0, 5.0, 0.0]))
        tensor([5., 2.])
    """
    if x.ndim == 0 or pieces < 1 or x.shape[-1] % pieces:
        raise ValueError(
            f"maxout takes a last axis that is a positive multiple of pieces={pieces}, got shape "
            f"{tuple(x.shape)}; make the layer before it pieces * units wide"
        )
    return x.unflatten(-1, (pieces, x.shape[-1] // pieces)).max(-2).values


@brick(
    "activation",
    "maxout",
    public="brickyard.nn",
    summary="The largest of several linear maps: an activation whose shape is learned.",
    use_when="A dense network with dropout should learn its own convex activation and may spend "
    "`pieces` times the weights of a layer.",
    avoid_when="Parameters or time are short: a ReLU layer of the same size is usually as good as "
    "the two maps spent here. On images (it works on the last axis: features).",
    best_for="Dense networks with dropout; reproducing published ones.",
    paper="Goodfellow et al. 2013, Maxout Networks, arXiv:1302.4389",
    tune_first="pieces: 2, at most 5; then dropout before it.",
    cost="pieces * in * out weights, one matrix product; backward keeps the input and which piece "
    "won.",
    pairs_with=("dropout", "lecun_normal_"),
)
class Maxout(nn.Module):
    """Take, for each unit, the largest of several affine maps of the input.

    Math:
        y_i = max_k (w_(k,i) . x + b_(k,i)),   k = 1 ... pieces

    Args:
        in_features: length of the input's last axis.
        out_features: length of the output's last axis.
        pieces: affine maps a unit chooses from; at least 2. One matrix product does them all;
            rows ``k * out_features`` to ``(k + 1) * out_features`` of ``linear.weight`` are map k.
        bias: give each map a bias.
        device: where the weights are made.
        dtype: their number format.

    Raises:
        ValueError: ``pieces`` below 2.

    Example:
        >>> Maxout(4, 3, pieces=2)(torch.zeros(5, 4)).shape
        torch.Size([5, 3])

    Reference:
        Goodfellow et al. 2013, arXiv:1302.4389, section 2.
    """

    #: works on the last axis, which is no feature axis in images (N, C, H, W)
    features_last = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pieces: int = 2,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if isinstance(pieces, bool) or not isinstance(pieces, int) or pieces < 2:
            raise ValueError(
                f"Maxout: pieces must be a whole number of at least 2, got {pieces!r}; one piece "
                f"is a linear layer"
            )
        self.in_features, self.out_features, self.pieces = in_features, out_features, pieces
        self.linear = nn.Linear(in_features, pieces * out_features, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(*, out_features)`` for ``(*, in_features)``."""
        return maxout(self.linear(x), self.pieces)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"{self.in_features}, {self.out_features}, pieces={self.pieces}"


def swiglu(gate: Tensor, value: Tensor) -> Tensor:
    """Return ``silu(gate) * value``; see :class:`SwiGLU`."""
    return F.silu(gate) * value


def geglu(gate: Tensor, value: Tensor) -> Tensor:
    """Return ``gelu(gate) * value``; see :class:`GeGLU`."""
    return F.gelu(gate) * value


class _Gated(nn.Module):
    """Hold the two matrices of a gated block; gate and value come out of one product."""

    features_last = True

    def __init__(
        self,
        dim: int,
        hidden: int | None = None,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if hidden is None:
            hidden = 8 * -(-dim // 3)  # 8/3 dim, rounded up to a multiple of 8
        if dim < 1 or hidden < 1:
            raise ValueError(
                f"{type(self).__name__}: dim and hidden must be at least 1, got dim={dim}, "
                f"hidden={hidden}"
            )
        self.dim, self.hidden = dim, hidden
        self.w_in = nn.Linear(dim, 2 * hidden, bias, device, dtype)
        self.w_out = nn.Linear(hidden, dim, bias, device, dtype)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"{self.dim}, hidden={self.hidden}"


@brick(
    "activation",
    "swiglu",
    public="brickyard.nn",
    summary="A feed-forward block in which one linear map, through SiLU, gates another.",
    use_when="You write a transformer's feed-forward block and weights need not load into a plain "
    "one.",
    avoid_when="On images (it mixes the last axis: features). As a mere activation between layers "
    "of a small network: it is two matrices of its own.",
    best_for="Feed-forward blocks of language models of the LLaMA and PaLM kind.",
    paper=_SHAZEER,
    tune_first="hidden: 8/3 of dim has as many weights as a plain block of 4 * dim.",
    cost="3 * dim * hidden weights in two matrix products; backward keeps gate, value and product.",
    pairs_with=("rms_norm", "residual"),
)
class SwiGLU(_Gated):
    """Map features up twice, gate one map by SiLU of the other, and map back.

    Math:
        y = W_out (silu(W_gate x) * (W_value x)),   silu(z) = z * sigmoid(z)

    Args:
        dim: length of the last axis of input and output.
        hidden: width in between; None for 8/3 of ``dim``, rounded up to a multiple of 8.
        bias: give all maps biases; the paper's have none.
        device: where the weights are made.
        dtype: their number format.

    The first ``hidden`` rows of ``w_in.weight`` are the gate, the others the value.

    Raises:
        ValueError: ``dim`` or ``hidden`` below 1.

    Example:
        >>> block = SwiGLU(12)
        >>> block.hidden, block(torch.zeros(2, 5, 12)).shape
        (32, torch.Size([2, 5, 12]))

    Reference:
        Shazeer 2020, arXiv:2002.05202, equation 6.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(*, dim)`` for ``(*, dim)``."""
        return self.w_out(swiglu(*self.w_in(x).chunk(2, -1)))


@brick(
    "activation",
    "geglu",
    public="brickyard.nn",
    summary="A feed-forward block in which one linear map, through GELU, gates another.",
    use_when="As swiglu, where the model you follow has GELU gates (T5 v1.1, Gemma).",
    avoid_when="On images (it mixes the last axis: features). Loaded weights used the tanh form of "
    "GELU, as T5 v1.1 and Gemma do: write gelu(gate, approximate='tanh') * value yourself.",
    best_for="Feed-forward blocks of encoder-decoder transformers.",
    paper=_SHAZEER,
    tune_first="hidden: 8/3 of dim has as many weights as a plain block of 4 * dim.",
    cost="3 * dim * hidden weights in two matrix products; backward keeps gate, value and product.",
    pairs_with=("rms_norm", "residual"),
)
class GeGLU(_Gated):
    """Map features up twice, gate one map by GELU of the other, and map back.

    Math:
        y = W_out (gelu(W_gate x) * (W_value x)),   gelu(z) = z * Phi(z)

    Args:
        dim: length of the last axis of input and output.
        hidden: width in between; None for 8/3 of ``dim``, rounded up to a multiple of 8.
        bias: give all maps biases; the paper's have none.
        device: where the weights are made.
        dtype: their number format.

    The first ``hidden`` rows of ``w_in.weight`` are the gate, the others the value.

    Raises:
        ValueError: ``dim`` or ``hidden`` below 1.

    Example:
        >>> GeGLU(12, hidden=20)(torch.zeros(2, 12)).shape
        torch.Size([2, 12])

    Reference:
        Shazeer 2020, arXiv:2002.05202, equation 6.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(*, dim)`` for ``(*, dim)``."""
        return self.w_out(geglu(*self.w_in(x).chunk(2, -1)))
