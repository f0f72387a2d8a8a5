"""Accumulated steps are those of the large batch, also where parts weigh differently."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from brickyard.clip import clip_by_global_norm
from brickyard.errors import RecipeError
from brickyard.losses import CrossEntropyLoss, FocalLoss, NLLLoss
from brickyard.train import Recipe, resolve
from brickyard.train.data import Split, TensorBatches
from brickyard.train.evaluate import Evaluator
from brickyard.train.loop import Loop, Parts
from brickyard.train.setup import build_setup
from brickyard.train.tasks import Classification
from brickyard.train.tasks.base import Task
from brickyard.train.weighing import together, weigh_as

WEIGHTS = torch.tensor([0.2, 1.0, 7.0])


def _data(ignored=False):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(90, 6, generator=g, dtype=torch.float64)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    if ignored:
        y[torch.rand(90, generator=g) < 0.4] = -100
    return Split(x, y)


def _train(loss, size, accumulate, data, task=None, **changes):
    """Train 8 steps of 32 samples; the last one of each epoch has 26."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3), nn.LogSoftmax(1)).double()
    task = task or Classification(3)
    weigh_as(loss, task)
    changes.setdefault("optimizer", torch.optim.AdamW(model.parameters(), lr=1e-2))
    batches = TensorBatches(data, size, shuffle=True, seed=5)
    parts = Parts(model=model, loss=loss, train=batches, total=8, accumulate=accumulate, task=task,
                  log_every=1, **changes)  # fmt: skip
    losses = []

    class Ear:
        def logged(self, loop, values):
            losses.append(values["loss"])

        def boundary(self, loop):
            pass

    Loop(parts, [Ear()]).run()
    return model, losses


LOSSES = {
    "mean": (lambda: CrossEntropyLoss(), False),
    "class weights": (lambda: CrossEntropyLoss(weight=WEIGHTS.double()), False),
    "class weights, smoothed": (
        lambda: CrossEntropyLoss(weight=WEIGHTS.double(), label_smoothing=0.1), False),
    "targets that do not count": (lambda: CrossEntropyLoss(), True),
    "both": (lambda: CrossEntropyLoss(weight=WEIGHTS.double()), True),
    "likelihood": (lambda: NLLLoss(weight=WEIGHTS.double()), True),
    "focal": (lambda: FocalLoss(alpha=WEIGHTS.double()), True),
    "torch's": (lambda: nn.CrossEntropyLoss(weight=WEIGHTS.double()), True),
    "sum": (lambda: CrossEntropyLoss(reduction="sum", weight=WEIGHTS.double()), False),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("clip", [None, 0.1])
def test_21_accumulated_steps_are_those_of_the_large_batch(name, clip):
    """Parts of 5 make windows of 7: the last has fewer parts, and its last part fewer samples."""
    make, ignored = LOSSES[name]
    data = _data(ignored)
    clipping = None if clip is None else (lambda p: clip_by_global_norm(p, clip))
    whole, losses = _train(make(), 35, 1, data, clip=clipping)
    parts, sums = _train(make(), 5, 7, data, clip=clipping)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-9)
    assert sums == pytest.approx(losses, rel=1e-6)


def test_21_decay_and_clipping_happen_once_a_step():
    calls = []

    def clip(params):
        calls.append(1)
        return clip_by_global_norm(params, 0.1)

    _train(CrossEntropyLoss(), 5, 7, _data(), clip=clip)
    assert len(calls) == 8


def test_21_penalties_count_once_a_step():
    def penalty(model):
        return 0.1 * sum(p.square().sum() for p in model.parameters())

    whole, _ = _train(CrossEntropyLoss(), 35, 1, _data(), penalties=[penalty])
    parts, _ = _train(CrossEntropyLoss(), 5, 7, _data(), penalties=[penalty])
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-9)


def test_21_unequal_numbers_of_tokens():
    """Batches with the same number of sequences and different numbers of tokens."""

    class Tokens(Task):
        def weigh(self, y):
            return float((y >= 0).sum())

        def loss(self, criterion, output, x, y):
            kept = y >= 0
            return F.cross_entropy(output[kept], y[kept])

    data = _data(ignored=True)
    whole, losses = _train(CrossEntropyLoss(), 35, 1, data, Tokens())
    parts, sums = _train(CrossEntropyLoss(), 5, 7, data, Tokens())
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-9)
    assert sums == pytest.approx(losses, rel=1e-6)


def test_mixed_labels_weigh_as_samples():
    task = Classification(3)
    weigh_as(CrossEntropyLoss(weight=WEIGHTS), task)
    assert task.weigh(torch.tensor([0, 2, 2])) == pytest.approx(14.2)
    assert task.weigh(torch.full((3, 3), 1 / 3)) == 3


def test_evaluation_weighs_batches_as_training_does():
    """The loss over a split is that of the split as one batch, class weights included."""
    data, loss, task = _data(), CrossEntropyLoss(weight=WEIGHTS.double()), Classification(3)
    torch.manual_seed(0)
    model = nn.Linear(6, 3).double()
    weigh_as(loss, task)
    found = Evaluator(TensorBatches(data, 7, shuffle=False, seed=0), loss, task).run(model)
    with torch.no_grad():
        assert found["loss"] == pytest.approx(float(loss(model(data.x), data.y)), rel=1e-6)


def test_recipes_weigh_and_tell_what_cannot_be_accumulated():
    base = {"data": "digits", "model": "mlp", "metrics": ["accuracy"], "budget": 2, "device": "cpu",
            "accumulate": 2}  # fmt: skip
    weighted = {"name": "cross_entropy", "weight": [2.0] + [1.0] * 9}
    setup = build_setup(resolve({**base, "loss": weighted}))
    assert setup.task.weigh(torch.tensor([0, 1])) == 3.0
    assert not setup.findings
    joint = Recipe.model_validate({**base, "loss": "nt_xent"})
    assert [one["check"] for one in together(joint)] == ["accumulated_joint_loss"]
    assert not together(joint.model_copy(update={"accumulate": 1}))


def test_a_batch_larger_than_the_data_is_told():
    base = {"data": "digits", "model": "mlp", "loss": "cross_entropy", "budget": 2, "device": "cpu"}
    (found,) = build_setup(resolve({**base, "batch_size": 1439})).findings
    assert found["check"] == "batch_of_everything"
    assert found["evidence"] == "A batch of 1439 is more than the 1438 training samples."
    assert not build_setup(resolve({**base, "batch_size": 1438})).findings
    with pytest.raises(RecipeError, match=r"threads.*less than or equal to 1024"):
        resolve({**base, "threads": 1025})
