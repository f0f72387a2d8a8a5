"""The fused forms of large inputs against the definitions, option by option."""

import pytest
import torch

import brickyard.losses as L
from brickyard.losses import _native, lovasz

C = 4


def names(node):
    """Return the names of all nodes of a graph."""
    return "" if node is None else str(node) + "".join(names(n) for n, _ in node.next_functions)


def both(monkeypatch, loss, x, *args, **options):
    """Return value, gradient, the gradient again, and the one with create_graph, of both forms."""
    found = []
    for large in (0, 1 << 60):
        monkeypatch.setattr(_native, "LARGE", large)
        leaf = x.clone().requires_grad_()
        value = loss(leaf, *args, **options)
        assert ("Focal" in names(value.grad_fn)) == (large == 0)
        weight = torch.linspace(1, 2, value.numel(), dtype=value.dtype).view(value.shape)
        total = (value * weight).sum()
        results = [value.detach()]
        for again in (False, False, True):
            (grad,) = torch.autograd.grad(total, leaf, retain_graph=True, create_graph=again)
            results.append(grad.detach().clone())
        found.append(results)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("shape", [(6, C), (2, C, 5), (2, C, 3, 4)])
def test_focal(monkeypatch, gamma, reduction, weighed, ignored, shape):
    x = 3 * torch.randn(shape, dtype=torch.float64)
    y = torch.randint(0, C, (shape[0], *shape[2:]))
    if ignored:
        y.view(-1)[::3] = -100
    options = {"gamma": gamma, "reduction": reduction}
    if weighed:
        options["alpha"] = torch.rand(C).double()
    both(monkeypatch, L.focal_loss, x, y, **options)
    if reduction != "none":
        both(monkeypatch, L.focal_loss, x, y, torch.rand(shape[0]), **options)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("soft", [False, True])
def test_binary_focal(monkeypatch, gamma, alpha, reduction, soft):
    x = 3 * torch.randn(4, 5, dtype=torch.float64)
    t = torch.rand(4, 5).double() if soft else torch.randint(0, 2, (4, 5)).double()
    options = {"gamma": gamma, "alpha": alpha, "reduction": reduction}
    both(monkeypatch, L.binary_focal_loss, x, t, **options)


@pytest.mark.parametrize("size", [1e4, -1e4, 0.0])
def test_the_fused_forms_at_huge_logits(monkeypatch, size):
    monkeypatch.setattr(_native, "LARGE", 0)
    x = torch.full((2, C, 8), size).requires_grad_()
    with torch.no_grad():
        x[:, 0] = -size
    y = torch.randint(0, C, (2, 8))
    mask = torch.zeros(2, C, 8)
    for gamma in (0.5, 2.0):
        losses = [
            L.focal_loss(x, y, gamma=gamma), L.binary_focal_loss(x, mask, gamma=gamma),
            L.dice_loss(x, y, "multiclass"), L.dice_loss(x, mask, "multilabel"),
        ]  # fmt: skip
        for loss in losses:
            (grad,) = torch.autograd.grad(loss, x)
            assert bool(loss.isfinite())
            assert bool(grad.isfinite().all())


def test_large_inputs_without_gradients(monkeypatch):
    monkeypatch.setattr(_native, "LARGE", 0)
    x, y = torch.randn(2, C, 8), torch.randint(0, C, (2, 8))
    with torch.no_grad():
        found = [L.focal_loss(x, y), L.dice_loss(x, y, "multiclass")]
    monkeypatch.setattr(_native, "LARGE", 1 << 60)
    torch.testing.assert_close(found, [L.focal_loss(x, y), L.dice_loss(x, y, "multiclass")])


@pytest.mark.parametrize(
    "loss",
    [
        L.focal_loss,
        lambda x, y: L.binary_focal_loss(x[:, 0], y > 0),
        lambda x, y: L.dice_loss(x, y, "multiclass"),
        lambda x, y: L.dice_loss(x[:, 0], y > 0),
        lambda x, y: L.lovasz_loss(x, y, "multiclass"),
        lambda x, y: L.nt_xent_loss(x[..., 0], x[..., 1]),
    ],
)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_function_transforms_take_the_plain_form(monkeypatch, loss):
    """Per-sample gradients by vmap(grad(...)) equal a loop."""
    monkeypatch.setattr(_native, "LARGE", 0)
    x, y = torch.randn(3, 2, C, 8, dtype=torch.float64), torch.randint(0, C, (3, 2, 8))
    found = torch.func.vmap(torch.func.grad(loss))(x, y)
    for i in range(3):
        leaf = x[i].clone().requires_grad_()
        torch.testing.assert_close(found[i], torch.autograd.grad(loss(leaf, y[i]), leaf)[0])


def test_the_gradient_is_handed_over_without_a_copy(monkeypatch):
    """Autograd copies a gradient that something else still holds."""
    monkeypatch.setattr(_native, "LARGE", 0)
    made = []
    call = _native.call

    def watch(*args, **given):
        made.append(given["grad"].data_ptr() if "grad" in given else 0)
        return call(*args, **given)

    monkeypatch.setattr(_native, "call", watch)
    x, y = torch.randn(2, C, 8, requires_grad=True), torch.randint(0, C, (2, 8))
    for loss in (L.focal_loss(x, y), L.dice_loss(x, y, "multiclass")):
        x.grad = None
        loss.backward()
        assert x.grad.data_ptr() == made[-1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("ignored", [None, 9])
def test_counts(monkeypatch, dtype, layout, ignored):
    """Dice in all modes, with more than a block of pixels, in every order of memory."""
    x = (3 * torch.randn(3, C, 19, 40)).to(dtype)
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    x = x[..., ::2] if layout == "sliced" else x
    index = torch.randint(0, C, (3, *x.shape[2:]))
    mask = torch.randint(0, 2, x.shape)
    if ignored is not None:
        index[:, ::3], mask[:, :, ::3] = ignored, ignored
    limit = 1e-12 if dtype == torch.float64 else 3e-6
    for mode, target in (("multiclass", index), ("multilabel", mask), ("binary", mask)):
        found = []
        for large in (0, 1 << 60):
            monkeypatch.setattr(_native, "LARGE", large)
            leaf = x.clone().requires_grad_()
            loss = L.tversky_loss(leaf, target, mode, alpha=0.3, beta=0.6, ignore_index=ignored)
            assert ("NativeCounts" in names(loss.grad_fn)) == (large == 0)
            found.append((loss.detach(), torch.autograd.grad(loss, leaf)[0]))
        (value, grad), (plain, slope) = found
        assert float((value - plain).abs()) <= limit
        assert float((grad - slope).abs().max()) <= limit * float(slope.abs().max())


def test_threads_do_not_change_the_result(monkeypatch):
    monkeypatch.setattr(_native, "LARGE", 0)
    x, y = torch.randn(3, C, 5000), torch.randint(0, C, (3, 5000))
    mask = torch.randint(0, 2, x.shape).float()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found.append(torch.stack([
                L.focal_loss(x, y), L.binary_focal_loss(x, mask), L.dice_loss(x, y, "multiclass"),
                L.dice_loss(x, mask, "multilabel"), L.lovasz_loss(x, y, "multiclass"),
            ]))  # fmt: skip
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("classes", [1, 3])
def test_lovasz_sorts_as_torch_does(monkeypatch, classes):
    """Equal errors keep their order, errors of 0 come last, classes may be absent."""
    error = torch.rand(classes, 5000)
    error[:, ::7], error[:, 1::5] = 0.25, 0
    truth = (torch.rand(classes, 5000) < 0.3).float()
    truth[0] = 0
    found = []
    for large in (0, 1 << 60):
        monkeypatch.setattr(_native, "LARGE", large)
        found.append(lovasz._weights(error, truth))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-12)


def test_nan_and_infinite_logits_stay_visible(monkeypatch):
    y = torch.zeros(2, 8, dtype=torch.int64)
    for bad in (float("nan"), float("inf")):
        x = torch.randn(2, C, 8)
        x[1, 2, 3] = bad
        for loss in (
            lambda x: L.focal_loss(x, y, reduction="none").sum(),
            lambda x: L.dice_loss(x, y, "multiclass"),
        ):
            found = []
            for large in (0, 1 << 60):
                monkeypatch.setattr(_native, "LARGE", large)
                leaf = x.clone().requires_grad_()
                value = loss(leaf)
                found.append((bool(value.isfinite()), torch.autograd.grad(value, leaf)[0]))
            assert found[0][0] == found[1][0]
            assert torch.equal(found[0][1].isfinite().all(), found[1][1].isfinite().all())


def test_without_a_compiler_the_plain_form_runs_and_says_so(monkeypatch):
    monkeypatch.setenv("BRICKYARD_CC", "")
    _native._library.cache_clear()
    x, y = torch.randn(2, C, 4096), torch.randint(0, C, (2, 4096))
    try:
        with pytest.warns(UserWarning, match="no C compiler"):
            value = L.focal_loss(x, y)
        assert value == L.focal_loss(x, y)  # the second time in silence
    finally:
        _native._library.cache_clear()
