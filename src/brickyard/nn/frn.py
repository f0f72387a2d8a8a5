"""Filter response normalization: each channel of each sample by its own mean square."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.nn.thresholds import per_channel

__all__ = ["FRN", "filter_response_norm"]

#: Where the learned part of eps starts, as in the paper.
LEARNED_EPS = 1e-4


def filter_response_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6, learned_eps: Tensor | None = None
) -> Tensor:
    """Divide each channel of each sample by its root mean square, scale and shift.

    Args:
        x: ``(N, C, *)``.
        weight: gamma, ``(C,)``.
        bias: beta, ``(C,)``.
        eps: added to the mean square.
        learned_eps: one number whose absolute value is added to ``eps``.

    Raises:
        ValueError: the second axis is not that of ``weight``; or no axes behind it (or axes of
            one position alone) without ``learned_eps``: the result would be the sign of ``x``.
    """
    gamma, beta = per_channel("FRN", weight, x), per_channel("FRN", bias, x)
    if learned_eps is None:
        if x.shape[2:].numel() == 1:
            raise ValueError(
                f"FRN takes the mean square over the positions behind the channels, and "
                f"{tuple(x.shape)} has one position: the result would be the sign of each value. "
                f"Give learn_eps=True, or take layer_norm"
            )
        floor = torch.full((), eps, dtype=_exact(x), device=x.device)
    else:
        floor = eps + learned_eps.to(_exact(x)).abs()
    return _FilterResponse.apply(x, gamma, beta, floor)[0]  # pyright: ignore[reportReturnType]


def _exact(x: Tensor) -> torch.dtype:
    """Return the number format for sums over ``x``."""
    return torch.promote_types(x.dtype, torch.float32)


class _FilterResponse(torch.autograd.Function):
    """Compute FRN in one pass after the reduction, and its gradient beside one temporary.

    Math:
        r = (mean(x^2) + eps)^(-1/2),   s = gamma * r,   y = s * x + beta
        dL/dx = s * g - x * s * r^2 * sum(g * x) / positions
        dL/dgamma = sum_n r * sum(g * x),   dL/dbeta = sum(g)
        dL/deps = -sum(s * r^2 * sum(g * x)) / 2
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, gamma: Tensor, beta: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        r = _inverse_root(x, eps)
        s = gamma * r  # for tiny values beyond fp16, unlike the product
        return torch.addcmul(beta.to(s.dtype), x.to(s.dtype), s).to(x.dtype), r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        x, gamma, _, eps = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, gamma, eps, output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, gamma, eps, r = ctx.saved_tensors
        g = grads[0]
        again = torch.is_grad_enabled()  # somebody will differentiate what is computed here
        if again:
            r = _inverse_root(x, eps)
        kept, x, g = x.dtype, x.to(r.dtype), g.to(r.dtype)  # r^3 and g * x leave fp16's range
        places = _places(x)
        shared = (g * x).sum(places, keepdim=True) if places else g * x
        s = gamma * r
        pull = s * r.square() * shared
        dx, back = g * s, pull / x.shape[2:].numel()
        dx = dx - x * back if again else dx.addcmul_(x, back, value=-1)
        rest = (0, *places)
        dgamma = (r * shared).sum(0).to(gamma.dtype)
        dbeta = g.sum(rest).view_as(gamma).to(gamma.dtype)
        return dx.to(kept), dgamma, dbeta, (pull.sum() / -2).to(eps.dtype).view_as(eps)


def _places(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _inverse_root(x: Tensor, eps: Tensor) -> Tensor:
    """Return ``(N, C, 1, ...)``: one over the root of the mean square plus eps."""
    places, exact = _places(x), _exact(x)
    if not places:
        return (x.to(exact).square() + eps).rsqrt()
    if torch.is_grad_enabled():  # the norm has no gradient at zero, its square has
        square = x.to(exact).square().mean(places, keepdim=True)
    else:  # one pass without a temporary of the input's size
        norm = torch.linalg.vector_norm(x, 2, places, keepdim=True, dtype=exact)
        square = norm.square() / x.shape[2:].numel()
    return (square + eps).rsqrt()


@brick(
    "normalization",
    "frn",
    aliases=("filter_response_norm",),
    public="brickyard.nn",
    shares="one mean square a sample and channel, over its positions",
    summary="Divides each channel of each sample by its root mean square: no batch, no mean; goes "
    "with TLU.",
    use_when="A convolutional classifier or detector trains with few samples a device, and you "
    "can replace norm and activation together: frn and tlu.",
    avoid_when="The activation stays ReLU: without a mean taken away, channels can sit below zero "
    "for good, which tlu's threshold repairs. Maps of one position, dense layers: learn_eps=True "
    "or another norm. Large rates from the first step: the paper needed a warmup.",
    best_for="Convolutional networks with 1 to 8 samples a device, and tlu behind each frn.",
    paper="Singh & Krishnan 2020, Filter Response Normalization Layer, arXiv:1911.09737: with TLU, "
    "0.7 to 1.0 points over batch norm on ImageNet",
    tune_first="A warmup of the learning rate; learn_eps only for maps of few positions.",
    cost="2 parameters a channel (and one for eps); two passes over the activations, no state "
    "between steps, the same in training and evaluation.",
    pairs_with=("tlu", "warmup"),
)
class FRN(nn.Module):
    """Divide each channel of each sample by its root mean square over positions.

    Math:
        nu2 = mean of x^2 over the positions of a sample and channel
        y = gamma * x / sqrt(nu2 + eps) + beta
        with learn_eps: eps + |eps_l| in place of eps, eps_l learned, 1e-4 at the start

    Args:
        num_features: channels C of an input ``(N, C, *)``; same shape out.
        eps: added to the mean square.
        learn_eps: learn a number that is added to ``eps``; needed where a channel has only one
            position, since x / sqrt(x^2) is the sign of x and has no gradient.
        device: where the parameters are made.
        dtype: their number format.

    Sums are taken in at least fp32, whatever the input's format.

    Raises:
        ValueError: the second axis is not ``num_features`` long; one position without
            ``learn_eps``; a negative ``eps``; no channels.

    Example:
        >>> FRN(1)(torch.tensor([[[3.0, -4.0]]])).detach().round(decimals=3)
        tensor([[[ 0.8490, -1.1310]]])

    Reference:
        Singh & Krishnan 2020, arXiv:1911.09737, section 3.
    """

    no_decay = True
    #: its mean is not taken away, so that a bias before it has an effect
    centers = False

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        learn_eps: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1 or eps < 0:
            raise ValueError(
                f"FRN: num_features must be at least 1 and eps at least 0, got {num_features} and "
                f"{eps}"
            )
        self.num_features, self.eps, self.learn_eps = num_features, eps, learn_eps
        self.weight = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype))
        learned = torch.empty(1, device=device, dtype=dtype)  # not 0-d: sharding refuses scalars
        self.register_parameter("eps_l", nn.Parameter(learned) if learn_eps else None)
        self.reset_parameters()

    eps_l: Tensor | None

    def reset_parameters(self) -> None:
        """Set gamma to 1, beta to 0, and the learned part of eps to its start."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        if self.eps_l is not None:
            nn.init.constant_(self.eps_l, LEARNED_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalized; same shape, format and layout."""
        return filter_response_norm(x, self.weight, self.bias, self.eps, self.eps_l)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"{self.num_features}, eps={self.eps}, learn_eps={self.learn_eps}"
