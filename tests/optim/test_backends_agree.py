"""The backends run one plan: any chain gives the same weights and state on each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.optim import Optimizer, chain
from brickyard.optim import barriers as b
from brickyard.optim import rules as r
from brickyard.optim import rules_adaptive as a
from brickyard.optim import rules_layerwise as w

SHAPES = ((7, 5), (6,), (3, 4, 2), (), (129, 33))
GRADIENT = [
    lambda: b.clip_by_global_norm(0.5),
    lambda: b.clip_by_layer_norm(0.3),
    lambda: b.clip_by_value(0.2),
    lambda: r.l2(0.1),
    lambda: r.l2(0.1, where="matrices"),
]
SCALE = [
    lambda: r.scale_by_momentum(),
    lambda: r.scale_by_momentum(0.8, 0.1, nesterov=True),
    lambda: r.scale_by_adam(),
    lambda: r.scale_by_adam(amsgrad=True),
    lambda: r.scale_by_lion(),
    lambda: r.scale_by_rms(centered=True, eps=1e-3),
    lambda: r.scale_by_rms(eps_inside=True),
    lambda: b.scale_by_factored_rms(where="matrices"),
    lambda: b.scale_by_unfactored_rms(),
    lambda: r.scale_by_ema(0.8),
    lambda: a.scale_by_adagrad(0.1, 0.2),
    lambda: a.scale_by_adagrad(eps=1e-3, eps_inside=True),
    lambda: a.scale_by_adadelta(0.7, 1e-3),
    lambda: a.scale_by_nadam(),
    lambda: a.scale_by_radam(beta2=0.7),
    lambda: a.scale_by_adamax(eps=1e-3),
    lambda: a.scale_by_yogi(),
    lambda: a.scale_by_yogi(form="code"),
    lambda: a.scale_by_sophia(),
    lambda: w.scale_by_lars(0.1),
    lambda: w.scale_by_muon(where="matrices"),
    lambda: w.scale_by_muon(nesterov=False, adjust="match_rms_adamw", where="matrices"),
]
UPDATE = [
    lambda: r.decay(0.1),
    lambda: r.decay(0.2, where="vectors"),
    lambda: b.clip_by_rms(0.7),
    lambda: b.scale_by_trust_ratio(),
]
RATE = [
    lambda: r.velocity(),
    lambda: w.velocity_ahead(0.8, 0.1),
    lambda: a.bound_rates(),
    lambda: a.bound_rates(form="code", amsbound=True),
    lambda: b.scale_by_param_rms(weight_decay=0.1),
]
WEIGHTS = [lambda: r.ema_weights(0.9), lambda: r.lookahead(every=2), lambda: b.max_norm(1.5)]


@st.composite
def chains(draw: Any) -> list[Any]:
    parts = [(GRADIENT, 1), (SCALE, 2), (UPDATE, 1), (RATE, 1), (WEIGHTS, 1)]
    return [
        draw(st.sampled_from(menu))()
        for menu, most in parts
        for _ in range(draw(st.integers(0, most)))
    ]


def train(pieces: list[Any], backend: str, dtype: torch.dtype, steps: int = 4, **options: Any):
    generator = torch.Generator().manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES]
    optimizer = Optimizer(params, chain(*pieces), lr=0.05, backend=backend, **options)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(dtype)
        optimizer.step()
    state = [v for p in params for k, v in sorted(optimizer.state[p].items())]
    return [p.detach() for p in params], state, optimizer


def assert_close(mine: list[torch.Tensor], other: list[torch.Tensor], dtype: torch.dtype) -> None:
    tolerance = {torch.float64: 1e-9, torch.float32: 2e-4}.get(dtype, 4e-2)
    for x, y in zip(mine, other, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(chains(), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_any_chain_gives_the_same_on_every_backend(pieces: list[Any], dtype: torch.dtype) -> None:
    weights, state, _ = train(pieces, "eager", dtype)
    for backend in ("foreach", "native"):
        other_weights, other_state, _ = train(pieces, backend, dtype)
        assert_close(other_weights, weights, dtype)
        assert_close(other_state, state, dtype)


@pytest.mark.parametrize("options", [{"maximize": True}, {"telemetry": True}])
def test_engine_options_give_the_same_on_every_backend(options: dict[str, Any]) -> None:
    pieces = [r.scale_by_adam(), r.decay(0.1)]
    weights, state, first = train(pieces, "eager", torch.float32, **options)
    for backend in ("foreach", "native"):
        other_weights, other_state, optimizer = train(pieces, backend, torch.float32, **options)
        assert_close(other_weights, weights, torch.float32)
        assert_close(other_state, state, torch.float32)
        if "telemetry" in options:
            for name, norms in first.norms().items():
                assert optimizer.norms()[name] == pytest.approx(norms, rel=1e-5)
