"""Checks 6, 8, 9, 30, 32, 36, 37, 40: of models and their losses."""

import math
import types

import pytest
import torch
from doctor_loops import data, fit, mlp
from doctor_seen import HERE, judged, line, watched
from torch import nn
from torch.nn import functional as F

from brickyard.doctor import preflight, watch
from brickyard.doctor.observe.record import LossSeen, Seen


def ce(out, y):
    return F.cross_entropy(out, y)


# -- 6 tie-broken --------------------------------------------------------------------------------
class Tied(nn.Module):
    def __init__(self, tie=True, config=None):
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.head = nn.Linear(4, 8, bias=False)
        if tie:
            self.head.weight = self.embed.weight
        if config is not None:
            self.config = types.SimpleNamespace(tie_word_embeddings=config)

    def get_input_embeddings(self):
        return self.embed

    def get_output_embeddings(self):
        return self.head

    def forward(self, x):
        return self.head(self.embed(x).mean(1))


def tied(break_tie=None, make=Tied, before=None):
    """Train, break the tie without a word to modules, train on."""
    model = make()
    if before:
        before(model)
    x = torch.randint(8, (256, 3))
    fit(model, ce, xy=(x, x[:, 0]))
    if break_tie:
        break_tie(model)
    fit(model, ce, xy=(x, x[:, 0]))


def load(model):
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)


def by_data(model):
    model.head.weight = nn.Parameter(model.head.weight.detach())  # one memory, two parameters


def by_hand(model):
    model.head._parameters["weight"] = nn.Parameter(model.head.weight.detach().clone())


def test_ties_that_break_on_the_way():
    (said,) = watched("tie-broken", tied, load)
    assert said.severity == "error"
    assert "shared one tensor (8 x 4)" in said.evidence
    assert "32 values are held twice" in said.evidence
    assert line(said).startswith("model.load_state_dict(")
    (said,) = watched("tie-broken", tied, by_hand)  # no hook hears of it: found by its memory
    assert said.where == "model.head.weight"
    assert "model.embed.weight" in said.evidence

    def part(model):
        model.head.weight.data = model.head.weight.data.clone()

    (said,) = watched("tie-broken", tied, part, before=by_data)
    assert said.evidence.endswith("still equal, but trained on their own.")


def test_declared_ties():
    (said,) = watched("tie-broken", tied, make=lambda: Tied(False, True))
    assert said.evidence.startswith(
        "model.head.weight does not share its tensor (8 x 4) with model.embed.weight, although "
        "config.tie_word_embeddings is true: 32 values are held twice"
    )
    assert watched("tie-broken", tied, make=lambda: Tied(False, False)) == []
    assert watched("tie-broken", tied, make=lambda: Tied(True, True)) == []


def again(model):
    load(model)
    model.head.weight = model.embed.weight


def resized(model):
    model.embed = nn.Embedding(8, 4)
    model.head = nn.Linear(4, 8, bias=False)


def test_ties_that_hold():
    for change in (None, again, resized, lambda m: m.double().float(), lambda m: m.eval()):
        assert watched("tie-broken", tied, change) == [], change


# -- 8 init-scale, 9 linear-linear ---------------------------------------------------------------
def started(scale, which=0):
    model = mlp()
    with torch.no_grad():
        model[which].weight.mul_(scale)
    fit(model, ce, steps=3)


def test_starts_of_odd_spread():
    for scale in (0.01, 50.0):
        (said,) = watched("init-scale", started, scale)
        assert said.severity == "info"
        assert said.where == "model.0.weight"
        assert "fan_in = 8" in said.evidence
        spread = scale * 1 / math.sqrt(3)  # of torch's uniform start
        assert abs(float(said.evidence.split("= ")[1].split()[0]) / spread - 1) < 0.2
    assert watched("init-scale", started, 0.0) == []  # a zero start
    assert watched("init-scale", started, 2.0) == []


class Chain(nn.Module):
    def __init__(self, inner=16, act=False, twice=False, add=False):
        super().__init__()
        self.one, self.two = nn.Linear(8, inner), nn.Linear(inner, 4)
        self.other = nn.Linear(inner, 4) if twice else None
        self.act, self.add = act, add

    def forward(self, x):
        x = self.one(x)
        x = x.relu() if self.act else x
        if self.add:
            return self.two(x) + x[:, :4]
        return self.two(x) + (self.other(x) if self.other is not None else 0.0)


def test_linear_layers_in_the_order_of_calls():
    def train(*args):
        fit(Chain(*args), ce, steps=3)

    (said,) = watched("linear-linear", train)
    assert said.evidence.startswith("model.one and model.two follow each other")
    assert "8 -> 16 -> 4" in said.evidence
    assert watched("linear-linear", train, 16, True) == []
    assert watched("linear-linear", train, 3) == []  # a factorization
    assert watched("linear-linear", train, 16, False, True) == []  # given to several
    assert watched("linear-linear", train, 16, False, False, True) == []  # a residual sum


# -- 30 init-loss --------------------------------------------------------------------------------
def first(function, value, **facts):
    seen = Seen()
    site = LossSeen(function, HERE, first={"value": value})
    site.facts = {"reduction": "mean", "options": [], **facts}
    seen.losses = {0: site}
    return judged("init-loss", seen)


LABELS = torch.tensor([50, 50, 50, 50])
RARE = {"positive_sum": 1.0, "count": 100}  # one in a hundred
SQUARES = {"sum": torch.tensor([300.0]), "squares": torch.tensor([1000.0]), "count": 100}


@pytest.mark.parametrize(
    ("function", "value", "facts", "words"),
    [
        ("cross_entropy", 5.0, {"classes": 4}, "3.6 times ln 4 = 1.39, which equal scores"),
        ("cross_entropy", 0.3, {"classes": 4, "labels": LABELS}, "0.22 times the entropy of the"),
        ("binary_cross_entropy_with_logits", 2.2, RARE, "3.2 times ln 2 = 0.693"),
        ("binary_cross_entropy_with_logits", 0.02, RARE, "0.36 times the entropy of the labels"),
        ("mse_loss", 40.0, SQUARES, "4.0 times the mean square of the targets, 10,"),
        ("mse_loss", 0.4, SQUARES, "0.4 times the variance of the targets, 1"),
    ],
)
def test_first_losses_that_are_odd(function, value, facts, words):
    (said,) = first(function, value, **facts)
    assert said.severity == "info"
    assert words in said.evidence
    assert (said.file, said.line, said.step) == (HERE.file, HERE.line, 1)


@pytest.mark.parametrize(
    ("function", "value", "facts"),
    [
        ("cross_entropy", 1.5, {"classes": 4, "labels": LABELS}),
        ("cross_entropy", 5.0, {"classes": 4, "reduction": "sum"}),
        ("cross_entropy", 5.0, {"classes": 4, "options": ["weight"]}),
        ("cross_entropy", 0.3, {"classes": 4, "labels": torch.tensor([190, 10, 0, 0])}),
        ("binary_cross_entropy_with_logits", 0.7, RARE),  # 12 times the entropy: no alarm
        ("mse_loss", 10.0, SQUARES),  # ten times the variance: answers of zero
        ("l1_loss", 100.0, {}),
    ],
)
def test_first_losses_that_are_fine(function, value, facts):
    assert first(function, value, **facts) == []


def test_first_loss_of_a_real_run():
    def train(scale):
        x, _ = data()
        fit(mlp(8, 16, 1), lambda o, t: F.mse_loss(o * scale, t), steps=3, xy=(x, x[:, :1]))

    (said,) = watched("init-loss", train, 30.0)
    assert "the mean square of the targets" in said.evidence
    assert line(said).startswith("fit(mlp(8, 16, 1)")
    assert watched("init-loss", train, 1.0) == []


# -- 32 grad-none-params -------------------------------------------------------------------------
class Cut(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 4)
        self.side = nn.Linear(8, 4)
        self.how = how

    def forward(self, x):
        h = self.body(x).relu()
        if self.how == "detach":
            h = h.detach()
        return self.head(h)


def test_layers_that_are_cut_off():
    def train(how):
        fit(Cut(how), ce)

    (said,) = watched("grad-none-params", train, "detach")
    assert said.where == "model.body.weight"
    assert "2 of 6 parameters of SGD had no gradient" in said.evidence
    assert "model.body.weight, model.body.bias" in said.evidence  # never side: it is not called
    assert said.severity == "info"
    assert watched("grad-none-params", train, "") == []


def test_reentrant_checkpoints_without_inputs_that_need_gradients():
    from torch.utils.checkpoint import checkpoint

    class Held(Cut):
        def forward(self, x):
            h = checkpoint(self.body, x, use_reentrant=self.how == "reentrant")
            return self.head(h.relu())

    def train(how):
        fit(Held(how), ce)

    with pytest.warns(UserWarning, match="None of the inputs have requires_grad"):
        (said,) = watched("grad-none-params", train, "reentrant")
    assert said.severity == "warning"
    assert "2 parameters of model.body got no gradient in 3 steps" in said.evidence
    assert watched("grad-none-params", train, "other") == []


# -- 36 label-independence, 37 input-independence ------------------------------------------------
class Flat(nn.Module):
    """Look at the input, or answer alike."""

    def __init__(self, looks):
        super().__init__()
        self.fc = nn.Linear(8, 4)
        self.looks = looks

    def forward(self, x):
        return self.fc(x if self.looks else torch.ones_like(x))


def test_losses_that_do_not_depend_on_which_label_is_whose():

    def train(kind):
        x, _ = data()
        y = torch.randn(256, 1)
        if kind == "constant":
            y = torch.ones_like(y)

        def loss(out, target):
            # a distance to far targets is their mean, whoever they belong to
            return F.l1_loss(out, target + (1e3 if kind == "far" else 0.0))

        fit(nn.Linear(8, 1), loss, xy=(x, y), steps=12, lr=1e-3)

    (said,) = watched("label-independence", train, "far")
    assert said.severity == "error"
    assert said.evidence.startswith("l1_loss gave ")
    assert "with them permuted" in said.evidence
    assert line(said).startswith("return F.l1_loss")
    assert watched("label-independence", train, "near") == []
    assert watched("label-independence", train, "constant") == []  # equal labels: nothing to tell


def test_models_that_ignore_their_input():
    def train(looks, same=False):
        x, y = data()
        fit(Flat(looks), ce, xy=(torch.ones_like(x) if same else x, y), steps=100)

    (said,) = watched("input-independence", train, False)
    assert said.evidence.startswith("Across 32 different inputs the output of model varies by less "
                                    "than 1e-06 of its size, at")  # fmt: skip
    assert said.severity == "warning"
    assert watched("input-independence", train, True) == []
    assert watched("input-independence", train, True, same=True) == []  # nothing to tell apart


# -- 40 overfit-one-batch ------------------------------------------------------------------------
def test_a_batch_that_cannot_be_learned():
    x, y = torch.zeros(16, 5), torch.arange(16) % 3
    ladder = preflight(mlp(5, 8, 3), F.cross_entropy, (x, y), steps=100)
    (said,) = ladder.findings()
    assert (said.check, said.severity) == ("overfit-one-batch", "warning")
    assert "in 100 steps of Adam" in said.evidence
    assert "80% less is expected" in said.evidence
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    assert preflight(mlp(5, 64, 3), F.cross_entropy, (x, y), steps=60).findings() == []


# -- 34 batch-mixing -----------------------------------------------------------------------------
class Centred(nn.Module):
    """Take the batch's mean off; ``calls`` has the samples of each call in evaluation."""

    def __init__(self, outputs, only=0):
        super().__init__()
        self.fc, self.only, self.calls = nn.Linear(8, outputs), only, []

    def forward(self, x, others=None):
        assert not self.only or len(x) == self.only
        if not self.training:
            self.calls.append(len(x))
        h = self.fc(x if others is None else x + x[others])
        return h - h.mean(0)


def mixed(model, batch):
    with watch() as doctor:
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for _ in range(5):
            given = batch()
            optimizer.zero_grad()
            ce(model(*given), torch.randint(0, model.fc.out_features, (64,))).backward()
            optimizer.step()
    assert doctor.report().problems == []
    return "batch-mixing" in [f.check for f in doctor.report().findings]


@pytest.mark.parametrize("outputs", [3, 15, 16, 64])
def test_samples_that_mix_are_found_with_any_number_of_outputs(outputs):
    assert mixed(Centred(outputs), lambda: (torch.randn(64, 8),))


def test_samples_that_mix_are_found_in_sorted_data():
    first_alike = torch.cat([torch.ones(40, 8), torch.zeros(24, 8)])
    assert mixed(Centred(3), lambda: (first_alike + torch.rand(()),))


def test_a_model_for_one_size_of_batch_is_asked_with_it():
    assert mixed(Centred(3, only=64), lambda: (torch.randn(64, 8),))


def test_samples_that_name_each_other_stay_together(monkeypatch):
    rows = []
    monkeypatch.setattr(Centred, "calls", property(lambda _: rows, lambda *_: None), raising=False)
    assert mixed(Centred(3), lambda: (torch.randn(64, 8), torch.randint(0, 64, (64,))))
    assert set(rows) == {64}
