"""The ends of the range: huge logits, nothing to learn from, distance 0, half precision."""

import math

import pytest
import torch

import brickyard.losses as L


def value_and_grad(loss, x, *args, **options):
    x = x.clone().requires_grad_()
    value = loss(x, *args, **options)
    (grad,) = torch.autograd.grad(value, x)
    assert bool(value.isfinite())
    assert bool(grad.isfinite().all())
    return value.item(), grad


BIG = 1e4


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_at_huge_logits(gamma):
    """Right and certain: loss 0, gradient 0. Wrong and certain: the margin, with slope 1."""
    logits = torch.tensor([[BIG, -BIG], [BIG, -BIG]])
    options = {"gamma": gamma, "reduction": "sum"}
    value, grad = value_and_grad(L.focal_loss, logits, torch.tensor([0, 1]), **options)
    assert value == 2 * BIG
    torch.testing.assert_close(grad, torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    value, grad = value_and_grad(
        L.binary_focal_loss, torch.tensor([BIG, BIG, -BIG]), torch.tensor([1, 0, 0]),
        alpha=None, **options,
    )  # fmt: skip
    assert value == BIG
    torch.testing.assert_close(grad, torch.tensor([0.0, 1.0, 0.0]))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_keeps_relative_precision_when_nearly_certain(gamma):
    """At a logit of 12 (1 - p) is 6e-6; computed as 1 - sigmoid it would have two digits."""
    x = torch.tensor([12.0], dtype=torch.float64)
    q = 1 / (1 + math.exp(12.0))
    right = q**gamma * -math.log1p(-q)
    value = L.binary_focal_loss(x.float(), torch.ones(1), gamma=gamma, alpha=None)
    assert abs(value.item() / right - 1) < 2e-6


def test_cross_entropy_at_huge_logits():
    logits = torch.tensor([[BIG, -BIG, 0.0]])
    assert value_and_grad(L.cross_entropy_loss, logits, torch.tensor([0]))[0] == 0
    assert value_and_grad(L.cross_entropy_loss, logits, torch.tensor([1]))[0] == 2 * BIG


@pytest.mark.parametrize("loss", [L.cross_entropy_loss, L.nll_loss, L.focal_loss])
def test_all_targets_ignored_is_zero_not_nan(loss):
    x = torch.randn(3, 4).log_softmax(1)
    value, grad = value_and_grad(loss, x, torch.full((3,), -100))
    assert value == 0
    assert not grad.any()
    value, grad = value_and_grad(loss, x, torch.tensor([2, 2, 2]), ignore_index=2)
    assert value == 0
    assert not grad.any()


@pytest.mark.parametrize("loss", [L.cross_entropy_loss, L.nll_loss, L.focal_loss])
def test_ignored_targets_count_for_nothing(loss):
    x = torch.randn(4, 3, dtype=torch.float64).log_softmax(1)
    y = torch.tensor([0, -100, 2, -100])
    value, grad = value_and_grad(loss, x, y)
    wanted, kept = value_and_grad(loss, x[[0, 2]], y[[0, 2]])
    assert value == pytest.approx(wanted)
    torch.testing.assert_close(grad[[0, 2]], kept)
    assert not grad[[1, 3]].any()
    weight = torch.tensor([1.0, 5.0, 2.0, 7.0]).double()
    weighed = loss(x, y, weight)
    torch.testing.assert_close(weighed, loss(x[[0, 2]], y[[0, 2]], weight[[0, 2]]))


def test_weighed_cross_entropy_divides_by_both_weights():
    x, y = torch.randn(4, 3).double(), torch.tensor([0, 1, 2, -100])
    classes, samples = torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([1.0, 3, 5, 9]).double()
    losses = torch.nn.functional.cross_entropy(x, y, reduction="none")
    share = (classes[y.clamp_min(0)] * samples)[:3]
    wanted = (losses[:3] * share).sum() / share.sum()
    torch.testing.assert_close(L.cross_entropy_loss(x, y, samples, classes), wanted)
    ones = torch.ones(4)
    torch.testing.assert_close(
        L.cross_entropy_loss(x, y, ones, classes, label_smoothing=0.1),
        torch.nn.functional.cross_entropy(x, y, classes, label_smoothing=0.1),
    )


def test_smoothing_puts_a_share_on_every_class():
    x, eps = torch.randn(2, 4).double(), 0.2
    soft = torch.eye(4).double()[[1, 3]] * (1 - eps) + eps / 4
    torch.testing.assert_close(
        L.cross_entropy_loss(x, torch.tensor([1, 3]), label_smoothing=eps),
        -(soft * x.log_softmax(1)).sum(1).mean(),
    )
    y = torch.tensor([0.0, 1.0]).double()
    torch.testing.assert_close(
        L.bce_with_logits_loss(x[:, 0], y, label_smoothing=eps),
        L.bce_with_logits_loss(x[:, 0], y * 0.8 + 0.1),
    )


def test_probabilities_of_zero_cost_nothing():
    """0 log 0 = 0, on either side and where both are certain."""
    p = torch.tensor([[1.0, 0.0, 0.0]])
    value, grad = value_and_grad(L.kl_divergence, torch.tensor([[0.0, 0.0, 0.0]]), p)
    assert value == pytest.approx(math.log(3))
    torch.testing.assert_close(grad, torch.tensor([[-2 / 3, 1 / 3, 1 / 3]]))
    masked = torch.tensor([[0.0, -math.inf, -math.inf]])
    assert value_and_grad(L.kl_divergence, masked, p)[0] == 0
    logits = torch.tensor([[BIG, -BIG, 0.0]])
    value_and_grad(L.distillation_loss, logits, -logits, torch.tensor([1]))


def test_temperature_squared_keeps_the_size_of_the_soft_gradient():
    x, t = torch.zeros(1, 3).double(), torch.tensor([[1e-2, 0.0, -1e-2]]).double()
    grads = [
        value_and_grad(L.distillation_loss, x, t, torch.tensor([0]), temperature=temp, alpha=1.0)[1]
        for temp in (1.0, 8.0)
    ]
    torch.testing.assert_close(grads[0], grads[1], rtol=2e-2, atol=2e-5)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: L.triplet_loss(z, z, z),
        lambda z: L.triplet_loss(z, z, z, p=1.0),
        lambda z: L.triplet_loss(z, z, z, p=3.0),
        lambda z: L.contrastive_loss(z, z, torch.tensor([0.0, 1.0, 1.0, 0.0])),
        lambda z: L.batch_triplet_loss(z, torch.tensor([0, 0, 1, 1]), mining="hard"),
        lambda z: L.batch_triplet_loss(z, torch.tensor([0, 0, 1, 1]), mining="all"),
        lambda z: L.batch_triplet_loss(z, torch.tensor([0, 0, 1, 1]), mining="semi_hard"),
        lambda z: L.nt_xent_loss(z, z),
        lambda z: L.info_nce_loss(z, z),
        lambda z: L.sup_con_loss(z, torch.tensor([0, 0, 1, 1])),
    ],
)
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4, 1e-10])
def test_identical_embeddings_have_finite_gradients(loss, size):
    value_and_grad(loss, torch.full((4, 3), size))


def test_identical_embeddings_cost_the_margin():
    same, labels = torch.ones(4, 3), torch.tensor([0, 0, 1, 1])
    assert L.triplet_loss(same, same, same, margin=0.5).item() == 0.5
    for mining in ("all", "hard"):
        found = L.batch_triplet_loss(same, labels, margin=0.5, mining=mining)
        assert found.item() == pytest.approx(0.5)
    assert L.batch_triplet_loss(same, labels, mining="semi_hard").item() == 0


@pytest.mark.parametrize("mining", ["all", "hard", "semi_hard"])
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]], ids=["one class", "all different"])
def test_no_triplet_no_loss(mining, labels):
    z = torch.randn(3, 2)
    value, grad = value_and_grad(L.batch_triplet_loss, z, torch.tensor(labels), mining=mining)
    assert value == 0
    assert not grad.any()


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: L.nt_xent_loss(z, z), lambda z: L.info_nce_loss(z, z),
        lambda z: L.sup_con_loss(z, torch.tensor([0])),
        lambda z: L.batch_triplet_loss(z, torch.tensor([0])),
    ],
)  # fmt: skip
def test_a_batch_of_one_has_nothing_to_compare(loss):
    with pytest.raises(ValueError, match=r"batch of at least 2.*got \(1, 3\)"):
        loss(torch.randn(1, 3))


def test_given_negatives_allow_a_batch_of_one():
    z = torch.randn(1, 3)
    assert L.info_nce_loss(z, z, torch.randn(5, 3)).isfinite()


@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.031, 0.01, 0.001])
def test_contrast_at_any_temperature(temperature):
    z1, z2 = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    wanted = L.nt_xent_loss(z1, z2, temperature)
    found, grad = value_and_grad(L.nt_xent_loss, z1.float(), z2.float(), temperature)
    assert found == pytest.approx(wanted.item(), rel=1e-5 / temperature**0.5)
    value_and_grad(L.sup_con_loss, z1.float(), torch.tensor([0, 0, 1, 1, 2]), temperature)
    perfect = L.info_nce_loss(torch.eye(3), torch.eye(3), temperature=temperature)
    assert perfect.item() == pytest.approx(math.log1p(2 * math.exp(-1 / temperature)), abs=1e-6)
    assert perfect.item() >= 0
    del grad


def test_anchors_without_a_positive_do_not_count():
    z, labels = torch.randn(4, 3).double(), torch.tensor([0, 0, 1, 2])
    each = L.sup_con_loss(z, labels, reduction="none")
    assert each[2:].tolist() == [0, 0]
    torch.testing.assert_close(L.sup_con_loss(z, labels), each[:2].mean())
    assert L.sup_con_loss(z, torch.arange(4)).item() == 0


def test_log_cosh_is_exact_at_both_ends():
    sizes = torch.tensor([1e-18, 1e-6, 1e-3, 0.5, 0.9999, 1.0001, 30.0, 1e4, 1e30])
    exact = []
    for v in sizes.double().tolist():
        small = v**2 / 2 - v**4 / 12 + v**6 / 45
        large = v + math.log1p(math.exp(-2 * v)) - math.log(2)
        exact.append(small if v < 1e-2 else large)
    found = L.log_cosh_loss(sizes, torch.zeros_like(sizes), reduction="none").double()
    torch.testing.assert_close(found, torch.tensor(exact).double(), rtol=4e-7, atol=1e-37)


def test_elbo_of_the_prior_is_the_misfit():
    x = torch.zeros(2, 3)
    found = L.elbo_loss(x, x, torch.zeros(2, 1), torch.zeros(2, 1), likelihood="gaussian")
    assert found.item() == pytest.approx(1.5 * math.log(2 * math.pi))
    near = torch.full((1, 1), 1e-3, dtype=torch.float64)
    kl = L.gaussian_kl(0 * near, near)
    assert kl.item() == pytest.approx(0.5 * (1e-6 / 2 + 1e-9 / 6), rel=1e-6)
    with pytest.raises(ValueError, match="Bernoulli likelihood needs data in"):
        L.elbo_loss(x, x + 2, torch.zeros(2, 1), torch.zeros(2, 1))


def test_ppo_survives_a_policy_that_ran_away():
    new, old = torch.tensor([0.0, 0.0, -300.0]), torch.tensor([-300.0, -300.0, 0.0])
    value_and_grad(L.ppo_clip_loss, new, old, torch.tensor([1.0, -1.0, 1.0]))
