"""Global-norm clipping that cannot poison, and early stopping to the letter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brickyard.clip import clip_by_global_norm
from brickyard.regularize import EarlyStopping


def _with_grads(*arrays):
    params = []
    for array in arrays:
        p = torch.nn.Parameter(torch.zeros(np.shape(array), dtype=torch.float64))
        p.grad = torch.tensor(np.asarray(array), dtype=torch.float64)
        params.append(p)
    return params


def test_seed_figures():
    params = _with_grads([6.0, -8.0, 3.0], [-4.0, 2.0])
    norm = clip_by_global_norm(params, 5.0)
    assert float(norm) == pytest.approx(11.3578, abs=5e-5)
    got = torch.cat([p.grad for p in params]).tolist()
    assert got == pytest.approx([2.6414, -3.5218, 1.3207, -1.7609, 0.8805], abs=5e-5)


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e3, 1e3)),
       st.floats(1e-3, 1e4))  # fmt: skip
def test_is_its_formula(g, bound):
    half = len(g) // 2
    params = _with_grads(g[:half], g[half:])
    norm = np.sqrt(np.sum(g**2))
    assert float(clip_by_global_norm(params, bound)) == pytest.approx(norm)
    got = np.concatenate([p.grad.numpy() for p in params])
    want = g * min(1.0, bound / norm) if norm > 0 else g
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_nonfinite_norm_never_poisons(bad):
    params = _with_grads([1.0, bad, 2.0], [3.0])
    norm = clip_by_global_norm(params, 1.0)
    assert not math.isfinite(norm)
    assert params[0].grad[0] == 1.0
    assert params[0].grad[2] == 2.0
    assert params[1].grad[0] == 3.0
    with pytest.raises(FloatingPointError, match="leave the step out"):
        clip_by_global_norm(params, 1.0, on_nonfinite="error")


def test_parameters_without_gradient_and_generators():
    params = [*_with_grads([3.0, 4.0]), torch.nn.Parameter(torch.ones(2))]
    assert float(clip_by_global_norm((p for p in params), 1.0)) == pytest.approx(5.0)
    assert params[0].grad.tolist() == pytest.approx([0.6, 0.8])
    assert params[1].grad is None


def test_half_precision_norms_are_taken_in_fp32():
    p = torch.nn.Parameter(torch.zeros(4, dtype=torch.float16))
    p.grad = torch.full((4,), 600.0, dtype=torch.float16)  # its squares are beyond fp16
    assert float(clip_by_global_norm([p], 1.0)) == pytest.approx(1200.0)
    q = _with_grads([3.0])[0]
    assert float(clip_by_global_norm([p, q], 1e9)) == pytest.approx(math.hypot(1, 3), rel=1e-3)


def test_mixed_types():
    p, q = _with_grads([3.0], [0.0])
    q.data, q.grad = q.data.float(), torch.tensor([4.0])
    assert float(clip_by_global_norm([p, q], 10.0)) == pytest.approx(5.0)


@pytest.mark.parametrize(
    "kwargs",
    [{"max_norm": 0}, {"max_norm": -1}, {"max_norm": "1"}, {"max_norm": math.nan},
     {"on_nonfinite": "ignore"}],
)  # fmt: skip
def test_wrong_options(kwargs):
    with pytest.raises(ValueError, match="got"):
        clip_by_global_norm(_with_grads([1.0]), **{"max_norm": 1.0, **kwargs})


#: Differences of these are exact, so that both ways of comparing agree.
EXACT = st.integers(-640, 640).map(lambda i: i / 64)


def _naive(values, patience, min_delta):
    """Stop index by the definition: patience evaluations in a row without an improvement."""
    best, waited = None, 0
    for i, v in enumerate(values):
        if math.isfinite(v) and (best is None or v < best - min_delta):
            best, waited = v, 0
        else:
            waited += 1
        if waited >= patience:
            return i
    return None


@given(st.lists(EXACT | st.just(math.nan), max_size=40), st.integers(1, 5),
       st.integers(0, 128).map(lambda i: i / 64))  # fmt: skip
def test_stopping_is_its_definition(values, patience, min_delta):
    for sign, mode in ((1, "min"), (-1, "max")):
        stop = EarlyStopping(patience=patience, min_delta=min_delta, mode=mode)
        fired = next((i for i, v in enumerate(values) if stop.update(sign * v)), None)
        assert fired == _naive(values, patience, min_delta)


def test_stopping_resumes():
    values = [1.0, 0.9, 0.95, 0.96, 0.97]
    whole, first = EarlyStopping(patience=3, mode="min"), EarlyStopping(patience=3, mode="min")
    for v in values[:3]:
        assert whole.update(v) == first.update(v)
    second = EarlyStopping(patience=3, mode="min")
    second.load_state_dict(first.state_dict())
    assert [second.update(v) for v in values[3:]] == [whole.update(v) for v in values[3:]]


@pytest.mark.parametrize("kwargs", [{"patience": 0}, {"patience": 1.5}, {"min_delta": -1.0},
                                    {"min_delta": math.nan}, {"mode": "up"}])  # fmt: skip
def test_wrong_stopping_options(kwargs):
    with pytest.raises(ValueError, match="got"):
        EarlyStopping(**kwargs)
    with pytest.raises(ValueError, match="auto"):
        EarlyStopping().update(1.0)
