"""Properties that hold for any input, searched by hypothesis."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import brickyard.losses as L

SEED = st.integers(0, 2**31 - 1)
FLOATS = st.floats(-50, 50, width=32)
quick = settings(max_examples=40, deadline=None)


def tensors(shape):
    return arrays(np.float64, shape, elements=FLOATS).map(torch.from_numpy)


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(seed, count, classes=3):
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))


@quick
@given(tensors((5, 3)), SEED, st.floats(-100, 100))
def test_a_softmax_does_not_see_a_shift(x, seed, shift):
    y = labels(seed, 5)
    for loss in (L.cross_entropy_loss, L.focal_loss, L.multiclass_hinge_loss):
        torch.testing.assert_close(loss(x + shift, y), loss(x, y), rtol=1e-7, atol=1e-9)


@quick
@given(tensors((6, 3)), SEED)
def test_focal_lies_below_cross_entropy_and_meets_it_at_gamma_zero(x, seed):
    y = labels(seed, 6)
    plain = L.cross_entropy_loss(x, y, reduction="none")
    torch.testing.assert_close(L.focal_loss(x, y, gamma=0.0, reduction="none"), plain)
    assert bool((L.focal_loss(x, y, gamma=2.0, reduction="none") <= plain + 1e-12).all())
    t = (y > 0).double()
    torch.testing.assert_close(
        L.binary_focal_loss(x[:, 0], t, gamma=0.0, alpha=None),
        L.bce_with_logits_loss(x[:, 0], t), rtol=1e-7, atol=1e-9,
    )  # fmt: skip


@quick
@given(arrays(np.float64, array_shapes(max_dims=3), elements=FLOATS).map(torch.from_numpy))
def test_robust_losses_lie_between_their_ends(e):
    zero = torch.zeros_like(e)
    size = L.l1_loss(e, zero, reduction="none")
    square = 0.5 * L.mse_loss(e, zero, reduction="none")
    for loss in (L.huber_loss, L.log_cosh_loss):
        found = loss(e, zero, reduction="none")
        assert bool((found <= torch.minimum(size, square) + 1e-9).all())
        assert bool((found >= size - 1).all())
    torch.testing.assert_close(L.quantile_loss(e, zero), size.mean() / 2)


@quick
@given(st.lists(FLOATS, min_size=3, max_size=30), st.floats(0.05, 0.95))
def test_the_quantile_minimizes_its_loss(data, q):
    target = torch.tensor(data, dtype=torch.float64)
    costs = torch.stack([L.quantile_loss(v.expand_as(target), target, q=q) for v in target])
    best = torch.quantile(target, q, interpolation="linear")
    ends = target[target <= best].max(), target[target >= best].min()
    at = min(L.quantile_loss(v.expand_as(target), target, q=q).item() for v in ends)
    spread = (target.max() - target.min()).item() / len(data)  # one sample's share
    assert at <= costs.min().item() + spread


@quick
@given(tensors((4, 3)), tensors((4, 3)))
def test_divergence_is_never_negative_and_zero_on_itself(x, t):
    p = t.softmax(1)
    assert L.kl_divergence(x, p).item() >= -1e-9
    assert L.kl_divergence(t, p).item() == pytest.approx(0, abs=1e-9)


@quick
@given(SEED, st.integers(2, 9), st.sampled_from([0.05, 0.2, 1.0]))
def test_nt_xent_is_symmetric_and_does_not_see_lengths(seed, count, temperature):
    a, b = random(seed, count, 4), random(seed + 1, count, 4)
    here = L.nt_xent_loss(a, b, temperature)
    torch.testing.assert_close(L.nt_xent_loss(b, a, temperature), here)
    torch.testing.assert_close(L.nt_xent_loss(3 * a, 0.1 * b, temperature), here)
    order = torch.randperm(count)
    torch.testing.assert_close(L.nt_xent_loss(a[order], b[order], temperature), here)
    both = [L.info_nce_loss(x, y, symmetric=True) for x, y in ((a, b), (b, a))]
    torch.testing.assert_close(*both)
    one_way = (L.info_nce_loss(a, b) + L.info_nce_loss(b, a)) / 2
    torch.testing.assert_close(both[0], one_way)


@quick
@given(SEED, st.integers(2, 9))
def test_two_views_as_classes_are_nt_xent(seed, count):
    """SupCon with one positive each is NT-Xent."""
    a, b = random(seed, count, 3), random(seed + 1, count, 3)
    y = torch.arange(count).repeat(2)
    torch.testing.assert_close(L.sup_con_loss(torch.cat([a, b]), y, 0.3), L.nt_xent_loss(a, b, 0.3))


@quick
@given(SEED)
def test_given_negatives_equal_the_same_negatives_in_the_batch(seed):
    q, k = random(seed, 4, 3), random(seed + 1, 4, 3)
    whole = L.info_nce_loss(q, k, reduction="none")
    shared = torch.stack([k[[j for j in range(4) if j != i]] for i in range(4)])
    torch.testing.assert_close(L.info_nce_loss(q, k, shared, reduction="none"), whole)
    alone = L.info_nce_loss(q[:1], k[:1], k[1:])
    torch.testing.assert_close(alone, whole[0])


@quick
@given(SEED, st.sampled_from(["binary", "multilabel"]))
def test_overlaps_are_bounded_and_related(seed, mode):
    x, t = random(seed, 2, 3, 4), (random(seed + 1, 2, 3, 4) > 0).double()
    dice = L.dice_loss(x, t, mode, reduction="none")
    iou = L.iou_loss(x, t, mode, reduction="none")
    assert bool(((dice >= 0) & (iou <= 1) & (dice <= iou + 1e-12)).all())
    torch.testing.assert_close(1 - iou, (1 - dice) / (1 + dice))  # J = D / (2 - D)
    torch.testing.assert_close(L.tversky_loss(x, t, mode), dice.mean())
    torch.testing.assert_close(L.tversky_loss(x, t, mode, 1.0, 1.0), iou.mean())
    torch.testing.assert_close(L.focal_tversky_loss(x, t, mode, 0.5, 0.5, 1.0), dice.mean())


@quick
@given(SEED)
def test_lovasz_on_hard_masks_is_the_iou_loss(seed):
    t = (random(seed, 2, 3, 4) > 0).double()
    guess = (random(seed + 1, 2, 3, 4) > 0).double()
    t[0, 0, 0] = 1
    torch.testing.assert_close(
        L.lovasz_loss(guess, t, from_logits=False), L.iou_loss(guess, t, from_logits=False)
    )


@quick
@given(SEED)
def test_box_losses_are_ordered_and_do_not_see_scale(seed):
    corner, size = random(seed, 5, 2), random(seed + 1, 5, 2).abs() + 0.1
    a = torch.cat([corner, corner + size], 1)
    b = a + 0.5 * random(seed + 2, 5, 1)
    losses = [f(a, b, reduction="none") for f in (L.box_iou_loss, L.giou_loss, L.diou_loss)]
    assert bool((losses[0] <= losses[1] + 1e-12).all())
    assert bool((losses[0] <= losses[2] + 1e-12).all())
    assert bool((losses[1] <= 2).all())
    for loss in (L.box_iou_loss, L.giou_loss, L.diou_loss, L.ciou_loss):
        torch.testing.assert_close(loss(7 * a + 3, 7 * b + 3), loss(a, b), rtol=1e-6, atol=1e-9)
        assert loss(b, b).item() == pytest.approx(0, abs=1e-12)
