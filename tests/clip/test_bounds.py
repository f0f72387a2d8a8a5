"""The four bounds on gradients: formulas, masks, what is not finite, and recipes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from brickyard import optim
from brickyard.catalog import shelf
from brickyard.clip import (
    adaptive_clip,
    clip_by_global_norm,
    clip_by_layer_norm,
    clip_by_value,
    joint_norm,
)
from brickyard.errors import RecipeError
from brickyard.train import resolve
from brickyard.train.setup import build_setup

FLOATS = st.floats(-1e3, 1e3)
ALL = {
    "clip_by_global_norm": clip_by_global_norm, "clip_by_layer_norm": clip_by_layer_norm,
    "clip_by_value": clip_by_value, "adaptive_clip": lambda p, *a, **k: adaptive_clip(
        p, *a, **{"skip": "none", **k}),
}  # fmt: skip


def with_grads(*arrays, dtype=torch.float64):
    params = []
    for array in arrays:
        p = nn.Parameter(torch.ones(np.shape(array), dtype=dtype))
        p.grad = torch.tensor(np.asarray(array), dtype=dtype)
        params.append(p)
    return params


def test_the_shelf_is_complete():
    assert {card.key for card in shelf("clipping")} >= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_seeds_figures_and_the_norm_before(name):
    params = with_grads([6.0, -8.0, 3.0], [-4.0, 2.0])
    assert float(ALL[name](params, 5.0)) == pytest.approx(11.3578, abs=5e-5)
    if name == "clip_by_global_norm":
        assert params[0].grad[0] / 6.0 == pytest.approx(0.4402, abs=5e-5)


@given(hnp.arrays(np.float64, (3, 4), elements=FLOATS), hnp.arrays(np.float64, 5, elements=FLOATS),
       st.floats(1e-3, 1e4))  # fmt: skip
def test_layers_and_values_are_their_formulas(a, b, bound):
    params = with_grads(a, b)
    clip_by_layer_norm(params, bound)
    for p, g in zip(params, (a, b), strict=True):
        norm = np.linalg.norm(g)
        np.testing.assert_allclose(p.grad.numpy(), g * min(1, bound / norm if norm else 1),
                                   rtol=1e-9)  # fmt: skip
    params = with_grads(a, b)
    norm = clip_by_value(params, bound)
    assert float(norm) == pytest.approx(math.hypot(np.linalg.norm(a), np.linalg.norm(b)))
    for p, g in zip(params, (a, b), strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), np.clip(g, -bound, bound))


@given(hnp.arrays(np.float64, (3, 2, 2), elements=FLOATS),
       hnp.arrays(np.float64, (3, 2, 2), elements=FLOATS), st.booleans(),
       st.floats(1e-3, 1), st.sampled_from([1e-3, 50.0]))  # fmt: skip
def test_adaptive_clipping_is_its_formula(weight, g, unitwise, factor, eps):
    p, bias, scalar = with_grads(g, g[0, 0], 2.0)
    p.data = torch.from_numpy(weight.copy())
    adaptive_clip([p, bias, scalar], factor, eps, unitwise, skip="none")
    for i in range(3):
        w, own = (weight[i], g[i]) if unitwise else (weight, g)
        limit, norm = factor * max(np.linalg.norm(w), eps), np.linalg.norm(own)
        wanted = g[i] * (limit / norm if norm > limit else 1)
        np.testing.assert_allclose(p.grad[i].numpy(), wanted, rtol=1e-9, atol=1e-12)
    limit, norm = factor * max(math.sqrt(2), eps), np.linalg.norm(g[0, 0])
    wanted = g[0, 0] * (limit / norm if norm > limit else 1)
    np.testing.assert_allclose(bias.grad.numpy(), wanted, rtol=1e-9, atol=1e-12)
    assert float(scalar.grad) == pytest.approx(min(2.0, factor * max(1.0, eps)))


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ALL)
def test_19_a_nonfinite_norm_never_poisons_gradients(name, bad):
    params = with_grads([[1.0, bad], [2.0, 500.0]], [300.0])
    norm = ALL[name](params, 1.0)
    assert not math.isfinite(norm)
    kept = [params[0].grad[0, 0], *params[0].grad[1], params[1].grad[0]]
    assert [float(g) for g in kept] == [1.0, 2.0, 500.0, 300.0]
    with pytest.raises(FloatingPointError, match="leave the step out"):
        ALL[name](params, 1.0, on_nonfinite="error")
    seen = with_grads([1.0, math.inf, 2.0])
    nn.utils.clip_grad_norm_(seen, 1.0)
    assert seen[0].grad[0] == 0, "as torch does"
    assert seen[0].grad[1].isnan()


@pytest.mark.parametrize("unscaled", [False, True])
def test_18_clipping_before_unscaling_cannot_happen_in_a_chain(unscaled):
    """A chain unscales before its first piece, whether or not ``unscale_`` was called."""
    plain, scaled, hand = (nn.Linear(3, 2) for _ in range(3))
    for other in (scaled, hand):
        other.load_state_dict(plain.state_dict())
    x = torch.randn(8, 3) * 10
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    rule = optim.chain(optim.clip_by_global_norm(0.1), optim.scale_by_adam())
    a, b = (optim.Optimizer(m, rule, lr=0.1) for m in (plain, scaled))
    c = torch.optim.Adam(hand.parameters(), lr=0.1)
    for _ in range(3):
        for m in (plain, scaled, hand):
            m.zero_grad()
        (plain(x) ** 2).mean().backward()
        scaler.scale((scaled(x) ** 2).mean()).backward()
        scaler.scale((hand(x) ** 2).mean()).backward()
        a.step()
        if unscaled:
            scaler.unscale_(b)
        scaler.step(b)
        scaler.unscale_(c)  # the order for a loop of one's own
        clip_by_global_norm(hand.parameters(), 0.1)
        scaler.step(c)
        scaler.update()
    for p, q, r in zip(plain.parameters(), scaled.parameters(), hand.parameters(), strict=True):
        assert torch.equal(p, q)
        torch.testing.assert_close(p, r, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ALL)
def test_norms_that_overflow_are_taken_again(name, dtype):
    big = 6e4 if dtype == torch.float16 else 1e30  # squares are beyond the type
    params = with_grads([[big, -big]], [1.0], dtype=dtype)
    norm = ALL[name](params, 1.0)
    assert float(norm) == pytest.approx(big * math.sqrt(2), rel=1e-2)
    assert params[0].grad.isfinite().all()
    assert params[0].grad.abs().max() <= 1.5


def test_masks():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    named = dict(model.named_parameters())

    def fresh():
        for p in named.values():
            p.grad = torch.full_like(p, 50.0)

    def untouched():
        return {name for name, p in named.items() if (p.grad == 50).all()}

    head = {"2.weight", "2.bias"}
    for clip in (clip_by_global_norm, clip_by_layer_norm, clip_by_value, adaptive_clip):
        for skip, left in (("none", set()), ("head", head), (["*.bias", "1.*"],
                           {"0.bias", "1.weight", "1.bias", "2.bias"}), ("0.*", {"0.weight",
                           "0.bias"})):  # fmt: skip
            fresh()
            norm = clip(model, skip=skip)
            assert untouched() == left, (clip.__name__, skip)
            count = sum(p.numel() for n, p in named.items() if n not in left)
            assert float(norm) == pytest.approx(50 * count**0.5, rel=1e-5)
    fresh()
    adaptive_clip(model.parameters())
    assert untouched() == head, "by default, as in the paper; without names too"
    for skip, message in (("0.wight", "matches no parameter; did you mean '0.weight'"),
                          (["*"], "leaves nothing to clip of 6")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            clip_by_global_norm(model, skip=skip)
    with pytest.raises(ValueError, match="goes by names"):
        clip_by_global_norm(model.parameters(), skip="*.bias")
    with pytest.raises(ValueError, match="leaves nothing to clip"):
        adaptive_clip(nn.Linear(2, 2))
    assert adaptive_clip(nn.LayerNorm(3)) == 0, "no weight matrix, so no head"


@pytest.mark.parametrize("name", ALL)
def test_nothing_to_clip_and_wrong_options(name):
    assert float(ALL[name]([])) == 0
    assert float(ALL[name](nn.Parameter(torch.ones(2)))) == 0
    for bad in (0, -1, math.nan, "1"):
        with pytest.raises(ValueError, match="must be a number above 0; got"):
            ALL[name](with_grads([1.0]), bad)
    with pytest.raises(ValueError, match="on_nonfinite must be"):
        ALL[name](with_grads([1.0]), on_nonfinite="ignore")


def test_joint_norm_of_mixed_types():
    grads = [torch.full((4,), 600.0).half(), torch.tensor([5.0]), torch.ones(3).double()]
    assert float(joint_norm(grads)) == pytest.approx(math.sqrt(1200**2 + 25 + 3))
    assert joint_norm(grads).dtype == torch.float64


def test_recipes_clip_by_name():
    recipe = {"data": "digits", "model": {"name": "mlp", "hidden": [8]}, "loss": "cross_entropy"}
    setup = build_setup(resolve({**recipe, "clipping": {"name": "agc", "factor": 1e-9}}))
    parts = setup.parts
    batch = next(iter(parts.train.epoch(0)))
    parts.loss(parts.model(batch[0]), batch[1]).backward()
    assert math.isfinite(parts.clip(list(parts.model.parameters())))
    small = {n for n, p in parts.model.named_parameters() if p.grad.norm() < 1e-6}
    assert small == {n for n, _ in parts.model.named_parameters() if not n.startswith("head")}
    with pytest.raises(RecipeError, match=r"clipping: skip: 'hed.\*' matches no parameter"):
        build_setup(resolve({**recipe, "clipping": {"name": "per_layer", "skip": ["hed.*"]}}))
