"""Activations of our own that work value by value: the learned threshold, ReLU squared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from brickyard.catalog import brick

__all__ = ["TLU", "SquaredReLU", "per_channel", "squared_relu", "tlu"]


def per_channel(who: str, values: Tensor, x: Tensor) -> Tensor:
    """Return ``values`` of shape ``(C,)`` as ``(C, 1, ...)``, to stand at the second axis of ``x``.

    Args:
        who: name of the layer, for the message.
        values: one number a channel.
        x: input ``(N, C, *)``.

    Raises:
        ValueError: ``x`` has no second axis of that size.
    """
    if x.ndim < 2 or x.shape[1] != values.shape[0]:
        raise ValueError(
            f"{who} of {values.shape[0]} channels takes (N, C, *) with the channels second, got "
            f"{tuple(x.shape)}; give num_features={x.shape[1] if x.ndim > 1 else '...'}, or move "
            f"the channels to axis 1"
        )
    return values.view(-1, *[1] * (x.ndim - 2))


def tlu(x: Tensor, tau: Tensor) -> Tensor:
    """Return the larger of ``x`` and its channel's threshold; see :class:`TLU`."""
    return _Threshold.apply(x, per_channel("TLU", tau, x))  # pyright: ignore[reportReturnType]


class _Threshold(torch.autograd.Function):
    """Cut off below; torch's maximum spends three masks on ties in its backward pass.

    Math:
        y = max(x, tau);   dL/dx = g where x > tau, else 0;   dL/dtau = sum(g - dL/dx)
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, tau: Tensor) -> Tensor:
        return torch.maximum(x, tau.to(x.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, tau = ctx.saved_tensors
        dx = grads[0] * (x > tau.to(x.dtype))
        rest = (0, *range(2, x.ndim))
        exact = torch.promote_types(x.dtype, torch.float32)
        below = grads[0].sum(rest, dtype=exact) - dx.sum(rest, dtype=exact)
        return dx, below.view_as(tau).to(tau.dtype)


@brick(
    "activation",
    "tlu",
    aliases=("thresholded_linear_unit",),
    public="brickyard.nn",
    summary="A ReLU whose threshold is learned, one for each channel: the other half of FRN.",
    use_when="The normalization is frn, which leaves the mean of a channel where it is.",
    avoid_when="Behind a norm that centres and shifts (batch_norm, group_norm): ReLU with that "
    "shift says the same. On (N, L, C) tokens: the channels must be the second axis.",
    best_for="Convolutional networks normalized by frn.",
    paper="Singh & Krishnan 2020, Filter Response Normalization Layer, arXiv:1911.09737, section 3",
    tune_first="Nothing in it; leave tau out of weight decay (param_groups does).",
    cost="1 parameter a channel; one comparison a value; backward keeps the input.",
    pairs_with=("frn", "kaiming_normal_"),
)
class TLU(nn.Module):
    """Replace values below a learned threshold of their channel by the threshold.

    Math:
        y = max(x, tau) = ReLU(x - tau) + tau,   tau = 0 at the start

    Args:
        num_features: channels C of an input ``(N, C)`` or ``(N, C, *)``; same shape out.
        device: where the thresholds are made.
        dtype: their number format.

    Raises:
        ValueError: the input's second axis is not ``num_features`` long.

    Example:
        >>> TLU(2)(torch.tensor([[-1.0, 3.0]]))
        tensor([[0., 3.]], grad_fn=<_ThresholdBackward>)

    Reference:
        Singh & Krishnan 2020, arXiv:1911.09737, section 3.
    """

    no_decay = True

    def __init__(
        self,
        num_features: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.tau = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` cut off below at the thresholds."""
        return tlu(x, self.tau)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"{self.num_features}"


def squared_relu(x: Tensor) -> Tensor:
    """Return the square of the positive part; see :class:`SquaredReLU`."""
    return torch.relu(x).square()


@brick(
    "activation",
    "squared_relu",
    aliases=("relu2", "relu_squared"),
    public="brickyard.nn",
    summary="The square of ReLU, found by search to train transformers' feed-forward blocks "
    "faster.",
    use_when="A transformer's feed-forward block is to stay plain (two matrices) and train in "
    "fewer steps than with gelu.",
    avoid_when="Activations are not normalized: sizes are squared in every layer, so deep plain "
    "stacks and large rates blow up. fp16 without loss scaling.",
    best_for="Feed-forward blocks of pre-norm language models.",
    paper="So et al. 2021, Primer: Searching for Efficient Transformers for Language Modeling, "
    "arXiv:2109.08668 (Squared ReLU)",
    tune_first="The learning rate; then the spread of the layer before it (initialize does).",
    cost="One comparison and one multiplication a value; backward keeps the rectified input.",
    pairs_with=("layer_norm", "rms_norm"),
)
class SquaredReLU(nn.Module):
    """Square what is positive and zero the rest.

    Math:
        y = max(0, x)^2

    Example:
        >>> SquaredReLU()(torch.tensor([-2.0, 3.0]))
        tensor([0., 9.])

    Reference:
        So et al. 2021, arXiv:2109.08668 (Squared ReLU).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``max(0, x) ** 2``; same shape as ``x``."""
        return squared_relu(x)
