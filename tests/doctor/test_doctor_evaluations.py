"""Checks 17, 57, 59, 60: what evaluations are given, what they answer, what that says."""

import copy
import io

import pytest
import torch
from doctor_loops import data, epochs, fit, loader, mlp
from doctor_seen import HERE, judged, line, run, watched
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, TensorDataset

from brickyard.doctor.observe.record import LoaderSeen, ModuleSeen, Round, Seen


# -- 18 train-val-overlap ------------------------------------------------------------------------
def folds(leak, fresh_model):
    """Train on each of two parts and evaluate on the other, with loaders made anew each time."""
    x, y = data()
    parts = [TensorDataset(x[:128], y[:128]), TensorDataset(x[128:], y[128:])]
    model = mlp()
    for train, val in (parts, parts[::-1]):
        model = mlp() if fresh_model else model
        held = TensorDataset(*train[:64]) if leak else val
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(2):
            epochs(model.train(), DataLoader(train, 32, shuffle=True), 1, optimizer=optimizer)
            model.eval()
            with torch.no_grad():
                for a, b in DataLoader(held, 32):
                    F.cross_entropy(model(a), b)


def test_overlap_is_seen_with_loaders_made_anew_and_folds_are_none():
    found = watched("train-val-overlap", folds, True, True)
    assert found[0].evidence.startswith("64 of 64 evaluation samples (100.0%)")
    assert watched("train-val-overlap", folds, False, True) == []


# -- 17 val-shuffled-or-augmented ----------------------------------------------------------------
class Images(Dataset):
    def __init__(self, augmented, flat=False):
        self.x = torch.randn(48, 1, 4, 4, generator=torch.Generator().manual_seed(3))
        self.augmented, self.flat = augmented, flat

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        x = self.x[i] + (torch.randn(()) if self.augmented else 0.0)
        return (x.flatten() if self.flat else x), i % 4


def evaluated(val, train=None, count=3):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    train = train or DataLoader(Images(False), batch_size=8, shuffle=True)

    def evaluate(one):
        one.eval()
        with torch.no_grad():
            for x, y in val:
                F.cross_entropy(one(x), y)

    epochs(model, train, count, evaluate=evaluate)


@pytest.mark.parametrize("shuffle", [False, True])
def test_augmented_evaluation_data(shuffle):
    val = DataLoader(Images(True), batch_size=16, shuffle=shuffle)
    (said,) = watched("val-shuffled-or-augmented", evaluated, val)
    assert said.severity == "warning"
    assert said.evidence.startswith("8 of 8 samples of Images, compared by index,")
    assert line(said) == "for x, y in val:"
    (said,) = watched("val-shuffled-or-augmented", evaluated,
                      DataLoader(Images(True, flat=True), batch_size=16))  # fmt: skip
    assert said.severity == "info"  # noise may be the task


def sort_rows(samples):
    x, y = torch.utils.data.default_collate(samples)
    order = x.flatten(1).sum(1).argsort()
    return x[order], y[order]


def test_evaluation_data_that_stay():
    check = "val-shuffled-or-augmented"
    plain = Images(False)
    assert watched(check, evaluated, DataLoader(plain, batch_size=16, shuffle=True)) == []
    assert watched(check, evaluated, DataLoader(plain, batch_size=16), DataLoader(
        Images(True), batch_size=8, shuffle=True)) == []  # fmt: skip
    sorting = DataLoader(plain, batch_size=16, shuffle=True, collate_fn=sort_rows)
    assert watched(check, evaluated, sorting) == []
    assert watched(check, evaluated, DataLoader(Images(True), batch_size=16), count=1) == []


def test_workers_give_indices_in_order():
    val = DataLoader(Images(True), batch_size=8, shuffle=True, num_workers=2)
    (said,) = watched("val-shuffled-or-augmented", evaluated, val, count=2)
    assert said.evidence.startswith("8 of 8 samples")
    val = DataLoader(Images(False), batch_size=8, shuffle=True, num_workers=2)
    assert watched("val-shuffled-or-augmented", evaluated, val, count=2) == []


# -- 57 train-eval-gap ---------------------------------------------------------------------------
def normalized(momentum, norm=nn.BatchNorm1d):
    x, y = data()
    middle = norm(16, momentum=momentum) if momentum is not None else norm(16)
    model = nn.Sequential(nn.Linear(8, 16), middle, nn.ReLU(), nn.Linear(16, 4))
    epochs(model, loader(4 * x + 20, y), 6, lr=0.2)


def test_statistics_that_fit_no_batch():
    (said,) = watched("train-eval-gap", normalized, 2e-3)
    assert said.severity == "error"
    assert "in training mode and" in said.evidence
    assert said.where == "model"
    assert watched("train-eval-gap", normalized, 0.1) == []
    assert watched("train-eval-gap", normalized, None, nn.LayerNorm) == []


def first_evaluation(spectral):
    model = mlp(8, 64, 4)
    if spectral:
        model[0] = nn.utils.spectral_norm(model[0])
        model[0].weight_u.mul_(1e-6)  # what a state never estimated may be
        model[0].weight_v.mul_(1e-6)
    model.eval()
    model(data()[0])
    model.train()
    fit(model, F.cross_entropy)


def test_an_evaluation_before_its_state_is_estimated():
    (said,) = watched("train-eval-gap", first_evaluation, True)
    assert said.severity == "warning"
    assert "Before the first step the outputs of model had a mean size of" in said.evidence
    assert watched("train-eval-gap", first_evaluation, False) == []


# -- 59 collapse ---------------------------------------------------------------------------------
def classified(frozen, share=0.25):
    x, y = data()
    if share > 0.25:
        y = torch.where(torch.arange(len(y)) < share * len(y), 0, y)
    model = mlp()
    if frozen:
        with torch.no_grad():
            model[2].bias[0] = 50.0
    val = loader(x, y, shuffle=False)

    def evaluate(one):
        with torch.no_grad():
            for a, b in val:
                F.cross_entropy(one(a), b)

    epochs(model, loader(x[:128], y[:128]), 4, lr=1e-3, evaluate=evaluate)


def test_one_class_for_all():
    (said,) = watched("collapse", classified, True)
    assert said.evidence == (
        "In the last 2 evaluations (up to step 16) all 256 samples were answered with class 0, "
        "while there are 4 different labels, the most frequent one with 29%."
    )
    assert line(said) == "F.cross_entropy(one(a), b)"
    assert watched("collapse", classified, False) == []
    assert watched("collapse", classified, True, 0.95) == []  # it may well be right


def regressed(spread, once=False):
    x, _ = data()
    y = x[:, :1] * 3 + 7
    model = nn.Linear(8, 1)
    with torch.no_grad():
        model.weight.mul_(spread).mul_(0.0 if spread == 0 else 1.0)
        model.bias.fill_(7.0)
    made = torch.optim.SGD(model.parameters(), 1e-9)
    for i in range(24):
        made.zero_grad()
        F.mse_loss(model(x), y).backward()
        made.step()
        if i % 8 == 7 and not (once and i > 8):
            model.eval()
            with torch.no_grad():
                F.mse_loss(model(x), y)
            model.train()


def test_outputs_without_spread():
    (said,) = watched("collapse", regressed, 1e-3)
    assert "the outputs for 256 samples deviated by" in said.evidence
    assert said.evidence.endswith("the targets by 2.79.")
    assert watched("collapse", regressed, 1.0) == []
    assert watched("collapse", regressed, 1e-3, once=True) == []  # one evaluation may be odd


# -- 60 generalisation ---------------------------------------------------------------------------
def test_a_minimum_long_past_is_information():
    falling = [2.0 * 0.98**i for i in range(120)]
    up = [1.0, 0.8, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1]
    (said,) = judged("generalisation", run(falling, evaluations=up))
    assert said.severity == "info"
    assert said.evidence.startswith("The evaluation loss was lowest after step 30 (0.6) and is 1.1 "
                                    "after 5 more evaluations")  # fmt: skip
    assert "overfits" in said.why
    for evaluations, losses in (
        (up[:6], falling),  # not long enough
        ([1.0 - 0.05 * i for i in range(8)], falling),  # still falling
        (up, [2.0] * 120),  # training does not fall either: a plateau
    ):
        assert judged("generalisation", run(losses, evaluations=evaluations)) == []


def leaking(values=0.4, **loss):
    seen = run([1.0 + 0.05 * (-1) ** i for i in range(120)], every=20, evaluations=[values] * 6,
               epoch=6, **loss)  # fmt: skip
    train = LoaderSeen(0, HERE, {"batch_size": 32, "sampler": "RandomSampler", "compared": 8},
                       training=True)  # fmt: skip
    seen.loaders = [train, LoaderSeen(1, HERE)]
    return seen


def test_evaluations_better_than_training_are_information():
    (said,) = judged("generalisation", leaking())
    assert said.severity == "info"
    assert "has a loss of 0.4, the 20 training steps that follow one of 1" in said.evidence
    assert judged("generalisation", leaking(0.97)) == []  # within 5 %
    assert judged("generalisation", leaking(options=["label_smoothing"])) == []
    for facts in ({"p": 0.1}, {"tracks": True, "momentum": 0.1}):
        seen = leaking()
        seen.modules = {0: ModuleSeen("model.1", "Dropout", "model", facts)}
        assert judged("generalisation", seen) == []
    for key, value in (("changing", 3), ("sampler", "WeightedRandomSampler"), ("compared", 0)):
        seen = leaking()
        seen.loaders[0].facts[key] = value
        assert judged("generalisation", seen) == []


def answered(right, frequent=0.25, rows=400):
    labels = torch.tensor([frequent, *[(1 - frequent) / 3] * 3]) * rows
    counts = torch.stack([labels, labels]).round().long()
    return Round(10, 1, rows=rows, total=400.0 * rows, right=int(right * rows), counts=counts)


def chance(*rounds, train=0.99, count=512):
    return judged("generalisation", run([0.5] * 100, evaluations=rounds,
                                        right=[(int(train * count), count)]))  # fmt: skip


def test_chance_behind_a_training_that_is_right():
    (said,) = chance(answered(0.24), answered(0.26))
    assert said.severity == "warning"
    assert "In training 99% of 512 samples of the last looks are answered right" in said.evidence
    assert "26.0% of 400 in the last one, where the most frequent label has 25.0%" in said.evidence
    for rounds in (
        [answered(0.24), answered(0.35)],  # it learns
        [answered(0.24)],  # a single evaluation
        [answered(0.24, rows=80)] * 2,  # too few samples
        [answered(0.7, frequent=0.7)] * 2,  # chance is nearly skill
    ):
        assert chance(*rounds) == []
    assert chance(answered(0.24), answered(0.26), train=0.6) == []


def paired(shuffled):
    x, y = data(rows=512)
    labels = y.roll(7) if shuffled else y
    val = loader(x[256:], labels[256:], batch_size=256, shuffle=False)

    def evaluate(model):
        model.eval()
        with torch.no_grad():
            for a, b in val:
                F.cross_entropy(model(a), b)

    epochs(mlp(8, 64), loader(x[:256], y[:256]), 12, lr=1.0, evaluate=evaluate)


def test_labels_of_other_samples():
    said = watched("generalisation", paired, True)
    assert [f.severity for f in said] == ["warning"]
    assert "shuffled" in said[0].why
    assert line(said[0]) == "F.cross_entropy(model(a), b)"
    assert [f for f in watched("generalisation", paired, False) if f.severity != "info"] == []


KEPT = []  # as a variable of a script lives to its end


def averaged(use, average=AveragedModel):
    x, y = data()
    model = mlp()
    held = average(model)
    KEPT[:] = [held]

    def update(_):
        held.update_parameters(model)

    fit(model, F.cross_entropy, calls=(None, update), xy=(x, y))
    model.eval()
    with torch.no_grad():
        if use == "call":
            held(x)
        elif use == "inner":
            held.module(x)
        elif use == "restore":
            for p, kept in zip(model.parameters(), held.module.parameters(), strict=True):
                p.copy_(kept)
        elif use == "save":
            held.state_dict()


class Own:
    """Average by hand, as scripts do."""

    def __init__(self, model, how="lerp"):
        self.module, self.how = copy.deepcopy(model).requires_grad_(False), how

    @torch.no_grad()
    def update_parameters(self, model):
        kept, new = list(self.module.parameters()), list(model.parameters())
        if self.how == "foreach":
            torch._foreach_lerp_(kept, new, 0.1)
        for k, n in zip(kept, new, strict=True):
            if self.how == "lerp":
                k.lerp_(n, 0.1)
            elif self.how == "add":
                k.mul_(0.9).add_(n.detach(), alpha=0.1)

    def __call__(self, x):
        return self.module(x)

    def state_dict(self):
        torch.save(self.module.state_dict(), io.BytesIO())


@pytest.mark.parametrize("how", ["lerp", "add", "foreach"])
def test_averages_by_hand(how):
    def make(model):
        return Own(model, how)

    (said,) = watched("generalisation", averaged, "", make)
    assert said.severity == "info"
    assert said.evidence.startswith("An average of 4 parameters was updated in training at ")
    assert any(word in line(said) for word in ("lerp_", "add_"))
    for use in ("call", "save", "restore"):
        assert watched("generalisation", averaged, use, make) == [], use


def test_targets_are_used_in_training():
    """A network that follows another one and gives it its targets is no average for evaluation."""
    x, _ = data()
    model = mlp()
    held = Own(model)

    def loss(out, y):
        with torch.no_grad():
            target = held(x[:32])
        return F.mse_loss(out, target)

    def follow():
        fit(model, loss, calls=(None, lambda _: held.update_parameters(model)))

    assert watched("generalisation", follow) == []


def test_averages_that_nobody_uses():
    (said,) = watched("generalisation", averaged, "")
    assert said.severity == "info"
    assert said.evidence.startswith("AveragedModel was updated in training 8 times and never")
    for use in ("call", "inner", "save"):
        assert watched("generalisation", averaged, use) == [], use


def test_a_step_belongs_to_the_epoch_that_it_ended():
    """The evaluation after an epoch, and what it leaves behind, are of that epoch."""
    seen = Seen()
    assert seen.epoch_of(0) == 0
    seen.epoch_steps = [0, 44, 88]
    assert [seen.epoch_of(step) for step in (0, 1, 44, 45, 88, 89)] == [1, 1, 1, 2, 2, 3]
