"""Mining triplets: against loops over all triplets, on ties, and second derivatives."""

import itertools

import pytest
import torch

import brickyard.losses as L


def triplets(z, labels, margin, mining):
    """List every active triplet's loss, in differentiable loops."""
    far = lambda i, j: (z[i] - z[j]).square().sum().sqrt()  # noqa: E731
    found = []
    for a, p, n in itertools.permutations(range(len(z)), 3):
        if labels[a] != labels[p] or labels[a] == labels[n]:
            continue
        loss = far(a, p) - far(a, n) + margin
        if loss > 0 and (mining == "all" or far(a, p) < far(a, n)):
            found.append((a, loss))
    return found


@pytest.mark.parametrize("mining", ["all", "semi_hard"])
@pytest.mark.parametrize("margin", [0.2, 1.0, 50.0])
def test_counting_triplets_equals_listing_them(mining, margin):
    z = torch.randn(14, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 4, (14,))
    listed = triplets(z, labels, margin, mining)
    for reduction in ("mean", "sum"):
        total = torch.stack([loss for _, loss in listed]).sum()
        wanted = total / len(listed) if reduction == "mean" else total
        found = L.batch_triplet_loss(z, labels, margin, mining, reduction)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(
            *(torch.autograd.grad(v, z, retain_graph=True)[0] for v in (found, wanted))
        )
    each = torch.zeros(14, dtype=torch.float64)
    for a, loss in listed:
        each[a] += loss.detach()
    torch.testing.assert_close(L.batch_triplet_loss(z, labels, margin, mining, "none"), each)


@pytest.mark.parametrize("mining", ["all", "semi_hard"])
def test_ties_on_a_lattice(mining):
    """Integer places: many distances are equal, many triplets stand exactly at the margin."""
    places = torch.tensor(list(itertools.product(range(3), range(3))), dtype=torch.float64)
    z = places.requires_grad_()
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 2])
    listed = [loss for _, loss in triplets(z, labels, 1.0, mining)]
    found = L.batch_triplet_loss(z, labels, 1.0, mining, "sum")
    torch.testing.assert_close(found, torch.stack(listed).sum(), rtol=1e-9, atol=1e-9)
    single = L.batch_triplet_loss(z.float(), labels, 1.0, mining, "sum")
    torch.testing.assert_close(single.double(), found, rtol=1e-6, atol=1e-6)


def test_hard_mining_survives_an_offset():
    """Embeddings far from the origin: products cancel, and still the right pairs are found."""
    z, labels = 1e-2 * torch.randn(32, 4), torch.randint(0, 4, (32,))
    wanted = L.batch_triplet_loss(z.double(), labels, 0.01)
    for mining in ("hard", "all"):
        here = L.batch_triplet_loss(z + 100, labels, 0.01, mining)
        there = L.batch_triplet_loss((z + 100).double(), labels, 0.01, mining)
        torch.testing.assert_close(here.double(), there, rtol=1e-4, atol=1e-7)
    assert wanted > 0


@pytest.mark.parametrize("mining", ["all", "hard", "semi_hard"])
def test_second_derivatives(mining):
    z = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])

    def loss(z):
        return L.batch_triplet_loss(z, labels, 2.0, mining)

    assert torch.autograd.gradgradcheck(loss, z)


@pytest.mark.parametrize("temperature", [0.5, 0.02])
def test_second_derivatives_of_contrast(temperature):
    a = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda a, b: L.nt_xent_loss(a, b, temperature), (a, b))
    labels = torch.tensor([0, 0, 1, 1])
    assert torch.autograd.gradgradcheck(lambda a: L.sup_con_loss(a, labels, temperature), a)


def test_triplet_orders_of_the_norm():
    a, p, n = torch.randn(3, 5, 4, dtype=torch.float64).unbind(0)
    for order in (1.0, 2.0, 3.0, float("inf")):
        near = torch.linalg.vector_norm(a - p, ord=order, dim=1)
        far = torch.linalg.vector_norm(a - n, ord=order, dim=1)
        torch.testing.assert_close(
            L.triplet_loss(a, p, n, 0.5, order), (near - far + 0.5).clamp_min(0).mean()
        )


def test_memory_of_mining_is_quadratic():
    """No tensor larger than N x (N + 1) is ever made."""
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in [out] if isinstance(t, torch.Tensor))
            return out

    z, labels = torch.randn(64, 4, requires_grad=True), torch.randint(0, 4, (64,))
    with Watch():
        for mining in ("all", "hard", "semi_hard"):
            L.batch_triplet_loss(z, labels, mining=mining).backward()
    assert max(sizes) <= 64 * 65
