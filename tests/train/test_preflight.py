"""The ladder before training stands for recipes of every kind; what is no question is left out."""

from pathlib import Path

import pytest
from torch import nn

from brickyard.cli import main
from brickyard.doctor.rungs import NAMES
from brickyard.train import load
from brickyard.train.looking import ladder

RECIPES = Path(__file__).parents[2] / "recipes"
#: A recipe of each kind, and the rungs that are no question to it.
GAME = {"initial_loss", "samples_apart", "future_hidden", "labels_matter", "one_batch",
        "inputs_matter", "rates"}  # fmt: skip
KINDS = {
    "casp-mlp": {"future_hidden"},
    "kjv-chars": set(),
    "digit-strips-ctc": {"future_hidden", "initial_loss"},
    "digits-embedding": {"future_hidden"},
    "mnist5k-vae": {"future_hidden", "labels_matter", "inputs_matter"},
    "mnist5k-twoview": {"future_hidden", "labels_matter", "inputs_matter"},
    "mnist5k-wgan-gp": GAME,
    "cartpole-dqn": GAME,
    "cartpole-reinforce": {*GAME, "spread"},
}
#: Two steps are too few to judge these.
UNJUDGED = {"one_batch", "inputs_matter"}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_asked_what_can_be_asked(name):
    found = ladder(load(RECIPES / f"{name}.yaml"), samples=16, steps=2, seconds=5)
    said = {rung.name: rung for rung in found.rungs}
    assert list(said) == list(NAMES.values())
    for key, text in NAMES.items():
        rung = said[text]
        if key in KINDS[name]:
            assert rung.passed is None, rung
            assert len(rung.seen) > 10, "it says why"
        elif key in UNJUDGED:
            assert rung.passed is not False, rung
        else:
            assert rung.passed is True, rung
    assert found.holds


class Unplayed(nn.Module):
    """A generator with a layer that nothing passes through."""

    def __init__(self, input_shape, outputs):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], outputs))
        self.spare = nn.Linear(3, 3)

    def forward(self, x):
        return self.body(x)


def test_a_fault_of_an_agent_breaks_its_rung():
    recipe = load(RECIPES / "cartpole-dqn.yaml", ["model={target: test_preflight:Unplayed}"])
    rungs = {rung.name: rung for rung in ladder(recipe, samples=8).rungs}
    rung = rungs[NAMES["gradients_arrive"]]
    assert rung.passed is False
    assert "spare.weight" in rung.seen


def test_the_command_takes_its_time_and_says_how_it_ends(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    path = tmp_path / "recipe.yaml"
    path.write_text("{data: digits, model: {name: mlp, hidden: 32}, loss: cross_entropy}")
    assert main(["doctor", "preflight", str(path), "--seconds", "1e-9"]) == 0
    out = capsys.readouterr().out
    assert "when its time was over" in out.replace("\n|      |    ", " ")
    assert "Every rung holds. " in out
    assert max(map(len, out.splitlines())) <= 60
    assert main(["doctor", "preflight", str(path), "--seconds", "0"]) == 2
    assert "--seconds must be positive; got 0" in capsys.readouterr().err
