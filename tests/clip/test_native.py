"""The built norms and scalings against NumPy's float64 and against torch's calls in their place."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard import compiler
from brickyard.clip import _native, clip_by_global_norm, clip_by_layer_norm, joint_norm, norms

pytestmark = pytest.mark.skipif(not compiler.command(), reason="no C compiler")
shapes = st.lists(
    st.lists(st.integers(0, 40), min_size=0, max_size=3).map(tuple)
    | st.sampled_from([(4096,), (4097,), (255,), (257, 33), (3, 8, 3, 3)]),
    min_size=1, max_size=6,
)  # fmt: skip


def gradients(sizes, seed=0, last=False):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(size, generator=generator) for size in sizes]
    if last:
        made = [g.contiguous(memory_format=torch.channels_last) if g.ndim == 4 else g for g in made]
    return made


@pytest.fixture
def plain(monkeypatch):
    """Return what switches the kernels off, as on a machine without a compiler."""
    return lambda: monkeypatch.setattr(_native, "_library", lambda: None)


def test_this_machine_builds_them():
    assert _native.usable([torch.ones(2)])


@given(sizes=shapes, last=st.booleans())
@settings(deadline=None, max_examples=60)
def test_norms_are_those_of_float64(sizes, last):
    grads = gradients(sizes, last=last)
    assert _native.usable(grads)
    exact = [np.sqrt(np.square(g.numpy().astype(np.float64)).sum()) for g in grads]
    joint, each = _native.norms(grads)
    np.testing.assert_allclose(each, exact, rtol=3e-7)
    np.testing.assert_allclose(joint, np.sqrt(np.square(exact).sum()), rtol=3e-7)
    assert joint_norm(grads) == torch.tensor(joint, dtype=torch.float32)
    assert norms.tensor_norms(grads).tolist() == torch.tensor(each, dtype=torch.float32).tolist()


@given(sizes=shapes, one=st.booleans(), last=st.booleans())
@settings(deadline=None, max_examples=60)
def test_scaling_is_a_multiplication(sizes, one, last):
    grads = gradients(sizes, last=last)
    factors = [0.3] if one else [0.1 * (i + 1) for i in range(len(grads))]
    wanted = [g * f for g, f in zip(grads, factors * len(grads) if one else factors, strict=False)]
    versions = [g._version for g in grads]
    norms.multiply(grads, 0.3 if one else factors)
    for g, w in zip(grads, wanted, strict=True):
        assert torch.equal(g, w)
    assert all(g._version > v for g, v in zip(grads, versions, strict=True))


def test_a_norm_has_the_same_bits_for_any_number_of_threads():
    grads, threads = gradients([(1000, 1000), (3,), (5000, 77)]), torch.get_num_threads()
    found = set()
    try:
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            found.add(_native.norms(grads)[0])
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


def test_a_norm_over_many_values_keeps_its_digits():
    grads = [torch.full((4_000_000,), 0.1), torch.full((1,), 1e-3)]
    exact = np.sqrt(4e6 * np.float64(np.float32(0.1)) ** 2 + 1e-6)
    assert abs(float(joint_norm(grads)) / exact - 1) < 1e-7


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_seen(bad):
    grads = gradients([(300,), (5000,)])
    grads[1][4500] = bad
    joint, each = _native.norms(grads)
    assert not np.isfinite(joint)
    assert np.isfinite(each[0])
    assert not np.isfinite(each[1])


@pytest.mark.parametrize(
    "other",
    [torch.ones(3, dtype=torch.float64), torch.ones(3).half(), torch.ones(4, 4)[:, ::2],
     torch.ones(3, requires_grad=True), torch.ones(3, device="meta"), torch.eye(3).to_sparse(),
     torch.nn.Parameter(torch.ones(2)), torch.ones(2, 3).t(), torch._efficientzerotensor((5,))],
    ids=["double", "half", "strided", "graph", "meta", "sparse", "parameter", "transposed",
         "without memory"],
)  # fmt: skip
def test_all_else_goes_to_torch(other):
    assert not _native.usable([torch.ones(2), other])
    if other.device.type == "cpu" and other.layout == torch.strided:
        both = [torch.ones(2), other.detach()]
        wanted = float(sum(g.double().square().sum() for g in both).sqrt())
        assert float(joint_norm([torch.ones(2), other]).detach()) == pytest.approx(wanted)


@pytest.mark.parametrize("clip", [clip_by_global_norm, clip_by_layer_norm])
def test_clipping_without_a_compiler_is_the_same(clip, plain):
    def run():
        params = [torch.nn.Parameter(torch.zeros(s)) for s in [(70, 70), (7,), (2, 3, 3, 3)]]
        for p, g in zip(params, gradients([p.shape for p in params]), strict=True):
            p.grad = g
        norm = clip(params, 0.5)
        return [norm, *(p.grad for p in params)]

    built = run()
    plain()
    assert not _native.usable([torch.ones(2)])
    for one, other in zip(built, run(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_gradient_given_twice_is_scaled_twice():
    one = torch.ones(1_000_000)
    norms.multiply([one, one], 0.5)
    assert one.unique().tolist() == [0.25]


def test_the_norm_is_where_the_gradients_are():
    weight = torch.zeros(2)
    weight.grad = torch.tensor([3.0, 4.0])
    with torch.device("meta"):
        norm = clip_by_global_norm([weight], 1.0)
    assert (float(norm), weight.grad.tolist()) == (5.0, pytest.approx([0.6, 0.8]))
