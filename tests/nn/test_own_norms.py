"""FRN and ghost batch norm beyond the contract: memory, slices, running statistics."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from brickyard.nn import FRN, GhostBatchNorm1d, GhostBatchNorm2d
from brickyard.nn.functional import filter_response_norm, ghost_batch_norm


def x64(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def plain_frn(x, gamma, beta, eps):
    shape = (-1, *[1] * (x.ndim - 2))
    mean = x.square().mean(tuple(range(2, x.ndim)), keepdim=True) if x.ndim > 2 else x.square()
    return gamma.view(shape) * x / (mean + eps).sqrt() + beta.view(shape)


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 3, 5, 2), (2, 3, 2, 3, 2), (4, 3)])
def test_frn_is_the_formula_with_all_its_gradients(shape):
    layer = FRN(3, eps=1e-3, learn_eps=True).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    layer.eps_l.data.neg_()  # its absolute value counts
    x = x64(*shape).requires_grad_()
    g = x64(*shape, seed=1)
    inputs = [x, layer.weight, layer.bias, layer.eps_l]
    want = plain_frn(x, layer.weight, layer.bias, 1e-3 + layer.eps_l.abs())
    got = layer(x)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, inputs, g), torch.autograd.grad(want, inputs, g),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b)


def test_frn_survives_a_channel_of_zeros():
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    FRN(2)(x).sum().backward()
    assert bool(x.grad.isfinite().all())


class Largest(TorchDispatchMode):
    """Count results of the input's size that did not exist before."""

    def __init__(self, size):
        super().__init__()
        self.size, self.made = size, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for t in out if isinstance(out, tuple | list) else [out]:
            fresh = isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in given
            if fresh and t.numel() == self.size:
                self.made.append(str(func))
        return out


def test_frn_makes_one_temporary_of_the_input_s_size_and_that_in_backward():
    layer, x = FRN(3), torch.randn(2, 3, 8, 8, requires_grad=True)
    forward, backward = Largest(x.numel()), Largest(x.numel())
    with forward:
        y = layer(x)
    assert forward.made == ["aten.addcmul.default"]  # the result itself
    g = torch.randn_like(y)
    with backward:
        torch.autograd.grad(y, x, g)
    assert backward.made == ["aten.mul.Tensor"] * 2  # g * x for its sum, and the result


@pytest.mark.parametrize(("shape", "message"), [
    ((4, 3), "one position"), ((4, 3, 1, 1), "one position"), ((4, 2, 5), "of 3 channels"),
])  # fmt: skip
def test_frn_refuses(shape, message):
    with pytest.raises(ValueError, match=message):
        FRN(3)(torch.zeros(shape))


def test_frn_options():
    with pytest.raises(ValueError, match="eps at least 0, got 3 and -1"):
        FRN(3, eps=-1)
    layer = FRN(3, learn_eps=True)
    assert layer.eps_l.item() == pytest.approx(1e-4)
    assert FRN(3).eps_l is None
    ones = torch.ones(2)
    y = filter_response_norm(torch.full((1, 2, 4), 3.0), ones, ones, eps=7.0)
    assert y.flatten().tolist() == pytest.approx([1.75] * 8)


@pytest.mark.parametrize(("size", "slope"), [(1e-3, 1.0), (1e-2, 1.0), (30.0, 1e3), (1.0, 4e3)])
def test_frn_in_fp16_stays_in_range(size, slope):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).mul(size).half()
    g = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).mul(slope).half()
    half, exact = FRN(3).half(), FRN(3).double()
    a, b = x.clone().requires_grad_(), x.double().requires_grad_()
    y, want = half(a), exact(b)
    y.backward(g)
    want.backward(g.double())
    found = [y, a.grad, *(p.grad for p in half.parameters())]
    for got, right in zip(
        found, [want, b.grad, *(p.grad for p in exact.parameters())], strict=True
    ):
        if right.abs().max() < 65504:
            assert (got.double() - right).norm() <= 5e-3 * right.norm()


def test_frn_s_parameters_are_kept_out_of_decay():
    from brickyard.optim import param_groups

    model = nn.Sequential(nn.Conv2d(1, 3, 1), FRN(3, learn_eps=True))
    groups = param_groups(model, weight_decay=0.1)
    optimizer = torch.optim.SGD(groups, lr=0.1)
    decayed = [p for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]]
    assert [p.shape for p in decayed] == [model[0].weight.shape]


def by_hand(x, size):
    """Return each ghost batch by torch's own layer, of the samples that the docstring promises."""
    count, rest = divmod(len(x), size)
    if rest * x.shape[2:].numel() == 1 and count:
        count, rest = count - 1, size + 1
    whole = torch.arange(len(x) - rest)
    parts = [whole[k::count] for k in range(count)] + [torch.arange(len(x) - rest, len(x))]
    parts = [part for part in parts if len(part)]
    kind = nn.BatchNorm2d if x.ndim == 4 else nn.BatchNorm1d
    layers = [kind(x.shape[1], momentum=1.0).double() for _ in parts]
    y = torch.empty_like(x)
    for layer, part in zip(layers, parts, strict=True):
        y[part] = layer(x[part])
    share = [len(part) / len(x) for part in parts]
    mean = sum(s * m.running_mean for s, m in zip(share, layers, strict=True))
    return y, mean, sum(s * m.running_var for s, m in zip(share, layers, strict=True))


@given(
    samples=st.integers(2, 20),
    size=st.integers(2, 9),
    space=st.sampled_from([(), (3,), (2, 2)]),
    last=st.booleans(),
)
def test_ghosts_are_every_so_many_th_sample(samples, size, space, last):
    x = x64(samples, 3, *space, seed=samples) + 2
    if last:  # channels last in memory: another path, the same result
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    layer = (GhostBatchNorm2d if len(space) == 2 else GhostBatchNorm1d)(3, size).double()
    y, mean, var = by_hand(x, size)
    torch.testing.assert_close(layer(x), y)
    torch.testing.assert_close(layer.running_mean, 0.1 * mean)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * var)
    assert layer.num_batches_tracked == 1


def test_ghosts_are_one_call_by_view():
    layer, x = GhostBatchNorm2d(3, 2), torch.randn(8, 3, 4, 4, requires_grad=True)
    forward, backward = Largest(x.numel()), Largest(x.numel())
    with forward:
        y = layer(x)
    assert forward.made == ["aten.native_batch_norm.default"]
    g = torch.ones_like(y)
    with backward:
        torch.autograd.grad(y, x, g)
    assert backward.made == ["aten.native_batch_norm_backward.default"]


def test_one_ghost_is_batch_norm_and_checkpoints_load_both_ways():
    ours, theirs = GhostBatchNorm2d(3, 64).double(), nn.BatchNorm2d(3).double()
    for seed in range(3):
        torch.testing.assert_close(
            ours(x64(8, 3, 2, 2, seed=seed)), theirs(x64(8, 3, 2, 2, seed=seed))
        )
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = x64(2, 3, 2, 2, seed=9)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_ghost_momentum_none_is_the_plain_average():
    layer = GhostBatchNorm1d(3, 4, momentum=None).double()
    batches = [x64(8, 3, seed=s) for s in range(3)]
    for x in batches:
        layer(x)
    torch.testing.assert_close(
        layer.running_mean, torch.stack([x.mean(0) for x in batches]).mean(0)
    )


def test_ghost_without_running_statistics():
    layer = GhostBatchNorm1d(3, 4, affine=False, track_running_stats=False).double()
    x = x64(8, 3)
    torch.testing.assert_close(layer(x)[::2], nn.BatchNorm1d(3).double()(x[::2]))
    torch.testing.assert_close(layer.eval()(x), nn.BatchNorm1d(3).double()(x))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: GhostBatchNorm1d(3, ghost_size=1), "whole number of at least 2 samples, got 1"),
    (lambda: GhostBatchNorm1d(3)(torch.zeros(1, 3)), "more than one value a channel"),
    (lambda: GhostBatchNorm1d(3)(torch.zeros(2, 3, 2, 2)), "2 axes or 3 axes"),
    (lambda: GhostBatchNorm2d(3)(torch.zeros(2, 3)), "takes an input of 4 axes"),
    (lambda: GhostBatchNorm2d(3)(torch.zeros(64, 4, 2, 2)), r"takes \(N, 3, \*\) with the chan"),
    (lambda: ghost_batch_norm(torch.zeros(4, 3), None, None, 0), "at least 1, got 0"),
])  # fmt: skip
def test_ghost_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
