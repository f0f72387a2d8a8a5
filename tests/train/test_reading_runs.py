"""Runs on data that cannot all be read, and in whose workers something happens."""

import gc
import json
import multiprocessing
import textwrap
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import warm
from torch import nn
from torch.utils.data import Dataset

from brickyard.errors import DataError, RecipeError
from brickyard.runs import RunFolder
from brickyard.train import resolve, resume, train
from brickyard.train.checkpoint import Checkpoints
from brickyard.train.looking import ladder
from brickyard.train.lr_range import lr_range_of
from brickyard.train.planning import measure
from brickyard.train.progress import ProgressLines

RECIPE = {
    "model": {"name": "mlp", "hidden": [4]}, "loss": "cross_entropy", "budget": "2ep",
    "batch_size": 10, "name": "try", "checkpoint_every": 3,
}  # fmt: skip


class Blobs(Dataset):
    """Give two classes; some samples cannot be read once training has begun, or never."""

    def __init__(self, n, bad=(), states=False):
        generator = torch.Generator().manual_seed(n)
        self.x = torch.randn(n, 3, generator=generator)
        self.labels = (self.x[:, 0] > 0).long()
        self.bad = set(bad)
        if states:
            self.targets = self.labels

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        if i in self.bad:
            raise OSError(f"sample {i} is gone")
        return self.x[i], int(self.labels[i])


def small():
    return Blobs(60, [7, 8]), Blobs(20, [3])


def large():
    """Too large to be read beforehand: what is bad is met while training."""
    return Blobs(2200, [11, 12, 13], states=True), Blobs(40, [30], states=True)


def first():
    """Too large to be read beforehand, and yet the samples that are looked at are bad."""
    return Blobs(2200, [0, 1100], states=True), Blobs(40, states=True)


def unlabelled():
    """Read beforehand whatever the size, since labels are in the samples alone."""
    return Blobs(2200, [0, 12]), Blobs(40)


class StopAt(ProgressLines):
    """Stop in the second epoch of batches of 100."""

    def boundary(self, loop):
        loop.stop_requested = loop.state.step >= 24


def recipe(make, **more):
    return {**RECIPE, "data": {"target": f"test_reading_runs:{make}"}, **more}


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_met_while_training_are_skipped_counted_and_told(tmp_path, capfd, workers):
    data = recipe("large", on_error="skip", workers=workers, batch_size=100)
    result = train(data, out=tmp_path / "whole")
    found = json.loads((tmp_path / "whole" / "summary.json").read_text())["unreadable"]
    assert set(found) == {"train 11", "train 12", "train 13", "val 30"}
    assert found["train 11"] == "OSError: sample 11 is gone"
    assert "4 samples could not be read and were skipped" in " ".join(
        capfd.readouterr().err.split()
    )
    train(data, out=tmp_path / "run", progress=StopAt())
    again = resume(tmp_path / "run")
    assert again.summary["unreadable"] == result.summary["unreadable"]
    for one in ("last", "best"):
        a, b = (
            Checkpoints(tmp_path / p / "checkpoints").load(one)["model"] for p in ("whole", "run")
        )
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_samples_met_beforehand_are_left_out_and_told(tmp_path, capfd):
    result = train(recipe("small", on_error="skip"), out=tmp_path / "run")
    assert result.summary["data"]["train"] == 58
    assert result.summary["data"]["val"] == 19
    assert set(result.summary["data"]["facts"]["unreadable"]) == {"train 7", "train 8", "val 3"}
    told = " ".join(capfd.readouterr().err.split())
    assert "3 samples could not be read and were skipped; the first: train 7 (OSError" in told


@pytest.mark.parametrize(("make", "bad"), [("first", 1100), ("unlabelled", 12)])
def test_the_samples_that_are_looked_at_first_may_be_skipped_too(tmp_path, make, bad):
    data = recipe(make, on_error="skip", batch_size=100)
    found = train(data, out=tmp_path / "run").summary["unreadable"]
    assert set(found) == {"train 0", f"train {bad}"}


@pytest.mark.parametrize("make", ["small", "first", "unlabelled"])
def test_a_sample_that_cannot_be_read_beforehand_is_named(tmp_path, make):
    with pytest.raises(RecipeError, match=r"sample [07] cannot be read \(OSError.* on_error: skip"):
        train(recipe(make), out=tmp_path / "run")


def test_without_the_option_a_sample_that_cannot_be_read_ends_the_run(tmp_path):
    with pytest.raises(DataError, match=r"sample 1[123] cannot be read .* on_error: skip"):
        train(recipe("large"), out=tmp_path / "run")
    assert RunFolder(tmp_path / "run").summary()["exit_reason"] == "failed"


def test_skipping_is_refused_where_nothing_is_read():
    with pytest.raises(RecipeError, match="on_error: skip has no effect"):
        train({**RECIPE, "data": "digits", "on_error": "skip"})


DEATH = """
import os, signal, sys, torch
from brickyard.train import train

class Deadly(torch.utils.data.Dataset):
    targets = torch.arange(2200) % 2
    def __len__(self):
        return 2200
    def __getitem__(self, i):
        if torch.utils.data.get_worker_info() is not None and i == 1000:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.ones(3) * i / 2200, int(self.targets[i])

class Sound(Deadly):
    def __getitem__(self, i):
        return torch.ones(3) * i / 2200, int(self.targets[i])

def data():
    return Deadly(), torch.utils.data.Subset(Sound(), range(40))

if __name__ == "__main__":
    recipe = {recipe}
    try:
        train({{**recipe, "data": {{"target": "__main__:data"}}, "workers": 2}}, out=sys.argv[1])
    finally:
        sys.stdout.flush()
"""


def test_a_killed_worker_ends_the_run_with_a_sentence_and_nothing_is_lost(tmp_path):
    script = tmp_path / "death.py"
    script.write_text(textwrap.dedent(DEATH).format(recipe=RECIPE))
    done = warm.run([script, tmp_path / "run"])
    assert done.returncode == 1
    summary = RunFolder(tmp_path / "run").summary()
    assert summary["exit_reason"] == "failed"
    assert "which reads data, was killed (SIGKILL)" in summary["error"]
    assert "take workers: 0" in done.stderr
    if summary["steps"] > 3:
        assert Checkpoints(tmp_path / "run" / "checkpoints").load("last")["step"] >= 3


def normed(input_shape, outputs):
    """Return a model whose averaged weights need statistics of their own."""
    return nn.Sequential(
        nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs)
    )


def test_statistics_are_measured_in_mid_epoch_beside_the_workers(tmp_path, monkeypatch):
    """The average's pass over the training data must not take batches from the epoch under way."""
    monkeypatch.setattr("brickyard.train.data.batching.spare_core", lambda accelerator: True)
    rows = []
    for workers in (0, 2):
        one = recipe(
            "large", on_error="skip", workers=workers, batch_size=100, evaluate_every=7,
            model={"target": "test_reading_runs:normed"}, log_every=1,
            augmentation=["gaussian_noise"],
            regularizers=[{"name": "swa", "start": 5, "every": 2}],
        )  # fmt: skip
        rows.append(train(one, out=tmp_path / str(workers)).run.metrics())
    assert rows[0] == rows[1]
    assert len([row for row in rows[0] if row["split"] == "val"]) > 5


class FailsAt(ProgressLines):
    """Fail in the second epoch, as a logger of the user's might."""

    def boundary(self, loop):
        if loop.state.step == 24:
            raise OSError("no room")


@pytest.mark.parametrize("how", ["ends", "stops", "fails"])
def test_no_worker_outlives_its_run(tmp_path, how):
    gc.collect()  # those of other tests
    others = set(multiprocessing.active_children())
    seen = []

    class Looks({"ends": ProgressLines, "stops": StopAt, "fails": FailsAt}[how]):
        def boundary(self, loop):
            seen.append(len(set(multiprocessing.active_children()) - others))
            super().boundary(loop)

    one = recipe("large", on_error="skip", workers=2, batch_size=100)
    with pytest.raises(OSError, match="no room") if how == "fails" else nullcontext():
        train(one, out=tmp_path / "run", progress=Looks())
    assert max(seen) >= 2
    assert set(multiprocessing.active_children()) <= others
    if how == "stops":
        resume(tmp_path / "run")
        assert set(multiprocessing.active_children()) <= others


SIGNALLED = """
import os, subprocess, sys, time
sys.path.insert(0, {folder!r})
from test_reading_runs import ProgressLines, recipe
from brickyard.train import train

class Asked(ProgressLines):
    def boundary(self, loop):
        if loop.state.step >= 13:
            group = str(-os.getpgid(0))  # by another process: workers heed their parent's quietly
            subprocess.run(["kill", "-TERM", "--", group], start_new_session=True)
            time.sleep(0.5)

os.setpgid(0, 0)  # as a shell, timeout or torchrun start it: what they signal is the whole group
one = recipe("large", on_error="skip", workers=2, batch_size=100)
print(train(one, out={out!r}, progress=Asked()).summary["exit_reason"])
"""


def test_a_signal_to_the_whole_group_stops_the_run_and_not_its_workers(tmp_path):
    script = tmp_path / "signalled.py"
    folder = str(Path(__file__).parent)
    script.write_text(SIGNALLED.format(folder=folder, out=str(tmp_path / "run")))
    done = warm.run([script])
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    assert Checkpoints(tmp_path / "run" / "checkpoints").load("last")["step"] >= 13


@pytest.mark.parametrize("what", [lr_range_of, measure, ladder])
def test_no_worker_outlives_a_question(what):
    gc.collect()  # those of other tests
    others = set(multiprocessing.active_children())
    what(resolve(recipe("large", on_error="skip", workers=2, batch_size=100)))
    assert set(multiprocessing.active_children()) <= others


def test_batches_made_ahead_change_nothing(tmp_path, monkeypatch):
    """Augmentation in the thread or in the loop, stopped and resumed: the same weights."""
    monkeypatch.setattr("brickyard.train.data.batching.spare_core", lambda accelerator: True)
    made = []
    for name, prefetch in (("ahead", 3), ("none", 0)):
        many = ["gaussian_noise", {"name": "manifold_mixup", "alpha": 0.4}]
        one = {**RECIPE, "data": "digits", "augmentation": many, "prefetch": prefetch,
               "batch_size": 100}  # fmt: skip
        path = tmp_path / name
        if prefetch:
            train(one, out=path, progress=StopAt())
            resume(path)
        else:
            train(one, out=path)
        made.append(Checkpoints(path / "checkpoints").load("last")["model"])
    assert all(torch.equal(made[0][k], made[1][k]) for k in made[0])
