"""Metrics against scikit-learn, whatever the batches, and where torchmetrics' own go wrong."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from brickyard.catalog import get, shelf
from brickyard.train.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    f1,
    mean_absolute_error,
    mean_squared_error,
    r2,
    root_mean_squared_error,
)

CASES = [(classes, seed) for classes in (2, 3, 7) for seed in (0, 1)]


def classified(classes: int, seed: int, n: int = 90):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)).round(1) + 1.5 * np.eye(classes)[target]
    return torch.tensor(logits), torch.tensor(target)


def feed(metric, preds, target, cuts=(10, 11, 60)):
    for p, t in zip(preds.tensor_split(cuts), target.tensor_split(cuts), strict=True):
        metric.update(p, t)
    return float(metric.compute())


def softmax(logits):
    return torch.softmax(logits, 1).numpy()


@pytest.mark.parametrize(("classes", "seed"), CASES)
def test_class_scores_are_scikit_learns(classes, seed):
    logits, target = classified(classes, seed)
    y, guess = target.numpy(), logits.argmax(1).numpy()
    found = {
        "accuracy": feed(accuracy(classes), logits, target),
        "balanced": feed(balanced_accuracy(classes), logits, target),
        **{a: feed(f1(classes, a), logits, target) for a in ("macro", "weighted", "micro")},
    }
    expected = {
        "accuracy": sk.accuracy_score(y, guess),
        "balanced": sk.balanced_accuracy_score(y, guess),
        **{a: sk.f1_score(y, guess, average=a) for a in ("macro", "weighted", "micro")},
    }
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("classes", "seed"), CASES)
def test_area_is_scikit_learns_with_ties(classes, seed):
    logits, target = classified(classes, seed)
    if classes == 2:
        score = (logits[:, 1] - logits[:, 0]).numpy()
        expected = sk.roc_auc_score(target.numpy(), score)
    else:
        expected = sk.roc_auc_score(target.numpy(), softmax(logits), multi_class="ovr")
    assert feed(auroc(classes), logits, target) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_is_scikit_learns(k):
    logits, target = classified(5, 3)
    logits = logits + torch.linspace(0, 1e-6, logits.numel()).view_as(logits)  # no ties
    expected = sk.top_k_accuracy_score(target.numpy(), logits.numpy(), k=k, labels=range(5))
    assert feed(accuracy(5, top_k=k), logits, target) == pytest.approx(expected)


@pytest.mark.parametrize("make", [accuracy, balanced_accuracy, auroc, f1])
def test_one_logit_is_the_pair_of_zero_and_it(make):
    logits, target = classified(2, 4)
    margin = logits[:, 1] - logits[:, 0]
    pair = torch.stack([torch.zeros_like(margin), margin], 1)
    expected = feed(make(2), pair, target)
    assert feed(make(1), margin, target) == expected
    assert feed(make(1), margin[:, None], target[:, None].float()) == expected


def test_binary_f1_is_of_class_one():
    logits, target = classified(2, 5)
    expected = sk.f1_score(target.numpy(), logits.argmax(1).numpy(), average="binary")
    assert feed(f1(2, "binary"), logits, target) == pytest.approx(expected)


def test_logits_within_zero_and_one_are_not_taken_for_probabilities():
    # torchmetrics skips the sigmoid for a batch whose scores all lie in [0, 1].
    assert feed(accuracy(1), torch.tensor([0.2, 0.3, 0.4]), torch.tensor([1, 1, 1]), ()) == 1.0


def test_a_class_without_targets_leaves_the_averages():
    logits = torch.eye(3)[torch.tensor([0, 0, 1, 2])]
    target = torch.tensor([0, 0, 1, 1])
    assert feed(balanced_accuracy(3), logits, target, ()) == pytest.approx(0.75)
    expected = sk.f1_score(target.numpy(), logits.argmax(1).numpy(), average="macro")
    assert feed(f1(3), logits, target, ()) == pytest.approx(expected)
    areas = [sk.roc_auc_score(target.numpy() == c, softmax(logits)[:, c]) for c in (0, 1)]
    assert feed(auroc(3), logits, target, ()) == pytest.approx(np.mean(areas))


def test_area_of_one_class_alone_is_unknown():
    assert np.isnan(feed(auroc(2), torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), ()))


def test_area_of_nan_scores_is_unknown():
    assert np.isnan(feed(auroc(1), torch.tensor([0.1, np.nan, 0.3]), torch.tensor([0, 1, 1]), ()))


ERRORS = {
    mean_absolute_error: sk.mean_absolute_error,
    mean_squared_error: sk.mean_squared_error,
    root_mean_squared_error: lambda y, p: np.sqrt(sk.mean_squared_error(y, p)),
    r2: sk.r2_score,
}


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("make", ERRORS)
def test_errors_are_scikit_learns(make, outputs):
    rng = np.random.default_rng(outputs)
    y = rng.normal(3, 2, (70, outputs))
    p = y + rng.normal(0, 1, y.shape) * np.arange(1, outputs + 1)
    found = feed(make(outputs), torch.tensor(p), torch.tensor(y))
    assert found == pytest.approx(ERRORS[make](y, p), rel=1e-12)
    if outputs == 1:
        flat = feed(make(1), torch.tensor(p[:, 0]), torch.tensor(y[:, 0]))
        assert flat == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize(("centre", "spread"), [(1e5, 1.0), (0.0, 1e-4)])
def test_r2_keeps_its_digits(centre, spread):
    # torchmetrics' R2Score sums squares in float32 and calls any spread below 1e-4 none.
    rng = np.random.default_rng(0)
    y = torch.tensor(centre + spread * rng.normal(size=500), dtype=torch.float32)
    p = y + spread * torch.tensor(rng.normal(size=500) * 0.5, dtype=torch.float32)
    expected = sk.r2_score(y.double().numpy(), p.double().numpy())
    assert feed(r2(), p, y) == pytest.approx(expected, abs=1e-5)


def test_r2_of_equal_targets_is_unknown():
    assert np.isnan(feed(r2(), torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.1]), ()))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 89), max_size=4).map(sorted), st.sampled_from(range(4)))
def test_the_cut_into_batches_does_not_matter(cuts, which):
    make = [accuracy, balanced_accuracy, f1, auroc][which]
    logits, target = classified(4, 9)
    whole = feed(make(4), logits, target, ())
    metric = make(4)
    assert feed(metric, logits, target, tuple(cuts) or (45,)) == pytest.approx(whole, abs=1e-12)
    metric.reset()
    assert feed(metric, logits[:30], target[:30], ()) == pytest.approx(
        feed(make(4), logits[:30], target[:30], ())
    )


@pytest.mark.parametrize(
    ("make", "preds", "target", "says"),
    [
        (lambda: accuracy(3), torch.zeros(4, 2), torch.zeros(4), r"logits \(N, 3\).*\(4, 2\)"),
        (lambda: accuracy(3), torch.zeros(4, 3), torch.zeros(4, 1), r"indices \(N,\)"),
        (lambda: accuracy(3), torch.zeros(4, 3), torch.full((4,), 3), "0 to 2; got 3 to 3"),
        (lambda: accuracy(3), torch.zeros(4, 3), torch.full((4,), 0.5), "not probabilities"),
        (lambda: auroc(1), torch.zeros(4), torch.full((4,), -1), "0 to 1; got -1"),
        (mean_squared_error, torch.zeros(4, 1), torch.zeros(4), "same shape"),
        (lambda: r2(2), torch.zeros(4), torch.zeros(4), r"takes \(N, 2\)"),
    ],
)
def test_wrong_input_is_an_error(make, preds, target, says):
    with pytest.raises(ValueError, match=says):
        make().update(preds, target)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: accuracy(3, top_k=3), "below the number of classes"),
        (lambda: accuracy(0), "1 or more"),
        (lambda: f1(3, "binary"), "two classes"),
        (lambda: f1(3, "micros"), "one of 'macro'"),  # pyright: ignore
    ],
)
def test_wrong_options_are_errors(make, says):
    with pytest.raises(ValueError, match=says):
        make()


#: Of labels and numbers; those of other tasks are tried with them (test_*_tasks.py, test_gan.py).
PLAIN = [
    card for card in shelf("metrics") if card.facts["task"] in ("classification", "regression")
]


@pytest.mark.parametrize("card", PLAIN, ids=lambda card: card.key)
def test_every_card_makes_a_metric(card):
    if hasattr(card.load(), "update_on"):
        pytest.skip("it needs the model; tests/regularize has its tests")
    metric = card.load()(outputs=4)
    preds, target = torch.randn(20, 4), torch.randint(4, (20,))
    if card.facts["task"] == "regression":
        target = torch.randn(20, 4)
    assert metric.higher_is_better == (card.facts["better"] == "higher")
    with pytest.warns(UserWarning, match="before the"), pytest.raises(RuntimeError, match="first"):
        metric.compute()
    with torch.inference_mode():
        metric.update(preds.bfloat16() if target.dtype == torch.long else preds, target)
    value = metric.compute()
    assert value.ndim == 0
    for copied in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert copied.compute() == value
    assert "outputs" not in {option.name for option in card.options}


def test_all_metrics_are_on_the_shelf():
    keys = {card.key for card in shelf("metrics")}
    assert keys >= {"accuracy", "balanced_accuracy", "f1", "auroc", "mean_absolute_error",
                    "mean_squared_error", "root_mean_squared_error", "r2"}  # fmt: skip
    assert get("rmse").key == "root_mean_squared_error"
    options = {option.name: option.type for option in get("accuracy").options}
    assert options == {"top_k": "int"}


def test_reading_the_cards_does_not_import_torchmetrics():
    code = "import sys, brickyard.train.metrics; print('torchmetrics' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
