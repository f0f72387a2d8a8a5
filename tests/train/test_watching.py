"""The doctor inside a run: it finds what is wrong, keeps silent otherwise, and changes nothing."""

import json

import numpy as np
import pytest
import torch
from alike import StopAt, read_rows, same_runs
from torch import nn

from brickyard.cli.train import _close
from brickyard.report.facts import Facts
from brickyard.report.verdict import judge
from brickyard.runs import RunFolder
from brickyard.train import resume, train
from brickyard.train.watching import Watching

RECIPE = {
    "data": "digits",
    "model": {"name": "mlp", "hidden": [16], "dropout": {"name": "dropout", "p": 0.1}},
    "loss": "cross_entropy",
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "metrics": ["accuracy"],
    "budget": 12,
    "log_every": 4,
    "name": "watched",
}


class HalfFrozen(nn.Module):
    """Cut the graph between two layers that the optimizer both holds."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)).detach())


class SoftmaxTwice(nn.Module):
    """Squash within the loss, where the check of the model's output cannot see it."""

    def forward(self, output, target):
        return nn.functional.cross_entropy(output.softmax(-1), target)


class Detached(nn.Module):
    """Give a loss that is a leaf: nothing behind it learns."""

    def forward(self, output, target):
        return nn.functional.cross_entropy(output, target).detach().requires_grad_()


BUGS = {
    "probabilities into a loss of logits": ({"loss": {"target": f"{__name__}:SoftmaxTwice"}},
                                            "probs-into-CE", "error"),
    "a part that gets no gradient": ({"model": {"target": f"{__name__}:HalfFrozen"}},
                                     "grad-none-params", "info"),  # encoders run so on purpose
    "a loss without a history": ({"loss": {"target": f"{__name__}:Detached"}},
                                 "loss-detached", "error"),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_bugs_of_own_parts_stand_in_the_folder_and_on_the_page(bug, tmp_path, capsys):
    change, check, severity = BUGS[bug]
    result = train({**RECIPE, **change}, out=tmp_path / "run")
    written = json.loads((tmp_path / "run" / "findings.json").read_text())
    found = [f for f in written["findings"] if f["check"] == check]
    assert found
    assert found[0]["severity"] == severity
    assert written["steps"] == 4
    assert found[0] in result.summary["findings"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What the doctor found" in page
    assert check in page
    lines = capsys.readouterr().err
    assert (f"{severity}: doctor: {check}" in lines) == (severity != "info")


def test_doctor_false_looks_at_nothing(tmp_path):
    change, _, _ = BUGS["probabilities into a loss of logits"]
    result = train({**RECIPE, **change, "doctor": False}, out=tmp_path / "run")
    assert result.summary["findings"] == []
    assert not (tmp_path / "run" / "findings.json").exists()
    assert "What the doctor found" not in (tmp_path / "run" / "report.html").read_text()


def test_watched_and_unwatched_are_the_same_run_and_a_healthy_one_has_no_finding(tmp_path):
    watched = train(RECIPE, out=tmp_path / "a")
    plain = train({**RECIPE, "doctor": False}, out=tmp_path / "b")
    assert RunFolder(tmp_path / "a").findings()["findings"] == []
    assert "What the doctor found" not in (tmp_path / "a" / "report.html").read_text()
    assert read_rows(tmp_path / "a") == read_rows(tmp_path / "b")
    for one, other in zip(watched.model.state_dict().values(), plain.model.state_dict().values(),
                          strict=True):  # fmt: skip
        assert torch.equal(one, other)
    a, b = (RunFolder(tmp_path / n).evaluation() for n in "ab")
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_findings_survive_a_resume_which_is_not_watched_again(tmp_path):
    change, _, _ = BUGS["a part that gets no gradient"]
    recipe = {**RECIPE, **change}
    whole = train(recipe, out=tmp_path / "whole")
    train(recipe, out=tmp_path / "run", progress=StopAt(8))
    again = resume(tmp_path / "run")
    assert again.summary["findings"] == whole.summary["findings"]
    same_runs(tmp_path / "whole", tmp_path / "run")


def test_the_command_ends_with_the_verdict_and_what_to_try_next(tmp_path, capsys):
    result = train(RECIPE, out=tmp_path / "run")
    verdict = judge(Facts.read(tmp_path / "run"))
    _close(result)
    lines = capsys.readouterr().out.splitlines()
    assert f"{verdict.label.lower()}: {verdict.sentence}" in lines
    assert f"next: {verdict.advice}" in lines


def test_an_error_of_the_doctor_ends_no_run(tmp_path, monkeypatch):
    def broken(self):
        raise RuntimeError("of the doctor's own")

    monkeypatch.setattr(Watching, "_open", broken)
    assert train(RECIPE, out=tmp_path / "run").summary["exit_reason"] == "budget"
