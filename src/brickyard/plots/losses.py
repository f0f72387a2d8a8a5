"""Draw losses: value and gradient against the margin, the error, the overlap or the distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brickyard.catalog import Card
from brickyard.plots.figure import Axis, Figure, Panel, panel, points

__all__ = ["draw"]

_ONE = torch.ones(1, dtype=torch.float64)
_FIRST = torch.zeros(1, dtype=torch.long)
_MARGIN = "margin: logit of the true class, the other at 0"
_YES = "logit, for a positive sample"
_ERROR = "error: prediction minus target"
_REASONS = {
    "perceptual": "perceptual compares whole images in the features of a network that you give, "
    "so no curve of one number describes it",
}

#: The loss of one number, for a loss built with the variant's options.
Call = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class _Spec:
    """Say how to draw a loss.

    Args:
        x: title of the horizontal axis.
        span: its ends.
        option: the option that matters; empty for none.
        values: its values to compare, or mappings where several options go together.
        calls: per pair of panels a heading and how the loss is called with the number.
        fixed: further options.
        note: how to read it.
    """

    x: str
    span: tuple[float, float]
    option: str
    values: tuple[Any, ...]
    calls: tuple[tuple[str, Call], ...]
    fixed: tuple[tuple[str, Any], ...] = ()
    note: str = ""


def draw(card: Card) -> Figure:
    """Return loss and gradient, for several values of the option that matters.

    Args:
        card: a loss's card.
    """
    spec = _SPECS.get(card.key)
    if spec is None:
        reason = _REASONS.get(card.key, f"no picture of {card.key} in one dimension is written yet")
        return Figure(card.key, reason=reason)
    known = {option.name: option.default for option in card.options}
    made = []
    for heading, call in spec.calls:
        curves = []
        for value in spec.values or ({},):
            options = value if isinstance(value, dict) else {spec.option: value}
            loss = card.load()(**dict(spec.fixed), **options)
            curves.append((_label(card, options, known), loss, call))
        made.append((heading, curves))
    if not spec.values and len(made) > 1:  # nothing to compare but the ways to call it
        made = [("", [(heading, *curves[0][1:]) for heading, curves in made])]
    panels = tuple(p for heading, curves in made for p in _pair(spec, heading, curves))
    note = f"{spec.note} Gradients by automatic differentiation.".strip()
    return Figure(card.key, f"{card.key}: loss and gradient", note, panels)


def _pair(spec: _Spec, heading: str, curves: Sequence[tuple[str, Any, Call]]) -> list[Panel]:
    at = points(*spec.span, 121)
    losses, slopes = [], []
    for label, loss, call in curves:
        x = torch.tensor(at, dtype=torch.float64).requires_grad_()
        y = torch.stack([call(loss, one).reshape(()) for one in x])
        (slope,) = torch.autograd.grad(y.sum(), x)
        losses.append((label, y.tolist()))
        slopes.append((label, slope.tolist()))
    name, x_axis = f", {heading}" if heading else "", Axis(spec.x, share=spec.x == _PIXELS)
    return [
        panel(f"Loss{name}", x_axis, Axis("loss"), at, losses),
        panel(f"Gradient{name}", x_axis, Axis("gradient"), at, slopes),
    ]


def _label(card: Card, options: dict[str, Any], known: dict[str, Any]) -> str:
    if not options:
        return card.key
    text = ", ".join(f"{name} = {_short(value)}" for name, value in options.items())
    return f"{text} (default)" if all(known.get(n, v) == v for n, v in options.items()) else text


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else str(value)


# --- What a loss is given -------------------------------------------------------------------------


def _row(*values: Tensor | float) -> Tensor:
    return torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in values])[None]


def _classes(loss: Any, x: Tensor) -> Tensor:
    return loss(_row(x, 0.0), _FIRST)


def _binary(loss: Any, x: Tensor) -> Tensor:
    return loss(x.reshape(1), _ONE)


def _value(loss: Any, x: Tensor) -> Tensor:
    return loss(x.reshape(1), 0 * _ONE)


def _missed(loss: Any, x: Tensor) -> Tensor:
    """Half of the pixels are the mask, of which a share x is missed."""
    return loss(_row(*[1 - x] * 4, *[0.0] * 4), _row(*[1.0] * 4, *[0.0] * 4))


def _alarms(loss: Any, x: Tensor) -> Tensor:
    """All of the mask is found, and a share x of the other half as well."""
    return loss(_row(*[1.0] * 4, *[x] * 4), _row(*[1.0] * 4, *[0.0] * 4))


def _alike(x: Tensor, count: int = 4) -> tuple[Tensor, Tensor]:
    """Return pairs of unit vectors of cosine x, at right angles to all others."""
    eye = torch.eye(2 * count, dtype=torch.float64)
    return eye[:count], x * eye[:count] + (1 - x * x).clamp_min(0).sqrt() * eye[count:]


def _supervised(loss: Any, x: Tensor) -> Tensor:
    return loss(torch.cat(_alike(x)), torch.arange(4).repeat(2))


def _clusters(loss: Any, x: Tensor) -> Tensor:
    places = torch.stack([0 * x, 0 * x + 0.5, x, x + 0.5])[:, None]
    return loss(places, torch.tensor([0, 0, 1, 1]))


def _shifted(width: float) -> Call:
    return lambda loss, x: loss(_row(x, 0.0, x + width, 1.0), _row(0.0, 0.0, 1.0, 1.0))


def _slope(loss: Any, x: Tensor) -> Tensor:
    """A critic that is a straight line of slope x."""
    points = torch.zeros(2, 1, dtype=torch.float64)
    sides = (points, points + 1) if "Gradient" in type(loss).__name__ else (points,)
    return loss(lambda sample: (x * sample).sum(1), *sides)


def _ratio(advantage: float) -> Call:
    return lambda loss, x: loss(x.reshape(1).log(), 0 * _ONE, advantage * _ONE)


def _reward(advantage: float) -> Call:
    return lambda loss, x: loss(x.reshape(1).log(), advantage * _ONE)


def _temporal(loss: Any, x: Tensor) -> Tensor:
    state = _row(x, 0.0)
    end = {"state": state, "action": _FIRST, "reward": 0 * _ONE, "next_state": state.detach(),
           "done": torch.tensor([True])}  # fmt: skip
    return loss(lambda s: s, lambda s: s, end)


def _posterior(loss: Any, x: Tensor) -> Tensor:
    seen = torch.zeros(1, 2, dtype=torch.float64)
    return loss(seen, seen, x.reshape(1, 1), torch.zeros(1, 1, dtype=torch.float64))


def _frames(count: int) -> Call:
    def call(loss: Any, x: Tensor) -> Tensor:
        frame = _row(torch.log1p(-x), x.log())[None]
        return loss(frame.expand(count, 1, 2), torch.tensor([[1]]), [count], [1])

    return call


def _head(loss: Any, x: Tensor) -> Tensor:
    return loss(x.reshape(1, 1), torch.tensor([[1.0], [0.0]], dtype=torch.float64), _FIRST)


def _sides(far: float) -> tuple[tuple[str, Call], ...]:
    """Return generator and discriminator; the side that is not varied stays at ``far``."""
    return (
        ("generator", lambda loss, x: loss.generator(x.reshape(1))),
        ("critic on real", lambda loss, x: loss.discriminator(x.reshape(1), -far * _ONE)),
        ("critic on fake", lambda loss, x: loss.discriminator(far * _ONE, x.reshape(1))),
    )


# --- The table ------------------------------------------------------------------------------------

_WIDE, _NEAR, _SHARE = (-4.0, 4.0), (-3.0, 3.0), (0.04, 0.99)
_OVERLAP = (("misses", _missed), ("false alarms", _alarms))
_HALVES = "The mask is half of the picture; left only misses, then only false alarms."
_PIXELS = "share of the pixels that are wrong"
_COSINE = "cosine between the two of a pair"
_BOXES = (("same shape", _shifted(1.0)), ("twice as wide", _shifted(2.0)))
_SCORE = "score of the sample"


def _one(call: Call) -> tuple[tuple[str, Call], ...]:
    return (("", call),)


def _regression(option: str = "", values: Sequence[Any] = ()) -> _Spec:
    return _Spec(_ERROR, _NEAR, option, tuple(values), _one(_value))


def _overlap(option: str, values: Sequence[Any], **fixed: Any) -> _Spec:
    given = tuple({"from_logits": False, **fixed}.items())
    return _Spec(_PIXELS, (0.01, 1.0), option, tuple(values), _OVERLAP, given, _HALVES)


def _similarity(call: Call) -> _Spec:
    note = "Four pairs; the vectors of different pairs are at right angles."
    return _Spec(_COSINE, (-0.99, 0.99), "temperature", (0.1, 0.2, 0.5), _one(call), (), note)


def _boxes() -> _Spec:
    return _Spec("shift, in widths of the target", (0.01, 2.5), "", (), _BOXES)


def _game(far: float = 0.0) -> _Spec:
    return _Spec(_SCORE, _WIDE, "", (), _sides(far), (), "Each side varied while the other rests.")


_SPECS: dict[str, _Spec] = {
    "mse": _regression(),
    "mae": _regression(),
    "huber": _regression("delta", (0.5, 1.0, 2.0)),
    "smooth_l1": _regression("beta", (0.25, 1.0, 2.0)),
    "log_cosh": _regression(),
    "quantile": _regression("q", (0.1, 0.5, 0.9)),
    "value": _regression("kind", ("mse", "huber")),
    "td": _Spec("TD error: value minus its target", _NEAR, "kind", ("mse", "huber"),
                _one(_temporal)),
    "bce": _Spec(_YES, _WIDE, "label_smoothing", (0.0, 0.1, 0.3), _one(_binary)),
    "binary_focal": _Spec(_YES, _WIDE, "gamma", (0.0, 1.0, 2.0, 5.0), _one(_binary),
                          (("alpha", None),)),
    "cross_entropy": _Spec(_MARGIN, _WIDE, "label_smoothing", (0.0, 0.1, 0.3), _one(_classes)),
    "focal": _Spec(_MARGIN, _WIDE, "gamma", (0.0, 1.0, 2.0, 5.0), _one(_classes)),
    "multiclass_hinge": _Spec(_MARGIN, _WIDE, "margin", (0.5, 1.0, 2.0), _one(_classes)),
    "nll": _Spec("probability of the true class", _SHARE, "", (),
                 _one(lambda loss, x: loss(_row(x.log(), torch.log1p(-x)), _FIRST))),
    "hinge": _Spec("margin: label times score", _WIDE, "", (), _one(_binary)),
    "squared_hinge": _Spec("margin: label times score", _WIDE, "", (), _one(_binary)),
    "kl_divergence": _Spec(
        "logit of the first class, the second at 0", _WIDE, "temperature", (1.0, 2.0, 4.0),
        _one(lambda loss, x: loss(_row(x, 0.0), _row(0.7, 0.3))), (),
        "Two classes; the target is (0.7, 0.3)."),
    "distillation": _Spec(
        _MARGIN, _WIDE, "alpha", (0.0, 0.5, 1.0),
        _one(lambda loss, x: loss(_row(x, 0.0), _row(2.0, 0.0), _FIRST)), (),
        "The teacher's margin is 2."),
    "linear_cross_entropy": _Spec(_MARGIN, (-8.0, 8.0), "soft_cap", (None, 5.0, 2.0), _one(_head)),
    "elbo": _Spec("mean of the posterior, its variance 1", _NEAR, "beta", (0.5, 1.0, 4.0),
                  _one(_posterior), (("likelihood", "gaussian"),),
                  "Only the divergence varies; the reconstruction is perfect."),
    "dice": _overlap("smooth", (0.0, 1.0)),
    "iou": _overlap("smooth", (0.0, 1.0)),
    "tversky": _overlap("", [{"alpha": a, "beta": 1 - a} for a in (0.3, 0.5, 0.7)]),
    "focal_tversky": _overlap("gamma", (0.75, 1.0, 4 / 3)),
    "lovasz": _overlap("", ()),
    "contrastive": _Spec(
        "distance", (0.01, 3.0), "margin", (0.5, 1.0, 2.0),
        (("different pair", lambda loss, x: loss(_row(0.0), _row(x), _ONE)),
         ("same pair", lambda loss, x: loss(_row(0.0), _row(x), 0 * _ONE)))),
    "triplet": _Spec(
        "distance to the negative, the positive at 1", (0.01, 4.0), "margin", (0.2, 0.5, 1.0),
        _one(lambda loss, x: loss(_row(0.0), _row(1.0), _row(x)))),
    "batch_triplet": _Spec(
        "distance between the classes", (0.01, 3.0), "mining", ("all", "hard", "semi_hard"),
        _one(_clusters), (), "Two classes of two points each, 0.5 apart, on a line."),
    "info_nce": _similarity(lambda loss, x: loss(*_alike(x))),
    "nt_xent": _similarity(lambda loss, x: loss(*_alike(x))),
    "sup_con": _similarity(_supervised),
    "box_iou": _boxes(), "giou": _boxes(), "diou": _boxes(), "ciou": _boxes(),
    "gan_minimax": _game(30.0), "gan_non_saturating": _game(30.0), "gan_hinge": _game(30.0),
    "gan_least_squares": _game(0.0), "wasserstein": _game(0.0),
    "gradient_penalty": _Spec("slope of the critic", (0.0, 3.0), "weight", (1.0, 10.0),
                              _one(_slope)),
    "r1_penalty": _Spec("slope of the critic at real samples", (0.0, 3.0), "weight", (1.0, 10.0),
                        _one(_slope)),
    "policy_gradient": _Spec(
        "probability of the action", _SHARE, "", (),
        (("advantage 1", _reward(1.0)), ("advantage \u22121", _reward(-1.0)))),
    "ppo_clip": _Spec(
        "ratio of new to old probability", (0.01, 2.0), "clip", (0.1, 0.2, 0.3),
        (("advantage 1", _ratio(1.0)), ("advantage \u22121", _ratio(-1.0)))),
    "ctc": _Spec(
        "probability of the token in each frame", _SHARE, "", (),
        (("one frame", _frames(1)), ("four frames", _frames(4))), (),
        "The target is one token; every other frame is blank."),
}  # fmt: skip
