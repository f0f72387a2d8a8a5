"""Profiles: a trace of the steps that were asked for, and the run as it would have been."""

import json

import pytest
import torch

from brickyard.cli import main
from brickyard.errors import UserError
from brickyard.train import train
from brickyard.train.checkpoint import Checkpoints

RECIPE = {
    "data": "digits", "model": {"name": "mlp", "hidden": [8]}, "loss": "cross_entropy",
    "budget": 30, "name": "try", "accumulate": 2,
}  # fmt: skip


def state(path):
    found = Checkpoints(path / "checkpoints").load("last")
    return [*found["model"].values(), *(v for s in found["optimizer"]["state"].values()
                                        for v in s.values())]  # fmt: skip


@pytest.mark.parametrize("steps", [4, 29])
def test_a_trace_holds_the_steps_and_the_run_is_unchanged(tmp_path, capfd, steps):
    train(RECIPE, out=tmp_path / "plain")
    train(RECIPE, out=tmp_path / "run", profile=steps)
    trace = json.loads((tmp_path / "run" / "profile.json").read_text())
    names = [e.get("name", "") for e in trace["traceEvents"]]
    assert sum(n.startswith("Optimizer.step") for n in names) == steps
    told = capfd.readouterr().err
    assert "ms a step" in told
    assert "aten::addmm" in names
    assert "aten::" in told, "which operations lead is a matter of time"
    for a, b in zip(state(tmp_path / "plain"), state(tmp_path / "run"), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    assert not (tmp_path / "plain" / "profile.json").exists()


def test_more_steps_than_there_are_make_no_run(tmp_path):
    with pytest.raises(UserError, match="profile takes 1 to 29 steps of this run; got 30"):
        train(RECIPE, out=tmp_path / "run", profile=30)
    assert not (tmp_path / "run").exists()


def test_the_command_line_profiles(tmp_path, monkeypatch):
    given = {}

    def fake(recipe, out, profile):
        given["profile"] = profile
        raise UserError("enough")

    monkeypatch.setattr("brickyard.train.train", fake)
    (tmp_path / "one.yaml").write_text("{data: digits, model: mlp, loss: cross_entropy}\n")
    with pytest.raises((UserError, SystemExit)):
        raise SystemExit(main(["train", str(tmp_path / "one.yaml"), "--profile", "7"]))
    assert given["profile"] == 7
