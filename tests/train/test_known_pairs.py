"""Known bad pairs: every rule has a recipe that triggers it and a near twin that does not."""

import json

import pytest

from brickyard.catalog import get, shelf
from brickyard.catalog.pairs import RULES, not_with
from brickyard.cli import main
from brickyard.train import resolve, train
from brickyard.train.setup import build_setup

MODELS = """
import math
import numpy as np
from torch import nn
from brickyard.catalog import get

class Flat(nn.Sequential):
    def __init__(self, input_shape, outputs, bias=True, norm="BatchNorm1d", between=False):
        size = math.prod(input_shape)
        middle = [nn.ReLU()] if between else []
        super().__init__(nn.Flatten(), nn.Linear(size, 8, bias=bias), *middle,
                         getattr(nn, norm)(8), nn.ReLU(), nn.Linear(8, outputs))

def images(seed):
    x = np.random.default_rng(0).normal(size=(64, 1, 8, 8)).astype("float32")
    return x, np.arange(64) % 4

class Maps(nn.Sequential):
    def __init__(self, input_shape, outputs, act="relu"):
        frn = get("frn", "normalization").load()
        act = nn.ReLU() if act == "relu" else get("tlu", "activation").load()(4)
        super().__init__(nn.Conv2d(input_shape[0], 4, 3), frn(4), act, nn.Flatten(),
                         nn.Linear(144, outputs))
"""


def mlp(**options):
    return {"model": {"name": "mlp", "hidden": 8, "init": "kaiming_normal_", **options}}


def cnn(**options):
    model = {"name": "cnn", "width": 2, "blocks": [1], **options}
    return {"model": model, "data": {"target": "pair_models:images"}}


def flat(**options):
    return {"model": {"target": "pair_models:Flat", **options}}


LINEAR = {"name": "kaiming_normal_", "nonlinearity": "linear"}
SELU = {"activation": "selu", "init": LINEAR}
WARM = [{"name": "warmup", "steps": "5%"}, "cosine"]
DROP = {"name": "dropout", "p": 0.2}
#: Rule, what triggers it, a near twin that does not.
CASES = [
    ("selu_kaiming", mlp(activation="selu"), mlp(**SELU)),
    ("selu_kaiming", mlp(activation="selu", init={"name": "kaiming_uniform_"}),
     mlp(activation="selu", init=None)),
    ("selu_torch_start", mlp(activation="selu", init=None),
     mlp(activation="selu", init="lecun_normal_")),
    ("selu_dropout", mlp(**SELU, dropout="dropout"), mlp(**SELU, dropout="alpha_dropout")),
    ("selu_dropout", mlp(**SELU, dropout=DROP), mlp(**SELU, dropout={"name": "dropout", "p": 0})),
    ("selu_norm", mlp(**SELU, normalization="batch_norm"), mlp(**SELU)),
    ("selu_norm", mlp(**SELU, normalization="layer_norm"),
     mlp(activation="relu", normalization="layer_norm")),
    ("alpha_dropout_alone", mlp(dropout="alpha_dropout"), mlp(**SELU, dropout="alpha_dropout")),
    ("dropout_before_batch_norm", mlp(normalization="batch_norm", dropout=DROP),
     mlp(normalization="batch_norm", dropout=DROP, depth=1)),
    ("dropout_before_batch_norm", cnn(dropout="spatial_dropout", blocks=[2]),
     cnn(dropout="spatial_dropout", blocks=[2],
         normalization={"name": "group_norm", "num_groups": 2})),
    ("bias_before_norm", flat(), flat(bias=False)),
    ("bias_before_norm", flat(), flat(norm="LayerNorm")),
    ("bias_before_norm", flat(), flat(between=True)),
    ("bias_before_norm", flat(), mlp(normalization="batch_norm")),
    ("frn_relu", {**cnn(), "model": {"target": "pair_models:Maps"}},
     {**cnn(), "model": {"target": "pair_models:Maps", "act": "tlu"}}),
    ("batch_norm_small_batch", {**cnn(), "batch_size": 4}, {**cnn(), "batch_size": 8}),
    ("batch_norm_small_batch", {**cnn(), "batch_size": 4},
     {**cnn(normalization={"name": "group_norm", "num_groups": 2}), "batch_size": 4}),
    ("one_value_weights", mlp(init="zeros_"), mlp(init=None)),
    ("one_value_weights", mlp(init={"name": "constant_", "val": 0.1}), mlp(init="xavier_normal_")),
    ("wide_start", mlp(init="normal_"), mlp(init={"name": "normal_", "std": 0.02})),
    ("wide_start", mlp(init="uniform_"), mlp(init={"name": "uniform_", "a": -0.1, "b": 0.1})),
    ("kaiming_saturating", mlp(activation="tanh"), mlp(activation="tanh", init="xavier_normal_")),
    ("kaiming_saturating", mlp(activation="sigmoid"),
     mlp(activation="tanh", init={"name": "kaiming_normal_", "nonlinearity": "tanh"})),
    ("xavier_deep_relu", mlp(depth=30, init="xavier_normal_"), mlp(depth=30)),
    ("xavier_deep_relu", mlp(depth=30, init="xavier_uniform_"),
     mlp(depth=30, init={"name": "xavier_uniform_", "gain": 1.42})),
    ("xavier_deep_relu", mlp(depth=30, init="orthogonal_"), mlp(depth=4, init="orthogonal_")),
    ("xavier_deep_relu", mlp(depth=30, init="xavier_normal_"),
     mlp(depth=30, init="xavier_normal_", normalization="layer_norm")),
    ("deep_sigmoid", mlp(activation="sigmoid", depth=4), mlp(activation="sigmoid", depth=3)),
    ("adam_coupled_decay", {**mlp(), "optimizer": {"name": "adam", "weight_decay": 0.1}},
     {**mlp(), "optimizer": {"name": "adamw", "weight_decay": 0.1}}),
    ("adam_coupled_decay", {**mlp(), "optimizer": {"name": "nadam", "weight_decay": 0.1}},
     {**mlp(), "optimizer": {"name": "nadam", "weight_decay": 0.1,
                             "decoupled_weight_decay": True}}),
    ("large_batch_cold_start", {**mlp(), "optimizer": "sgd", "batch_size": 1024},
     {**mlp(), "optimizer": "sgd", "batch_size": 1024, "schedule": WARM, "budget": "40ep"}),
    ("large_batch_cold_start", {**mlp(), "optimizer": "sgd", "batch_size": 1024},
     {**mlp(), "optimizer": "sgd", "batch_size": 256}),
    ("deep_plain_residual", mlp(depth=18, residual="residual"),
     mlp(depth=18, residual="residual_scale")),
    ("deep_plain_residual", mlp(depth=18, residual="residual"), mlp(depth=9, residual="residual")),
    ("deep_plain_residual", mlp(depth=18, residual="residual"),
     mlp(depth=18, residual="residual", normalization="layer_norm")),
    ("dropout_on_maps", cnn(dropout="dropout"), cnn(dropout="spatial_dropout")),
    ("dropout_on_maps", cnn(dropout="dropout"), mlp(dropout="dropout")),
    ("warmup_last",
     {**mlp(), "schedule": [{"name": "cosine", "total": 9}, {"name": "warmup", "steps": 1}],
      "budget": 10},
     {**mlp(), "schedule": WARM, "budget": 40}),
    ("warmup_last", {**mlp(), "schedule": [{"name": "constant", "steps": 1}, {"name": "warmup",
                                                                     "steps": 1}]},
     {**mlp(), "schedule": [{"name": "warmup", "steps": 1}]}),
    ("prelu_decay", {**mlp(activation="prelu"), "groups": {"no_decay": "none"}},
     mlp(activation="prelu")),
    ("prelu_decay", {**mlp(activation="prelu"), "groups": {"no_decay": "none"}},
     {**mlp(activation="prelu"), "groups": {"no_decay": "none"}, "optimizer": "sgd"}),
]  # fmt: skip
NOW = {card.key for card in shelf()}


@pytest.fixture(autouse=True)
def models(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("models")
    (folder / "pair_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(folder)


def found(change):
    recipe = {"data": "digits", "loss": "cross_entropy", "budget": 1, **change}
    return {one["check"]: one for one in build_setup(resolve(recipe)).findings}


@pytest.mark.parametrize(("rule", "bad", "good"), CASES)
def test_a_rule_fires_and_its_near_twin_does_not(rule, bad, good):
    if rule == "frn_relu" and not {"frn", "tlu"} <= NOW:
        pytest.skip("frn and tlu are not on the shelf")
    hit = found(bad)
    assert rule in hit
    assert hit[rule]["where"]
    assert rule not in found(good)


def test_every_rule_is_tested_and_complete():
    assert {case[0] for case in CASES} == {rule.key for rule in RULES if rule.when}
    assert len({rule.key for rule in RULES}) == len(RULES) >= 15
    later = {"frn", "tlu"} - NOW
    for rule in RULES:
        assert rule.wrong.endswith("."), rule.key
        assert rule.instead, rule.key
        assert any(c.isdigit() for c in rule.source), "a source has its year"
        for key in rule.bricks:
            assert key in later or get(key).key == key


def test_the_recipes_of_the_house_are_clean():
    from pathlib import Path

    from brickyard.train import load

    for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")):
        if "mnist" in path.name or "digits" in path.name:
            assert not build_setup(load(path)).findings, path.name


def test_a_run_tells_each_pair_once_and_keeps_it(tmp_path, capsys):
    recipe = {"data": "digits", "loss": "cross_entropy", "budget": 2, **mlp(activation="selu")}
    result = train(recipe, out=tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("takes the signal away from that point") == 1
    kept = json.loads((tmp_path / "run" / "summary.json").read_text())["findings"]
    assert [one["check"] for one in kept] == ["selu_kaiming"]
    assert "arXiv:1706.02515" in kept[0]["why"]
    page = result.run.report.read_text()
    assert "selu_kaiming" in page
    assert "nonlinearity: linear" in page


def test_recipe_check_warns_and_still_says_that_it_is_right(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "{data: digits, loss: cross_entropy, model: {name: mlp, activation: tanh, "
        "init: kaiming_normal_}}"
    )
    assert main(["recipe", "check", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("warning: body.2, model.init: Kaiming doubles the variance")
    assert "Instead: init: xavier_normal_." in out
    assert "is right" in out


def test_rules_are_found_by_brick():
    assert {rule.key for rule in not_with("selu")} == {
        "selu_kaiming", "selu_torch_start", "selu_dropout", "selu_norm",
    }  # fmt: skip
    assert not_with("mse") == []
