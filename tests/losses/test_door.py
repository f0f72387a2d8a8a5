"""What is refused at the door: each message names the rule, both shapes or the value, and a way."""

import pytest
import torch

import brickyard.losses as L

X = torch.randn(4, 3)
Y = torch.tensor([0, 1, 2, 2])
VALUES = [L.mse_loss, L.l1_loss, L.huber_loss, L.smooth_l1_loss, L.log_cosh_loss, L.quantile_loss]


@pytest.mark.parametrize("loss", [*VALUES, L.bce_with_logits_loss, L.binary_focal_loss])
@pytest.mark.parametrize(
    ("a", "b"), [((4, 1), (4,)), ((4,), (4, 1)), ((4, 3), (4,)), ((4, 3), (3,)), ((4,), ())]
)
def test_what_would_broadcast_is_refused(loss, a, b):
    with pytest.raises(ValueError, match="same shape") as error:
        loss(torch.zeros(a), torch.zeros(b))
    assert str(a) in str(error.value)
    assert str(b) in str(error.value)


@pytest.mark.parametrize("loss", VALUES)
def test_indices_are_no_values(loss):
    with pytest.raises(TypeError, match=r"int64.*cross_entropy.*target\.float"):
        loss(torch.zeros(4), Y)


CLASSES = [L.cross_entropy_loss, L.nll_loss, L.focal_loss, L.multiclass_hinge_loss]


@pytest.mark.parametrize("loss", CLASSES)
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 1, 2, 3]), r"\[0, 3\).*got 3 \(1 of 4"),
        (torch.tensor([0, 1, 2, -1]), r"got -1"),
        (Y.unsqueeze(1), r"shape \(4,\); got \(4, 1\).*reshape\(\(4,\)\)"),
        (torch.eye(3, dtype=torch.long)[Y], r"One-hot.*argmax\(1\)"),
        (torch.tensor([0, 1]), r"shape \(4,\); got \(2,\)"),
    ],
)
def test_classes_are_checked(loss, target, message):
    with pytest.raises(ValueError, match=message):
        loss(X, target)


@pytest.mark.parametrize("loss", CLASSES)
def test_kinds_of_targets_are_checked(loss):
    with pytest.raises(TypeError, match=r"integers; got torch\.bool"):
        loss(X, Y.bool())
    with pytest.raises((TypeError, ValueError), match=r"target\.long\(\)"):
        loss(X, Y.float())
    for kind in (torch.uint8, torch.int32):
        torch.testing.assert_close(loss(X, Y.to(kind)), loss(X, Y))


@pytest.mark.parametrize("loss", CLASSES)
def test_one_class_can_teach_nothing(loss):
    with pytest.raises(ValueError, match=r"one class.*\(4, 1\).*bce"):
        loss(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))


def test_classes_stand_on_axis_one():
    tokens = torch.zeros(2, 5, dtype=torch.long)
    with pytest.raises(ValueError, match=r"movedim\(-1, 1\)"):
        L.cross_entropy_loss(torch.zeros(2, 5, 7), tokens)


@pytest.mark.parametrize("loss", [L.bce_with_logits_loss, L.binary_focal_loss, L.dice_loss])
def test_binary_targets_are_checked(loss):
    for bad in (2.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            loss(X, torch.full_like(X, bad))
    kinds = (torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool)
    zeros = [loss(X, torch.ones(4, 3).to(kind)) for kind in kinds]
    assert len({z.item() for z in zeros}) == 1


@pytest.mark.parametrize("loss", [L.hinge_loss, L.squared_hinge_loss])
def test_hinge_labels_are_signs(loss):
    score = torch.zeros(3)
    with pytest.raises(ValueError, match=r"0 to 1; for labels in \{0, 1\} pass 2 \* target - 1"):
        loss(score, torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match=r"-1 and \+1"):
        loss(score, torch.tensor([0.5, 1.0, -1.0]))
    assert loss(score, torch.tensor([-1, 1, 1])).item() == 1


def test_contrastive_marks_are_bits():
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="0 marks a pair of the same class"):
        L.contrastive_loss(z, z, torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L.HuberLoss(delta=0.0), "delta must be above 0; got 0"),
        (lambda: L.SmoothL1Loss(beta=-1.0), "beta must be at least 0"),
        (lambda: L.QuantileLoss(q=1.0), "strictly between 0 and 1; got 1"),
        (lambda: L.CrossEntropyLoss(label_smoothing=1.5), "at most 1; got 1.5"),
        (lambda: L.CrossEntropyLoss(weight=[1.0, -1.0]), "at least 0"),
        (lambda: L.FocalLoss(gamma=-1.0), "gamma must be at least 0"),
        (lambda: L.BinaryFocalLoss(alpha=2.0), "alpha"),
        (lambda: L.KLDivergence(temperature=0.0), "temperature must be above 0"),
        (lambda: L.NTXentLoss(temperature=-1.0), "temperature"),
        (lambda: L.TripletLoss(p=0.5), "p must be at least 1"),
        (lambda: L.BatchTripletLoss(mining="easy"), "all, hard, semi_hard; got 'easy'"),
        (lambda: L.MulticlassHingeLoss(variant="x"), "crammer_singer, weston_watkins"),
        (lambda: L.TverskyLoss(alpha=0.0, beta=0.0), "cannot both be 0"),
        (lambda: L.FocalTverskyLoss(gamma=0.0), "gamma must be above 0"),
        (lambda: L.DiceLoss(mode="multi"), "binary, multiclass, multilabel"),
        (lambda: L.ELBOLoss(likelihood="laplace"), "bernoulli, gaussian"),
        (lambda: L.TDLoss(gamma=1.5), "gamma"),
        (lambda: L.ValueLoss(kind="l1"), "mse, huber"),
        (lambda: L.PPOClipLoss(clip=0.0), "clip must be above 0"),
        (lambda: L.LinearCrossEntropyLoss(chunk=0), "chunk must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


LOGIT_LOSSES = [
    L.cross_entropy_loss, L.focal_loss,
    lambda x, y, **o: L.distillation_loss(x, X, y, **o),
    lambda x, y, **o: L.dice_loss(x.unsqueeze(2), y.unsqueeze(1), "multiclass", **o),
]  # fmt: skip


@pytest.mark.parametrize("loss", LOGIT_LOSSES[:3])
def test_full_validation_finds_a_softmax_before_the_loss(loss):
    loss(X, Y, validate="full")
    loss(X.softmax(1), Y)  # cannot be told cheaply
    with pytest.raises(ValueError, match=r"must be logits.*softmax"):
        loss(X.softmax(1), Y, validate="full")


@pytest.mark.parametrize("loss", [L.bce_with_logits_loss, L.binary_focal_loss, L.dice_loss])
def test_full_validation_finds_a_sigmoid_before_the_loss(loss):
    x, y = torch.randn(8, 8), torch.ones(8, 8)
    loss(x, y, validate="full")
    with pytest.raises(ValueError, match=r"must be logits.*sigmoid"):
        loss(x.sigmoid(), y, validate="full")


def test_full_validation_finds_logits_where_log_probabilities_belong():
    L.nll_loss(X.log_softmax(1), Y, validate="full")
    with pytest.raises(ValueError, match=r"log_softmax, or give logits to cross_entropy"):
        L.nll_loss(X.abs(), Y, validate="full")
    frames = torch.randn(5, 1, 3).abs()
    with pytest.raises(ValueError, match="CTC takes log-probabilities"):
        L.ctc_loss(frames, torch.tensor([[1]]), [5], [1], validate="full")


@pytest.mark.parametrize("loss", [L.cross_entropy_loss, L.kl_divergence])
def test_full_validation_sums_probability_targets(loss):
    good = X.softmax(1)
    loss(X, good, validate="full")
    loss(X, good / 2)
    with pytest.raises(ValueError, match=r"sum to one over axis 1.*0\.5"):
        loss(X, good / 2, validate="full")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_full_validation_counts_what_is_not_finite(bad):
    x = torch.zeros(2, 3)
    x[0, 1] = bad
    with pytest.raises(ValueError, match="input must be finite; 1 of 6"):
        L.mse_loss(x, torch.zeros(2, 3), validate="full")


def test_embeddings_and_labels_are_checked():
    z = torch.randn(4, 3)
    for loss in (L.sup_con_loss, L.batch_triplet_loss):
        with pytest.raises(ValueError, match=r"shape \(4,\), one per embedding; got \(4, 1\)"):
            loss(z, Y.unsqueeze(1))
        with pytest.raises(TypeError, match="labels must be integers"):
            loss(z, Y.float())
        with pytest.raises(ValueError, match=r"shape \(N, D\); got \(4, 3, 1\)"):
            loss(z.unsqueeze(2), Y)
    with pytest.raises(ValueError, match="z1 and z2 must have the same shape"):
        L.nt_xent_loss(z, z[:3])
    with pytest.raises(ValueError, match="belong to in-batch negatives"):
        L.info_nce_loss(z, z, z, symmetric=True)
    with pytest.raises(ValueError, match=r"\(M, 3\) or \(4, M, 3\); got \(4, 2\)"):
        L.info_nce_loss(z, z, z[:, :2])


def test_losses_run_where_values_cannot_be_read():
    """Range checks stand aside under vmap and on the meta device; shapes are still checked."""
    y = Y.repeat(2, 1)
    rows = torch.func.vmap(L.cross_entropy_loss)(torch.stack([X, X]), y)
    torch.testing.assert_close(rows, L.cross_entropy_loss(X, Y).expand(2))
    x, t = torch.empty(4, 3, device="meta"), torch.empty(4, dtype=torch.long, device="meta")
    assert L.cross_entropy_loss(x, t).device.type == "meta"
    with pytest.raises(ValueError, match="class indices must have shape"):
        L.cross_entropy_loss(x, t.unsqueeze(1))
    assert L.mse_loss(x, x).device.type == "meta"
