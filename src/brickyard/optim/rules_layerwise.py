"""Rules that look at a whole tensor: layer-wise rates, orthogonal updates; and a look ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from brickyard.optim.maths import maximum, per_matrix, when
from brickyard.optim.ranges import MEMORY, in_range, whole, within
from brickyard.optim.rule import rule

__all__ = ["Orthogonalize", "scale_by_lars", "scale_by_muon", "velocity_ahead"]

#: Slopes of Newton-Schulz steps: steep at 0, so that small singular values grow fast.
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def _muon(ns_coefficients: Any = NS_COEFFICIENTS, ns_steps: Any = 5, adjust: str = "original",
          **values: Any) -> None:  # fmt: skip
    within(momentum=MEMORY)(**values)
    if len(ns_coefficients) != 3:
        raise ValueError(f"ns_coefficients are three numbers (a, b, c); got {ns_coefficients!r}")
    whole("ns_steps", ns_steps)
    if ns_steps >= 100:
        raise ValueError(f"ns_steps must be below 100: 5 are usual; got {ns_steps!r}")
    if adjust not in ("original", "match_rms_adamw"):
        raise ValueError(f"adjust (adjust_lr_fn) must be 'original' or 'match_rms_adamw'; "
                         f"got {adjust!r}")  # fmt: skip


@rule(hyper={"momentum": 0.9, "weight_decay": 0.0}, slots={"momentum_buffer": "zeros"},
      role="rate", check=in_range)  # fmt: skip
def velocity_ahead(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Keep a velocity from gradients taken at ``p - momentum*v``, decay included.

    Math:
        v = momentum*v + lr*(u + weight_decay*(p - momentum*v));  p = p - v
    """
    kept = h.momentum * s.momentum_buffer
    v = kept + h.lr * (u + h.weight_decay * (p - kept))
    return v, {"momentum_buffer": v}


@rule(hyper={"weight_decay": 0.0, "trust_coefficient": 1e-3}, check=in_range)
def scale_by_lars(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Give each tensor a rate in proportion to its norm over its gradient's.

    Math:
        rate = trust_coefficient*||p|| / (||u|| + weight_decay*||p||), 1 where a norm is 0
        u = rate*(u + weight_decay*p)
    """
    pn, un = p.norm(), u.norm()
    rate = when((pn > 0) & (un > 0), h.trust_coefficient * pn / (un + h.weight_decay * pn), 1.0)
    return rate * (u + h.weight_decay * p)


@dataclass(frozen=True)
class Orthogonalize:
    """Bring all singular values of a matrix close to 1, by Newton-Schulz steps; scale by shape.

    Tensors of more than two dimensions are taken as one row per first index. On accelerators the
    products run in bfloat16, which is accurate enough here; on CPU in the input's type.

    Args:
        coefficients: a, b, c of the polynomial a*x + b*x^3 + c*x^5.
        steps: how many times it is applied.
        adjust: ``"original"``: times sqrt(max(1, rows/cols)); ``"match_rms_adamw"``: times
            0.2*sqrt(max(rows, cols)), the size of AdamW's updates.
    """

    coefficients: tuple[float, float, float] = NS_COEFFICIENTS
    steps: int = 5
    adjust: str = "original"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the update for a tensor whose Frobenius norm is 1 (or 0)."""
        a, b, c = self.coefficients
        whole = x.reshape(x.shape[0], -1)
        rows, cols = whole.shape
        wide = whole.T if rows > cols else whole
        wide = wide.bfloat16() if wide.device.type != "cpu" else wide
        for _ in range(self.steps):
            gram = wide @ wide.T
            wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
        whole = wide.T if rows > cols else wide
        if self.adjust == "original":
            factor = max(1.0, rows / cols) ** 0.5
        else:
            factor = 0.2 * max(rows, cols) ** 0.5
        return (whole.to(x.dtype) * factor).reshape(x.shape)


@rule(slots={"momentum_buffer": "zeros"}, hyper={"momentum": 0.95, "eps": 1e-7},
      options={"nesterov": True, "ns_coefficients": NS_COEFFICIENTS, "ns_steps": 5,
               "adjust": "original"}, check=_muon)  # fmt: skip
def scale_by_muon(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Replace the momentum of a matrix by the nearest matrix with equal singular values.

    Math:
        m = momentum*m + (1-momentum)*u;  x = m, or (1-momentum)*u + momentum*m with nesterov
        x = x / max(||x||, eps);  ns_steps times: A = x*x';  x = a*x + (b*A + c*A^2)*x
        u = x * sqrt(max(1, rows/cols)), or x * 0.2*sqrt(max(rows, cols))
    """
    m = torch.lerp(s.momentum_buffer, u, 1 - h.momentum)
    x = torch.lerp(u, m, h.momentum) if h.nesterov else m
    orthogonalize = Orthogonalize(h.ns_coefficients, h.ns_steps, h.adjust)
    return per_matrix(orthogonalize, x / maximum(x.norm(), h.eps)), {"momentum_buffer": m}
