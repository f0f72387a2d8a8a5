"""Contrastive losses across ranks: two gloo processes against one process with the joined batch."""

import pytest
import torch
from ranks import on_ranks
from torch import nn

import brickyard.losses as L

RANKS, LOCAL, WIDTH = 2, 3, 5
LABELS = torch.tensor([0, 1, 2, 0, 1, 5])  # the last has no positive; each rank sees others
LOSSES = {
    "nt_xent": lambda net, a, b, y, g: L.nt_xent_loss(net(a), net(b), 0.3, gather=g),
    "info_nce": lambda net, a, b, y, g: L.info_nce_loss(net(a), net(b), gather=g),
    "symmetric": lambda net, a, b, y, g: L.info_nce_loss(
        net(a), net(b), symmetric=True, gather=g
    ),
    "sup_con": lambda net, a, b, y, g: L.sup_con_loss(net(a), y, gather=g),
    "sum": lambda net, a, b, y, g: L.nt_xent_loss(net(a), net(b), gather=g, reduction="sum"),
}  # fmt: skip


def data():
    torch.manual_seed(0)
    net = nn.Linear(WIDTH, 4).double()
    a, b = torch.randn(2, RANKS * LOCAL, WIDTH, dtype=torch.float64).unbind(0)
    return net, a, b


def work(rank, results):
    mine = slice(rank * LOCAL, (rank + 1) * LOCAL)
    for name, loss in LOSSES.items():
        net, a, b = data()
        parallel = nn.parallel.DistributedDataParallel(net)
        value = loss(parallel, a[mine], b[mine], LABELS[mine], True)
        value.backward()
        found = [value.item(), *(p.grad.flatten().tolist() for p in net.parameters())]
        results[f"{name} {rank}"] = found
    net, a, b = data()
    each = L.nt_xent_loss(a[mine], b[mine], gather=True, reduction="none")
    results[f"none {rank}"] = each.tolist()
    try:
        L.nt_xent_loss(a[: 2 + rank], b[: 2 + rank], gather=True)
    except ValueError as error:
        results[f"unequal {rank}"] = str(error)


@pytest.fixture(scope="module")
def results():
    return on_ranks(work, RANKS)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("rank", range(RANKS))
def test_ranks_together_equal_the_joined_batch(results, name, rank):
    net, a, b = data()
    loss = LOSSES[name](net, a, b, LABELS, False)
    loss.backward()
    value, *grads = results[f"{name} {rank}"]
    assert value == pytest.approx(loss.item(), rel=1e-12)
    for found, parameter in zip(grads, net.parameters(), strict=True):
        wanted = parameter.grad.flatten()
        torch.testing.assert_close(torch.tensor(found).double(), wanted, rtol=1e-7, atol=1e-9)


def test_the_losses_of_local_views_are_those_of_the_joined_batch(results):
    _, a, b = data()
    joined = L.nt_xent_loss(a, b, reduction="none").view(2, RANKS, LOCAL)
    for rank in range(RANKS):
        found = torch.tensor(results[f"none {rank}"]).double()
        torch.testing.assert_close(found, joined[:, rank].flatten(), rtol=1e-6, atol=1e-9)


def test_unequal_batches_are_refused(results):
    for rank in range(RANKS):
        assert "got [2, 3]. Use drop_last=True" in results[f"unequal {rank}"]


def test_without_a_process_group_gather_changes_nothing():
    _, a, b = data()
    torch.testing.assert_close(L.nt_xent_loss(a, b, gather=True), L.nt_xent_loss(a, b))
