"""Overlap losses: modes, ignored pixels, absent classes, the fused form against the plain one."""

import numpy as np
import pytest
import torch

import brickyard.losses as L
from brickyard.losses import _native, _overlap


@pytest.fixture(autouse=True, params=["plain", "fused"])
def _both_forms(request, monkeypatch):
    """Run everything in the form for small inputs and in the one for large inputs."""
    monkeypatch.setattr(_native, "LARGE", 0 if request.param == "fused" else 1 << 60)


LOSSES = [L.dice_loss, L.iou_loss, L.tversky_loss, L.focal_tversky_loss]
C = 3


def index(hit, fp, fn, loss):
    alpha, beta = {L.dice_loss: (0.5, 0.5), L.iou_loss: (1, 1), L.tversky_loss: (0.5, 0.5),
                   L.focal_tversky_loss: (0.3, 0.7)}[loss]  # fmt: skip
    power = 0.75 if loss is L.focal_tversky_loss else 1
    size = hit + alpha * fp + beta * fn
    return (1 - hit / size) ** power if size else 0.0


def by_hand(p, t, keep, loss):
    """Count class by class, pixel by pixel; arrays ``(N, C, S)``."""
    found = []
    for c in range(p.shape[1]):
        hit = fp = fn = 0.0
        for n in range(p.shape[0]):
            for s in range(p.shape[2]):
                k = float(keep[n, c if keep.shape[1] > 1 else 0, s])
                a, b = p[n, c, s], t[n, c, s]
                hit, fp, fn = hit + k * a * b, fp + k * a * (1 - b), fn + k * (1 - a) * b
        found.append(index(hit, fp, fn, loss))
    return torch.tensor(found, dtype=torch.float64)


def case(mode, from_logits, ignore):
    x = (
        torch.randn(2, C, 5, dtype=torch.float64)
        if mode != "binary"
        else torch.randn(2, 5).double()
    )
    if mode == "multiclass":
        p, y = x.softmax(1), torch.randint(0, C, (2, 5))
        t = torch.nn.functional.one_hot(y, C).movedim(2, 1).double()
        keep = np.ones((2, 1, 5), bool)
        if ignore is not None:
            y[0, 1] = y[1, 4] = ignore
            keep[0, 0, 1] = keep[1, 0, 4] = False
    else:
        p, y = x.sigmoid(), torch.randint(0, 2, x.shape)
        t = y.double()
        keep = np.ones(x.shape, bool)
        if ignore is not None:
            y[0, 1], y[1, -1] = ignore, ignore
            keep[0, 1], keep[1, -1] = False, False
            t = torch.where(torch.from_numpy(keep), t, 0)
    view = (2, -1, 5)
    shown = x if from_logits else p
    return shown, y, p.reshape(view).numpy(), t.reshape(view).numpy(), keep.reshape(view)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("ignore", [None, 255])
def test_modes_against_loops(loss, mode, from_logits, ignore):
    x, y, p, t, keep = case(mode, from_logits, ignore)
    found = loss(x, y, mode, from_logits=from_logits, ignore_index=ignore, reduction="none")
    torch.testing.assert_close(found, by_hand(p, t, keep, loss))
    leaf = x.clone().requires_grad_()

    def total(leaf):
        return loss(leaf, y, mode, from_logits=from_logits, ignore_index=ignore)

    if from_logits:  # probabilities at their bounds may not be nudged
        assert torch.autograd.gradcheck(total, leaf, nondet_tol=1e-12)
        assert torch.autograd.gradgradcheck(total, leaf, nondet_tol=1e-12)
    if ignore is not None:
        (grad,) = torch.autograd.grad(total(leaf), leaf)
        out = torch.from_numpy(~keep)
        out = out.expand(2, C, 5) if mode == "multiclass" else out.reshape(x.shape)
        assert not grad[out].any()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("masked", [False, True])
def test_fused_counts_are_the_plain_ones(activation, masked, monkeypatch):
    x = torch.randn(3, 4, 50, dtype=torch.float64)
    y = torch.randint(0, 4, (3, 50))
    t = y if activation == "softmax" else torch.rand(3, 4, 50).double()
    keep = None
    if masked:
        keep = torch.rand(3, 1, 50) > 0.3 if activation == "softmax" else torch.rand_like(x) > 0.3
        t = torch.where(keep[:, 0] if activation == "softmax" else keep, t, 0)
    found = []
    for large in (0, 1 << 60):
        monkeypatch.setattr(_native, "LARGE", large)
        leaf = x.clone().requires_grad_()
        counts = _overlap.count(_overlap.Masks(leaf, t, keep, activation))
        assert ("Counts" in type(counts.hit.grad_fn).__name__) == (large == 0)
        total = sum((i + 1) * (c * torch.arange(1, 5)).sum() for i, c in enumerate(counts[:2]))
        found.append([*counts, *torch.autograd.grad(total, leaf)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


MODULES = [L.DiceLoss, L.IoULoss, L.TverskyLoss, L.FocalTverskyLoss]


@pytest.mark.parametrize("make", MODULES, ids=lambda m: m.__name__)
@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("per", ["sample", "pixel"])
@pytest.mark.parametrize("ignore", [None, 255])
def test_weights_enter_the_counts(make, mode, per, ignore):
    x, y, p, t, keep = case(mode, True, ignore)
    weight = 2 * torch.rand(2 if per == "sample" else y.shape, dtype=torch.float64)
    flat = weight.numpy().reshape(2, 1, 1) if per == "sample" else weight.numpy()
    flat = flat if per == "sample" else flat.reshape(2, -1, 5)
    loss = make(mode, ignore_index=ignore, reduction="none")
    function = LOSSES[MODULES.index(make)]
    found = loss(x, y, weight)
    torch.testing.assert_close(found, by_hand(p, t, keep * flat, function))
    torch.testing.assert_close(found, function(x, y, mode, sample_weight=weight,
                                               ignore_index=ignore, reduction="none"))  # fmt: skip
    torch.testing.assert_close(loss(x, y, 3 * weight), found)
    torch.testing.assert_close(loss(x, y, torch.ones_like(weight)), loss(x, y))
    leaf = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda leaf: loss(leaf, y, weight), leaf, nondet_tol=1e-12)


@pytest.mark.parametrize("make", MODULES, ids=lambda m: m.__name__)
def test_a_weight_of_zero_leaves_out(make):
    x, y = torch.randn(3, C, 5, requires_grad=True), torch.randint(0, C, (3, 5))
    loss, weight = make("multiclass"), torch.tensor([1.0, 0.0, 1.0])
    value = loss(x, y, weight)
    torch.testing.assert_close(value, loss(x[::2], y[::2]))
    (grad,) = torch.autograd.grad(value, x)
    assert not grad[1].any()
    assert grad[0].any()
    nothing = loss(x, y, torch.zeros(3))
    assert nothing.item() == 0
    assert not torch.autograd.grad(nothing, x)[0].any()


@pytest.mark.parametrize("make", MODULES, ids=lambda m: m.__name__)
def test_weights_that_fit_nothing_are_refused(make):
    x, y = torch.randn(2, C, 5), torch.randint(0, C, (2, 5))
    for bad in (torch.ones(3), torch.ones(2, C, 5), torch.ones(2, 1), -torch.ones(2)):
        with pytest.raises(ValueError, match="sample_weight must"):
            make("multiclass")(x, y, bad)


def test_probabilities_as_multiclass_targets():
    x, y = torch.randn(2, C, 5).double(), torch.randint(0, C, (2, 5))
    soft = torch.nn.functional.one_hot(y, C).movedim(2, 1).double()
    for loss in LOSSES:
        torch.testing.assert_close(loss(x, soft, "multiclass"), loss(x, y, "multiclass"))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_class_absent_on_both_sides_contributes_nothing(loss):
    p = torch.tensor([[[0.9, 0.2], [0.1, 0.8], [0.0, 0.0]]])
    y = torch.tensor([[0, 1]])
    each = loss(p, y, "multiclass", from_logits=False, reduction="none")
    assert each[2].item() == 0
    assert bool((each[:2] > 0).all())
    torch.testing.assert_close(loss(p, y, "multiclass", from_logits=False), each.sum() / 3)


@pytest.mark.parametrize("loss", [*LOSSES, L.lovasz_loss])
@pytest.mark.parametrize("size", [0.0, 1e4, -1e4])
def test_masks_of_background_alone(loss, size):
    x = torch.full((2, 1, 8, 8), size, requires_grad=True)
    value = loss(x, torch.zeros(2, 1, 8, 8))
    (grad,) = torch.autograd.grad(value, x)
    assert bool(value.isfinite())
    assert bool(grad.isfinite().all())
    if loss is not L.lovasz_loss:
        assert value.item() == (0 if size < 0 else 1)  # sigmoid(-1e4) is an exact 0


def test_smoothing_lets_an_empty_mask_push_predictions_down():
    x = torch.zeros(1, 16, requires_grad=True)
    t = torch.zeros(1, 16)
    (flat,) = torch.autograd.grad(L.dice_loss(x, t), x)
    value = L.dice_loss(x, t, smooth=2.0)
    (grad,) = torch.autograd.grad(value, x)
    assert not flat.any()
    assert bool((grad > 0).all())
    assert value.item() == pytest.approx(1 - 2 / (8 + 2))
    assert L.iou_loss(x, t, smooth=2.0).item() == pytest.approx(1 - 2 / 10)
    assert L.tversky_loss(x, t, smooth=2.0).item() == pytest.approx(1 - 2 / (4 + 2))


def test_tversky_prices_the_right_mistakes():
    """alpha weighs false positives, beta false negatives."""
    t = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    missed, alarm = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[1.0, 1, 1, 0]])
    options = {"alpha": 0.2, "beta": 0.8, "from_logits": False}
    assert L.tversky_loss(missed, t, **options).item() == pytest.approx(1 - 1 / 1.8)
    assert L.tversky_loss(alarm, t, **options).item() == pytest.approx(1 - 2 / 2.2)


@pytest.mark.parametrize(
    "make", [L.DiceLoss, L.IoULoss, L.TverskyLoss, L.FocalTverskyLoss], ids=lambda m: m.__name__
)
def test_class_weights_weigh_classes(make):
    x, y = torch.randn(2, C, 5), torch.randint(0, C, (2, 5))
    each = make("multiclass", reduction="none")(x, y)
    weight = torch.tensor([1.0, 2.0, 5.0])
    found = make("multiclass", weight=[1, 2, 5])(x, y)
    torch.testing.assert_close(found, (weight * each).sum() / 8)
    with pytest.raises(ValueError, match=r"one number per class, \(3,\); got \(2,\)"):
        make("multiclass", weight=[1.0, 2.0])(x, y)


def test_lovasz_modes():
    x, y = torch.randn(2, C, 5, dtype=torch.float64, requires_grad=True), torch.tensor([[0, 2] * 2])
    y = torch.cat([y, y]).repeat(1, 2)[:, :5]
    each = L.lovasz_loss(x, y, "multiclass", reduction="none")
    assert each[1].item() == 0  # class 1 is absent from the target
    torch.testing.assert_close(L.lovasz_loss(x, y, "multiclass"), each.sum() / 2)
    p = x.softmax(1)
    torch.testing.assert_close(L.lovasz_loss(p, y, "multiclass", from_logits=False), each.sum() / 2)
    masked = y.clone()
    masked[:, 0] = 255
    torch.testing.assert_close(
        L.lovasz_loss(x, masked, "multiclass", ignore_index=255),
        L.lovasz_loss(x[:, :, 1:], y[:, 1:], "multiclass"),
    )
    for mode in ("multiclass", "multilabel"):
        t = y if mode == "multiclass" else (torch.rand(2, C, 5) > 0.5).double()
        assert torch.autograd.gradcheck(lambda x, t=t, mode=mode: L.lovasz_loss(x, t, mode), x)


def test_shapes_and_ranges_are_refused():
    with pytest.raises(ValueError, match=r"needs an input of shape \(N, C, \*\)"):
        L.dice_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), "multiclass")
    with pytest.raises(ValueError, match="same shape"):
        L.dice_loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match=r"from_logits=False takes probabilities.*"):
        L.dice_loss(torch.full((2, 4), 3.0), torch.zeros(2, 4), from_logits=False)
    with pytest.raises(ValueError, match="got 255"):
        L.dice_loss(torch.zeros(1, 3, 2), torch.tensor([[0, 255]]), "multiclass")
