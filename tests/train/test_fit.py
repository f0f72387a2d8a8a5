"""Data, model and loss that do not fit are refused at the door, with the reason."""

import pytest
import torch

from brickyard.catalog import shelf
from brickyard.errors import RecipeError
from brickyard.train import Recipe, resolve, train
from brickyard.train.fit import OUTPUTS, TARGETS, output_form
from brickyard.train.probe import probe
from brickyard.train.setup import build_setup

LOSSES = [card.key for card in shelf("loss")]
#: Losses that a recipe can train on each data set; every other one is refused.
TAKEN = {
    "digits": {"cross_entropy", "nll", "focal", "multiclass_hinge"},
    "breast_cancer": {"cross_entropy", "nll", "focal", "multiclass_hinge", "bce", "binary_focal"},
    "diabetes": {"mse", "mae", "huber", "smooth_l1", "log_cosh", "quantile", "value"},
}
MODELS = """
import math
import torch
from torch import nn

ENDS = {"linear": nn.Identity, "softmax": lambda: nn.Softmax(1), "sigmoid": nn.Sigmoid,
        "log_softmax": lambda: nn.LogSoftmax(1), "tanh": nn.Tanh}

class Net(nn.Module):
    def __init__(self, input_shape, outputs, end="linear"):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), outputs))
        self.end = ENDS[end]()
    def forward(self, x):
        return self.end(self.body(x))

class Wrong(Net):
    def __init__(self, input_shape, outputs):
        super().__init__((3,), outputs)

class Wide(Net):
    def __init__(self, input_shape, outputs):
        super().__init__(input_shape, outputs + 1)
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    (tmp_path / "fit_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)


def made(loss, data="digits", end="linear", model=None):
    model = model or {"target": "fit_models:Net", "end": end}
    return build_setup(resolve(Recipe(data=data, model=model, loss=loss, budget=1)))


def test_cards_speak_the_vocabulary():
    for card in shelf("loss"):
        assert card.facts["output"] in OUTPUTS, card.key
        assert card.facts["target"] in TARGETS, card.key


@pytest.mark.parametrize("data", TAKEN)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_trained_or_refused_with_a_reason(loss, data, models):
    if loss in TAKEN[data]:
        parts = made(loss, data, "log_softmax" if loss == "nll" else "linear").parts
        x, y = next(parts.train.epoch(0))
        value = parts.loss(parts.model(x), parts.task.target(y))
        value.backward()
        assert value.isfinite()
        assert any(p.grad.abs().max() > 0 for p in parts.model.parameters())
        return
    if loss == "perceptual":
        pytest.skip("needs a network of features")
    with pytest.raises(RecipeError, match=f"^loss: {loss} .*; .*take ") as refused:
        made(loss, data)
    fit = str(refused.value).rpartition(" take ")[2].split(", ")
    assert TAKEN[data] <= set(fit), "the message names what fits"
    assert loss not in fit


@pytest.mark.parametrize(
    ("loss", "data", "end", "says"),
    [
        ("cross_entropy", "digits", "softmax", "takes logits and applies the softmax itself"),
        ("cross_entropy", "digits", "sigmoid", "ends in a sigmoid: squashed twice"),
        ("cross_entropy", "digits", "tanh", "ends in a tanh"),
        ("focal", "digits", "softmax", "takes logits"),
        ("bce", "breast_cancer", "sigmoid", "takes logits and applies the sigmoid itself"),
        ("binary_focal", "breast_cancer", "sigmoid", "takes logits"),
        ("bce", "breast_cancer", "log_softmax", "takes logits"),
        ("multiclass_hinge", "digits", "softmax", "wants scores to differ by a whole margin"),
        ("nll", "digits", "linear", "takes log-probabilities, .* a plain output; take cross_entr"),
        ("nll", "digits", "softmax", "takes log-probabilities, .* output of a softmax"),
        ("mse", "diabetes", "sigmoid", r"stays in \[0, 1\]"),
        ("huber", "diabetes", "tanh", r"stays in \[-1, 1\]"),
        ("mae", "diabetes", "log_softmax", "values of either sign"),
    ],
)
def test_an_output_that_the_loss_misreads_is_refused(loss, data, end, says, models):
    with pytest.raises(RecipeError, match=f"^loss: {loss} .*{says}"):
        made(loss, data, end)


def test_what_is_harmless_goes_through(models):
    made("cross_entropy", end="log_softmax")  # the identity on log-probabilities
    made("nll", end="log_softmax")


def test_a_model_that_cannot_take_the_data_or_has_the_wrong_width(models):
    with pytest.raises(RecipeError, match=r"model: Wrong cannot take a batch of digits of shape"):
        made("cross_entropy", model={"target": "fit_models:Wrong"})
    for loss in ("cross_entropy", "focal"):  # more outputs than classes, that no loss notices
        with pytest.raises(
            RecipeError, match=r"model: .*Wide gives 11 outputs .* digits takes 10;"
        ):
            made(loss, model={"target": "fit_models:Wide"})
    with pytest.raises(RecipeError, match=r"loss: mse refuses .* shape \(32, 2\)"):
        made("mse", "diabetes", model={"target": "fit_models:Wide"})


def test_forms_are_read_through_views_and_off_the_values():
    x = torch.randn(4, 3, requires_grad=True)
    assert output_form(x.softmax(1)[:, :2].unsqueeze(1).clone()) == "softmax"
    assert output_form(x.exp() / x.exp().sum(1, keepdim=True)) == "softmax"
    assert output_form(x - x.logsumexp(1, keepdim=True)) == "log_softmax"
    assert output_form(x.softmax(1).half()) == "softmax"
    assert output_form(torch.sigmoid(x).view(12, 1)) == "sigmoid"
    assert output_form(torch.sigmoid(x) * 2) == ""
    assert output_form(x @ x.T) == ""
    assert output_form(torch.relu(x)) == ""


def test_looking_changes_nothing():
    setup = build_setup(resolve(Recipe(
        data="digits", model={"name": "mlp", "hidden": 8, "normalization": "batch_norm",
                              "dropout": "dropout"}, loss="cross_entropy", budget=1)))  # fmt: skip
    model = setup.parts.model.train()
    model.body[1].eval()
    before = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    seen = probe(setup.task.forward, model, setup.data, lambda t: t, setup.parts.autocast)
    assert torch.equal(before[0], torch.get_rng_state())
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before[1].items())
    assert modes == [m.training for m in model.modules()]
    assert [layer.key or layer.kind for layer in seen.layers] == [
        "", "linear", "batch_norm", "relu", "dropout", *["linear", "batch_norm", "relu", "dropout"],
        "linear",
    ]  # fmt: skip
    assert not any(m._forward_hooks for m in model.modules())


def several(output, target):
    return (output - 1).sum(1)


def apart(output, target):
    return (output.argmax(1) == target).float().mean()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("several", "must return one number for a batch"),
        ("apart", "does not depend on the weights"),
    ],
)
def test_a_loss_of_ones_own_that_is_none_is_told(name, says, models, tmp_path):
    loss = {"target": f"{__name__}:make_{name}"}
    recipe = Recipe(data="digits", model={"target": "fit_models:Net"}, loss=loss, budget=1)
    with pytest.raises(RecipeError, match=rf"loss: .*make_{name} {says}"):
        train(recipe, out=tmp_path / "run")


def make_several():
    return several


def make_apart():
    return apart
