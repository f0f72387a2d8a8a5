"""The doctor in runs of every kind: no false alarm, the same bits, its findings in the folder."""

import json

import pytest
import rank_jobs
import torch
import warm
from alike import StopAt, read_rows, same, same_runs
from game_cases import AGENT, GAN, PPO, REINFORCE
from ranks import free_port

from brickyard.doctor.checks import CHECKS
from brickyard.runs import RunFolder
from brickyard.train import resume, train
from brickyard.train.checkpoint import Checkpoints

RECIPE = {
    "data": "digits", "model": {"name": "mlp", "hidden": [16], "normalization": "batch_norm",
                                "dropout": {"name": "dropout", "p": 0.1}},
    "loss": "cross_entropy", "optimizer": {"name": "adamw", "lr": 3e-3}, "metrics": ["accuracy"],
    "budget": 14, "evaluate_every": 3, "log_every": 2, "checkpoint_every": 5, "threads": 1,
    "name": "watched",
}  # fmt: skip
CLIP = {"name": "clip_by_global_norm", "max_norm": 0.5}
KINDS = {
    "accumulation": {**RECIPE, "accumulate": 3, "clipping": CLIP},
    "fp16": {**RECIPE, "precision": {"name": "fp16", "init_scale": 2.0**40}, "clipping": CLIP},
    "bf16": {**RECIPE, "precision": "bf16"},
    "fp16 weights": {**RECIPE, "precision": "fp16_weights"},
    "ema": {**RECIPE, "regularizers": [{"name": "ema", "decay": 0.9}]},
    "swa": {**RECIPE, "regularizers": [{"name": "swa", "start": "30%", "every": 2}]},
    "attack": {**RECIPE, "regularizers": [{"name": "pgd", "eps": 0.1, "steps": 2}]},
    "lbfgs": {**RECIPE, "optimizer": "lbfgs", "batch_size": 2000, "budget": 6,
              "model": {"name": "mlp", "hidden": [16]}},
    "warm restarts": {**RECIPE, "schedule": [{"name": "cosine_restarts", "first": 4}]},
    "gan": GAN, "reinforce": REINFORCE, "ppo": PPO, "dqn": AGENT,
}  # fmt: skip
GRAVE = ("error", "warning")


def grave(folder):
    """Return what the doctor found, beside what the recipe's own checks said."""
    found = RunFolder(folder).findings()["findings"]
    return [(f["check"], f["evidence"]) for f in found
            if f["severity"] in GRAVE and f["check"] in CHECKS]  # fmt: skip


def same_end(one, other):
    a, b = (Checkpoints(p / "checkpoints").load("last") for p in (one, other))
    for state in (a, b):
        state.get("state", {}).pop("seconds", None)
        state.pop("recipe", None)
    return same(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_run_is_left_alone_and_unchanged(kind, tmp_path, capsys):
    watched = train(KINDS[kind], out=tmp_path / "a")
    plain = train({**KINDS[kind], "doctor": False}, out=tmp_path / "b")
    assert grave(tmp_path / "a") == []
    assert "doctor:" not in capsys.readouterr().err
    told = [[(f["check"], f["where"], f["severity"]) for f in findings] for findings in (
        watched.summary["findings"], RunFolder(tmp_path / "a").findings()["findings"])]  # fmt: skip
    assert told[0] == told[1]
    assert not (tmp_path / "b" / "findings.json").exists()
    assert read_rows(tmp_path / "a") == read_rows(tmp_path / "b")
    for one, other in zip(watched.model.state_dict().values(), plain.model.state_dict().values(),
                          strict=True):  # fmt: skip
        assert torch.equal(one, other)
    assert same_end(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("stop", [2, 8])
@pytest.mark.parametrize("kind", ["accumulation", "ema", "gan", "ppo"])
def test_a_run_that_was_stopped_and_resumed_is_the_one_that_nobody_watched(kind, stop, tmp_path):
    """Stopped within the steps that are looked at, and after them."""
    train({**KINDS[kind], "doctor": False}, out=tmp_path / "whole")
    train(KINDS[kind], out=tmp_path / "parts", progress=StopAt(stop))
    before = RunFolder(tmp_path / "parts").findings()
    again = resume(tmp_path / "parts")
    assert grave(tmp_path / "parts") == []
    assert len(again.summary["findings"]) == len(before["findings"])
    assert RunFolder(tmp_path / "parts").findings() == before
    rows = [read_rows(tmp_path / name) for name in ("whole", "parts")]
    assert rows[0] == rows[1]


def test_two_processes_are_watched_by_one_and_train_as_unwatched(tmp_path):
    recipe = {
        "data": {"name": "digits", "val": 0.2}, "model": {"target": "rank_jobs:Net"},
        "loss": "cross_entropy", "optimizer": {"name": "adamw", "lr": 4e-3},
        "metrics": ["accuracy"], "batch_size": 64, "accumulate": 2, "budget": 8, "log_every": 1,
        "evaluate_every": 4, "threads": 1, "checkpoint_every": 4,
    }  # fmt: skip
    jobs = [(free_port(), str(tmp_path / name), {**recipe, "doctor": doctor}, 0)
            for name, doctor in (("a", True), ("b", False))]  # fmt: skip
    warm.on_each(rank_jobs.run, 2, jobs, count=2)
    assert grave(tmp_path / "a") == []
    assert json.loads((tmp_path / "a" / "findings.json").read_text())["steps"] == 4
    assert not (tmp_path / "b" / "findings.json").exists()
    assert read_rows(tmp_path / "a") == read_rows(tmp_path / "b")
    assert same_end(tmp_path / "a", tmp_path / "b")
    assert "What the doctor found" not in (tmp_path / "a" / "report.html").read_text()


def test_a_finding_of_an_accumulating_run_stands_once_on_its_page(tmp_path, capsys):
    recipe = {**KINDS["accumulation"], "loss": {"target": "test_watching:SoftmaxTwice"}}
    result = train(recipe, out=tmp_path / "run")
    assert [f["check"] for f in result.summary["findings"]].count("probs-into-CE") == 1
    assert capsys.readouterr().err.count("error: doctor: probs-into-CE") == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The doctor found 1 error, to be mended before all else: probs-into-CE." in page
    same_runs(tmp_path / "run", tmp_path / "run")
