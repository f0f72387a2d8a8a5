"""What every loss promises; driven by the shelf.

A new loss is tested by standing on the shelf. It needs a case with an oracle in ``loss_cases.py``,
and a line there for each of its options.
"""

import copy
import inspect
import re

import numpy as np
import pytest
import torch
from loss_cases import ALSO_ELSEWHERE, CASES, COMMON, ELSEWHERE, OTHER, Case

import brickyard.losses as losses
from brickyard.catalog import build, shelf

OUTPUTS = {"logits", "values", "log-probabilities", "probabilities", "embeddings", "scores",
           "boxes", "other"}  # fmt: skip
TARGETS = {"class indices", "class indices or probabilities", "probabilities", "binary", "values",
           "labels", "boxes", "masks", "tokens", "pairs", "none", "other"}  # fmt: skip
CARDS = [card for card in shelf("loss") if card.source.startswith("brickyard")]
KEYS = [card.key for card in CARDS]
NAMES = sorted(CASES)
#: Overlap of masks: weights enter the counts, tests/losses/test_segmentation.py.
COUNTED = ("dice", "iou", "tversky", "focal_tversky")
#: Losses whose unreduced values are independent of each other, sample by sample.
WEIGHTED = [
    key for key in NAMES
    if "/" not in key and key not in COUNTED and "sample_weight" in inspect.signature(
        build("loss", key, **CASES[key].options).forward
    ).parameters
]  # fmt: skip


def make(name: str, dtype=torch.float64, **options) -> tuple[torch.nn.Module, tuple, Case]:
    """Return the loss, its arguments and the case."""
    case = CASES[name]
    torch.manual_seed(0)
    args = tuple(convert(a, dtype) for a in case.make())
    loss = build("loss", name.split("/")[0], **{**case.options, **options})
    return loss.to(dtype), args, case


def convert(value, dtype):
    if isinstance(value, dict):
        return {k: convert(v, dtype) for k, v in value.items()}
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value


def plain(value):
    """Return arguments as NumPy has them."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def attach(args, case, dtype=None):
    """Return the arguments with the differentiable ones as fresh leaves."""
    new = list(args)
    for i in case.differentiable:
        new[i] = new[i].detach().clone().requires_grad_()
    return tuple(new), [new[i] for i in case.differentiable]


def expected(name):
    _, args, case = make(name)
    return np.asarray(case.oracle(*map(plain, args))), args, case


def test_every_loss_has_a_case():
    missing = [k for k in KEYS if k not in CASES and f"{k}/generator" not in CASES]
    assert not missing, f"write an oracle for {missing} into loss_cases.py"


@pytest.mark.parametrize("card", CARDS, ids=KEYS)
def test_the_card_says_what_goes_in(card):
    assert card.facts["output"] in OUTPUTS
    assert card.facts["target"] in TARGETS
    assert card.target.startswith("brickyard.losses:")
    assert card.name in losses.__all__


@pytest.mark.parametrize("card", CARDS, ids=KEYS)
def test_a_function_stands_behind_the_module(card):
    name = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3_\2\4", card.name).lower()
    name = {"kldivergence": "kl_divergence"}.get(name, name)
    squeezed = {n.replace("_", "") for n in losses.__all__ if n[0].islower()}
    alone = card.key.startswith("gan_") or card.key in ("wasserstein", "perceptual")
    assert alone or name.replace("_", "") in squeezed


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_the_formula(name):
    wanted, args, case = expected(name)
    loss, _, _ = make(name, reduction="none")
    found = case.call(loss, *args).detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_is_as_good_as_the_data(name):
    loss, args, case = make(name, torch.float32, reduction="none")
    found = case.call(loss, *args)
    assert found.dtype == torch.float32
    if not case.compare_single:
        return
    exact = [plain(convert(a, torch.float64)) for a in args]
    wanted = np.asarray(case.oracle(*exact))
    scale = np.maximum(np.abs(wanted), 0.1)  # below, the data's own rounding decides
    if case.terms is not None:
        scale = case.terms(*exact)
    assert (np.abs(found.detach().numpy() - wanted) / scale).max() < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_reductions(name):
    wanted, args, case = expected(name)
    raw = [plain(a) for a in args]
    for reduction in ("mean", "sum"):
        loss, _, _ = make(name, reduction=reduction)
        value = case.call(loss, *args)
        assert value.shape == ()
        right = case.mean(wanted, *raw) if reduction == "mean" else wanted.sum()
        np.testing.assert_allclose(value.item(), right, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_function(name):
    for reduction in ("mean", "none"):
        loss, args, case = make(name, reduction=reduction)
        if not case.differentiable:
            return  # differentiated in tests/losses, through the networks they are given
        args, leaves = attach(args, case)

        def function(*leaves, loss=loss, args=args, case=case):
            full = list(args)
            for i, leaf in zip(case.differentiable, leaves, strict=True):
                full[i] = leaf
            if case is CASES["ctc"]:  # torch's backward takes its input for a log-softmax
                full[0] = full[0].log_softmax(2)
            if case is CASES["kl_divergence"]:
                full[1] = full[1].softmax(1)
            return case.call(loss, *full)

        if name == "ciou":  # its trade-off is held constant: tests/losses/test_boxes.py
            return
        # fused and plain backward round differently, hence the tolerance between runs
        assert torch.autograd.gradcheck(function, leaves, nondet_tol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_retained_graph_gives_the_same_gradients_again(name):
    for reduction in ("mean", "none"):
        loss, args, case = make(name, reduction=reduction)
        if not case.differentiable:
            return
        args, leaves = attach(args, case)
        value = case.call(loss, *args)
        value = (value * torch.linspace(1, 2, value.numel()).view(value.shape).double()).sum()
        first = torch.autograd.grad(value, leaves, retain_graph=True)
        first = [g.clone() for g in first]
        if name != "ctc":  # torch has no second derivative of it
            again = torch.autograd.grad(value, leaves, retain_graph=True, create_graph=True)
            for a, b in zip(first, again, strict=True):
                torch.testing.assert_close(a, b.detach(), rtol=1e-9, atol=1e-12)
        for a, b in zip(first, torch.autograd.grad(value, leaves), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_single(name, dtype):
    if name in ("gradient_penalty", "r1_penalty", "td", "linear_cross_entropy"):
        pytest.skip("the network's own arithmetic stays in half precision")
    loss, args, case = make(name, dtype)
    loss = loss.float() if name != "perceptual" else loss
    if name == "perceptual":
        pytest.skip("the network's own arithmetic stays in half precision")
    args, leaves = attach(args, case)
    value = case.call(loss, *args)
    single = case.call(loss, *(convert(a, torch.float32) for a in args))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, single, rtol=1e-6, atol=1e-7)
    for leaf, grad in zip(leaves, torch.autograd.grad(value, leaves), strict=True):
        assert grad.dtype == leaf.dtype
        assert bool(grad.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_lower_the_precision(name):
    if name in ("gradient_penalty", "r1_penalty", "td", "linear_cross_entropy", "perceptual"):
        pytest.skip("the network's own arithmetic follows autocast")
    loss, args, case = make(name, torch.float32)
    wanted = case.call(loss, *args)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(case.call(loss, *args), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("key", "option"),
    [(card.key, o.name) for card in CARDS for o in card.options if o.name != "reduction"],
)
def test_every_option_changes_something(key, option):
    if option in ELSEWHERE or (key, option) in ALSO_ELSEWHERE:
        return
    value = OTHER.get((key, option), COMMON.get(option))
    assert value is not None or (key, option) in OTHER, f"give {key}.{option} a value in OTHER"
    names = [key] if key in CASES else [f"{key}/generator"]
    for name in names:
        loss, args, case = make(name)
        other, _, _ = make(name, **{option: value})
        before, after = case.call(loss, *args), case.call(other, *args)
        assert not torch.allclose(before, after, rtol=1e-6), f"{option}={value} changes nothing"


@pytest.mark.parametrize("key", WEIGHTED)
def test_sample_weights_weigh_samples(key):
    loss, args, case = make(key)
    each, _, _ = make(key, reduction="none")
    unreduced = case.call(each, *args)
    count = unreduced.shape[0]
    weight = torch.linspace(0.5, 3, count).double()
    spread = weight.reshape(-1, *[1] * (unreduced.dim() - 1)).expand(unreduced.shape)
    value = case.call(loss, *args, *weights_at(loss, args, weight))
    torch.testing.assert_close(value, (spread * unreduced).sum() / spread.sum())
    ones = case.call(loss, *args, *weights_at(loss, args, torch.ones(count)))
    torch.testing.assert_close(ones, case.call(loss, *args))
    torch.testing.assert_close(
        case.call(loss, *args, *weights_at(loss, args, spread.clone())), value
    )
    total, _, _ = make(key, reduction="sum")
    torch.testing.assert_close(
        case.call(total, *args, *weights_at(loss, args, weight)), (spread * unreduced).sum()
    )


def weights_at(loss, args, weight):
    """Return what follows the arguments so that ``weight`` lands on ``sample_weight``."""
    names = list(inspect.signature(loss.forward).parameters)
    return [None] * (names.index("sample_weight") - len(args)) + [weight]


@pytest.mark.parametrize("key", WEIGHTED)
def test_weights_of_zero_leave_nothing_to_learn(key):
    loss, args, case = make(key)
    args, leaves = attach(args, case)
    each, _, _ = make(key, reduction="none")
    weight = torch.zeros(case.call(each, *args).shape[0])
    value = case.call(loss, *args, *weights_at(loss, args, weight))
    assert value.item() == 0
    if leaves:
        assert all(not g.any() for g in torch.autograd.grad(value, leaves))


@pytest.mark.parametrize("key", WEIGHTED)
def test_bad_weights_are_refused(key):
    loss, args, case = make(key)
    each, _, _ = make(key, reduction="none")
    count = case.call(each, *args).shape[0]
    for bad in (torch.ones(count + 1), torch.ones(count, 1, 1, 1), -torch.ones(count)):
        with pytest.raises(ValueError, match="sample_weight must"):
            case.call(loss, *args, *weights_at(loss, args, bad))


@pytest.mark.parametrize("key", KEYS)
def test_unknown_modes_are_refused(key):
    name = key if key in CASES else f"{key}/generator"
    for option in ("reduction", "validate"):
        with pytest.raises(ValueError, match=f"{option} is one of"):
            make(name, **{option: "avg"})


@pytest.mark.parametrize("name", NAMES)
def test_full_validation_refuses_what_is_not_finite(name):
    if name in ("gradient_penalty", "r1_penalty", "td"):
        pytest.skip("in tests/losses, through the networks they are given")
    loss, args, case = make(name, validate="full")
    case.call(loss, *args)  # what is right passes
    bad = list(args)
    first = case.differentiable[0]
    bad[first] = bad[first].clone()
    bad[first].view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match=r"finite|must lie|must be"):
        case.call(loss, *bad)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_of_nothing_is_refused(name):
    if name in ("gradient_penalty", "td", "ctc", "r1_penalty"):
        pytest.skip("no such batch can be scored")
    loss, args, case = make(name)
    empty = tuple(a[:0] if isinstance(a, torch.Tensor) else a for a in args)
    if name == "linear_cross_entropy":
        empty = (args[0][:0], args[1], args[2][:0], args[3])
    with pytest.raises(ValueError, match=r"empty batch|batch of at least"):
        case.call(loss, *empty)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_after_argmax_are_refused(name):
    loss, args, case = make(name)
    if not case.differentiable:
        pytest.skip("takes a network")
    bad = list(args)
    bad[case.differentiable[0]] = bad[case.differentiable[0]].long()
    with pytest.raises(TypeError, match="must be floating point"):
        case.call(loss, *bad)


@pytest.mark.parametrize("name", NAMES)
def test_extreme_predictions_stay_finite(name):
    """Logits, scores and values of +-1e4, in fp32: values and gradients are finite."""
    for size in (1e4, -1e4, 0.0):
        loss, args, case = make(name, torch.float32)
        if not case.differentiable or name in ("nll", "ctc", "elbo", "policy_gradient"):
            return  # log-probabilities and log-variances are bounded
        big = list(args)
        sign = torch.where(torch.arange(big[0].numel()).view(big[0].shape) % 2 == 0, 1.0, -1.0)
        big[0] = size * sign
        if name == "ppo_clip":
            big[0] = big[0].clamp(-100, 100)
        big, leaves = attach(big, case)
        value = case.call(loss, *big)
        assert bool(value.isfinite()), size
        for grad in torch.autograd.grad(value, leaves):
            assert bool(grad.isfinite().all()), size


@pytest.mark.parametrize("name", NAMES)
def test_layout_does_not_matter(name):
    loss, args, case = make(name)
    strided = tuple(
        a.transpose(0, -1).contiguous().transpose(0, -1)
        if isinstance(a, torch.Tensor) and a.dim() > 1 else a
        for a in args
    )  # fmt: skip
    torch.testing.assert_close(case.call(loss, *strided), case.call(loss, *args))


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_left_alone(name):
    loss, args, case = make(name)
    before = copy.deepcopy(args)
    with_leaves, leaves = attach(args, case)
    value = case.call(loss, *with_leaves)
    if leaves:
        value.backward()
    for a, b in zip(with_leaves, before, strict=True):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_one_sample_agrees_with_the_batch(name):
    """Per-sample losses do not know of the other samples."""
    key = name.split("/")[0]
    if key not in WEIGHTED and key not in ("triplet", "focal"):
        pytest.skip("compares samples, or counts over the batch")
    if not CASES[name].differentiable:
        pytest.skip("takes a network")
    loss, args, case = make(name, reduction="none")
    whole = case.call(loss, *args)
    parts = [case.call(loss, *(a[i : i + 1] for a in args)) for i in range(len(args[0]))]
    torch.testing.assert_close(torch.cat(parts), whole)
