"""CTC's door, and the chunked head against the plain one: values, gradients, memory."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import brickyard.losses as L

V, D = 11, 7


def head(dtype=torch.float64):
    torch.manual_seed(0)
    leaves = [torch.randn(*s, dtype=dtype, requires_grad=True) for s in ((2, 5, D), (V, D), (V,))]
    target = torch.randint(0, V, (2, 5))
    target[0, 1] = target[1, 3] = -100
    return leaves, target


def plain(hidden, matrix, bias, target, cap=None, **options):
    logits = F.linear(hidden, matrix, bias)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("weighed", [False, True])
def test_chunks_equal_the_plain_form(dtype, reduction, smoothing, cap, weighed):
    (hidden, weight, bias), target = head(dtype)
    classes = torch.rand(V).to(dtype) if weighed else None
    options = {"label_smoothing": smoothing, "reduction": reduction}
    wanted = plain(hidden, weight, bias, target, cap, weight=classes, **options)
    factor = torch.randn(10).to(dtype) if reduction == "none" else torch.tensor(1.7).to(dtype)
    right = torch.autograd.grad((wanted * factor).sum(), (hidden, weight, bias))
    close = (
        {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    )
    for chunk in (1, 3, 10, None):
        found = L.linear_cross_entropy_loss(
            hidden, weight, target, bias, class_weight=classes, soft_cap=cap, chunk=chunk, **options
        )
        torch.testing.assert_close(found.flatten(), wanted.reshape(-1), **close)
        total = (found.flatten() * factor).sum()
        for _ in range(2):  # the second time the first one's buffers are gone
            grads = torch.autograd.grad(total, (hidden, weight, bias), retain_graph=True)
            for a, b in zip(grads, right, strict=True):
                torch.testing.assert_close(a, b, **close)


@pytest.mark.parametrize("wanted", [c for n in (1, 2) for c in itertools.combinations(range(3), n)])
def test_frozen_parts_get_no_gradient(wanted):
    leaves, target = head()
    for i, leaf in enumerate(leaves):
        leaf.requires_grad_(i in wanted)
    hidden, weight, bias = leaves
    right = torch.autograd.grad(plain(hidden, weight, bias, target), [leaves[i] for i in wanted])
    found = L.linear_cross_entropy_loss(hidden, weight, target, bias, chunk=3)
    found.backward()
    for i, leaf in enumerate(leaves):
        assert (leaf.grad is not None) == (i in wanted)
    for i, grad in zip(wanted, right, strict=True):
        torch.testing.assert_close(leaves[i].grad, grad)


def test_second_derivatives_go_through_the_plain_form():
    (hidden, weight, bias), target = head()
    hidden = hidden[:1, :3].detach().requires_grad_()

    def loss(h, w, b):
        return L.linear_cross_entropy_loss(h, w, target[:1, :3], b, label_smoothing=0.1, chunk=2)

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias), nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(loss, (hidden, weight, bias), nondet_tol=1e-12)


def test_without_gradients_none_are_computed():
    (hidden, weight, bias), target = head()
    with torch.no_grad():
        found = L.linear_cross_entropy_loss(hidden, weight, target, bias)
    torch.testing.assert_close(found, plain(hidden, weight, bias, target).detach())
    assert L.linear_cross_entropy_loss(hidden, weight, torch.full((2, 5), -100)).item() == 0


def test_half_precision_products_and_autocast():
    (hidden, weight, bias), target = head(torch.float32)
    low = [t.detach().bfloat16().requires_grad_() for t in (hidden, weight, bias)]
    found = L.linear_cross_entropy_loss(low[0], low[1], target, low[2], chunk=4)
    right = plain(*(t.float() for t in low), target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, right, rtol=2e-2, atol=0)
    found.backward()
    assert all(t.grad.dtype == torch.bfloat16 and bool(t.grad.isfinite().all()) for t in low)
    with torch.autocast("cpu", torch.bfloat16):
        cast = L.linear_cross_entropy_loss(hidden, weight, target, bias, chunk=4)
    cast.backward()
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(cast, right, rtol=2e-2, atol=0)


class Largest(TorchDispatchMode):
    """Watch the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, torch.Tensor) and t.device.type == "cpu":
                self.size = max(self.size, t.untyped_storage().nbytes() // t.element_size())
        return out


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_logits_are_never_whole(reduction):
    """What ``chunk`` changes: the largest tensor is a chunk of logits, or the weight."""
    hidden, weight = torch.randn(64, 4, requires_grad=True), torch.randn(50, 4, requires_grad=True)
    target, sizes = torch.randint(0, 50, (64,)), []
    for chunk in (8, 64):
        with Largest() as watch:
            L.linear_cross_entropy_loss(
                hidden, weight, target, chunk=chunk, reduction=reduction
            ).sum().backward()
        sizes.append(watch.size)
    assert sizes == [8 * 50, 64 * 50]


def test_head_shapes_are_refused():
    hidden, weight, target = torch.zeros(2, 3), torch.zeros(5, 4), torch.zeros(2).long()
    with pytest.raises(ValueError, match=r"weight of shape \(V, D\).*\(2, 3\) and \(5, 4\)"):
        L.linear_cross_entropy_loss(hidden, weight, target)
    weight = torch.zeros(5, 3)
    with pytest.raises(ValueError, match=r"bias must have shape \(5,\); got \(3,\)"):
        L.linear_cross_entropy_loss(hidden, weight, target, torch.zeros(3))
    with pytest.raises(ValueError, match=r"\[0, 5\).*got 5"):
        L.linear_cross_entropy_loss(hidden, weight, target + 5)
    with pytest.raises(ValueError, match="class indices must have shape"):
        L.linear_cross_entropy_loss(hidden.unsqueeze(0), weight, target)


def frames(count=4, batch=2, classes=3):
    return torch.randn(count, batch, classes).log_softmax(2).requires_grad_()


def test_targets_longer_than_the_input():
    """Refused with the sample's name; or, if asked for, they cost 0 and get no gradient."""
    log_probs = frames()
    targets, lengths = torch.tensor([[1, 2, 1], [1, 1, 1]]), torch.tensor([3, 3])
    with pytest.raises(ValueError, match=r"sample 1 has 4 frames for 3 symbols and 2 repeats"):
        L.ctc_loss(log_probs, targets, (4, 4), lengths)
    with pytest.raises(ValueError, match=r"sample 0 has 2 frames"):
        L.CTCLoss()(log_probs, targets, [2, 4], lengths)
    each = L.CTCLoss(zero_infinity=True, reduction="none")(log_probs, targets, (4, 4), lengths)
    each.sum().backward()
    assert each[1].item() == 0 < each[0].item()
    assert not log_probs.grad[:, 1].any()
    assert bool(log_probs.grad.isfinite().all())


def test_padded_and_concatenated_targets_agree():
    log_probs = frames(6)
    padded, lengths = torch.tensor([[1, 2, 2], [2, 0, 0]]), torch.tensor([3, 1])
    joined = torch.tensor([1, 2, 2, 2])
    here, there = (L.ctc_loss(log_probs, t, (6, 5), lengths) for t in (padded, joined))
    torch.testing.assert_close(here, there)
    single = L.ctc_loss(log_probs[:, 0], padded[0], torch.tensor(6), torch.tensor(3))
    assert single.isfinite()


def test_blank_is_the_class_that_is_left_out():
    log_probs = frames(3, 1)
    swapped = log_probs[..., [1, 0, 2]]
    here = L.CTCLoss(blank=0)(log_probs, torch.tensor([[1]]), [3], [1])
    there = L.CTCLoss(blank=1)(swapped, torch.tensor([[0]]), [3], [1])
    torch.testing.assert_close(here, there)
    assert not torch.allclose(here, L.CTCLoss(blank=2)(log_probs, torch.tensor([[1]]), [3], [1]))


@pytest.mark.parametrize(
    ("targets", "inputs", "lengths", "message"),
    [
        ([[1, 0], [1, 2]], [4, 4], [2, 2], r"never be the blank, 0; got 0"),
        ([[1, 3], [1, 2]], [4, 4], [2, 2], r"\[0, 3\).*got 3"),
        ([[1, 2], [1, 2]], [5, 4], [2, 2], r"input_lengths must lie in \[0, 4\].*5"),
        ([[1, 2], [1, 2]], [4, 4], [3, 2], r"target_lengths must lie in \[0, 2\].*3"),
        ([[1, 2], [1, 2]], [4], [2, 2], r"must have shape \(2,\)"),
    ],
)
def test_ctc_refuses(targets, inputs, lengths, message):
    with pytest.raises(ValueError, match=message):
        L.ctc_loss(frames(), torch.tensor(targets), inputs, lengths)


def test_padding_may_hold_anything():
    targets = torch.tensor([[1, -1], [1, 2]])
    assert L.ctc_loss(frames(), targets, [4, 4], [1, 2]).isfinite()
