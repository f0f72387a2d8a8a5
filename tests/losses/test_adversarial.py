"""Gradient penalties: closed forms, second derivatives through a critic, flat critics."""

import numpy as np
import pytest
import torch
from torch import nn

import brickyard.losses as L


def critic_of(width=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(width, 6), nn.Tanh(), nn.Linear(6, 1)).double()


@pytest.mark.parametrize("penalty", ["gp", "r1"])
def test_penalties_train_the_critic(penalty):
    """The gradient with respect to the critic's weights, against finite differences."""
    critic, real, fake = critic_of(), torch.randn(4, 3).double(), torch.randn(4, 3).double()
    names, weights = zip(*critic.named_parameters(), strict=True)

    def loss(*values):
        def run(x):
            return torch.func.functional_call(critic, dict(zip(names, values, strict=True)), (x,))

        if penalty == "r1":
            return L.r1_penalty(run, real)
        seed = torch.Generator().manual_seed(0)
        return L.gradient_penalty(run, real, fake, generator=seed)

    leaves = [w.detach().clone().requires_grad_() for w in weights]
    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradgradcheck(loss, leaves)


def test_the_penalty_is_taken_between_the_samples():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.square().sum((1, 2))

    real, fake = torch.zeros(64, 1, 2), torch.ones(64, 1, 2)
    L.gradient_penalty(critic, real, fake)
    (x,) = seen
    assert torch.equal(x[:, 0, 0], x[:, 0, 1])  # one share per sample
    assert 0 < x.min() < 0.2 < 0.8 < x.max() < 1
    again = [
        L.gradient_penalty(critic, real, fake, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    ]
    assert torch.equal(*again)


def test_the_penalty_in_single_precision_is_the_paper_s():
    """Against float64 NumPy at the points that fp32 draws; |slope| and target cancel."""
    a = torch.randn(3, 3)
    real, fake = torch.randn(64, 3), torch.randn(64, 3)
    found = L.gradient_penalty(
        lambda x: (x @ a * x).sum(1), real, fake, generator=torch.Generator().manual_seed(3),
        reduction="none",
    )  # fmt: skip
    u = torch.rand(64, 1, generator=torch.Generator().manual_seed(3)).double().numpy()
    points = u * real.double().numpy() + (1 - u) * fake.double().numpy()
    slope = np.linalg.norm(points @ (a + a.T).double().numpy(), axis=1)
    error = np.abs(found.detach().numpy() - 10 * (slope - 1) ** 2)
    assert (error / (10 * (slope + 1) ** 2)).max() < 1e-6


def test_a_flat_critic_has_no_nan():
    critic = nn.Linear(3, 1)
    nn.init.zeros_(critic.weight)
    value = L.gradient_penalty(critic, torch.randn(4, 3), torch.randn(4, 3))
    value.backward()
    assert value.item() == 10
    assert not critic.weight.grad.any()


def test_samples_get_no_gradient_and_are_left_alone():
    critic = critic_of()
    real = torch.randn(4, 3).double().requires_grad_()
    fake = torch.randn(4, 3).double().requires_grad_()
    (L.gradient_penalty(critic, real, fake) + L.r1_penalty(critic, real)).backward()
    assert real.grad is None
    assert fake.grad is None


def test_penalties_work_in_evaluation():
    with torch.no_grad():
        assert L.r1_penalty(critic_of(), torch.randn(4, 3).double()) > 0


def test_scores_that_are_no_scores_are_refused():
    real = torch.randn(4, 3)
    for critic in (lambda x: x.sum(), lambda x: x.detach().sum(1)):
        with pytest.raises(ValueError, match="differentiable scores with the samples on axis 0"):
            L.r1_penalty(critic, real)
    with pytest.raises(ValueError, match="real and fake must have the same shape"):
        L.gradient_penalty(critic_of(), real, real[:2])
    with pytest.raises(ValueError, match="slope must be finite"):
        L.r1_penalty(lambda x: (x - x).sqrt().sum(1), real, validate="full")


def test_minimax_and_non_saturating_share_the_discriminator():
    real, fake = torch.randn(5), torch.randn(5)
    assert torch.equal(
        L.GANMinimax().discriminator(real, fake), L.GANNonSaturating().discriminator(real, fake)
    )
    low = torch.tensor([-20.0], requires_grad=True)
    grads = [
        torch.autograd.grad(game.generator(low), low)[0].abs().item()
        for game in (L.GANMinimax(), L.GANNonSaturating())
    ]
    assert grads[0] < 1e-8  # it saturates
    assert grads[1] == pytest.approx(1)


def test_sides_of_different_size():
    game = L.GANHinge()
    assert game.discriminator(torch.zeros(3), torch.zeros(5)).item() == 2
    with pytest.raises(ValueError, match="real and fake"):
        L.GANHinge(reduction="none").discriminator(torch.zeros(3), torch.zeros(5))
