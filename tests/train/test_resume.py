"""Runs that are killed, damaged or out of room: what they resume to, what they say, what stays."""

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import warm

from brickyard.cli import main
from brickyard.errors import RecipeError, RunError
from brickyard.runs import RunFolder
from brickyard.train import checkpoint as checkpoint_module
from brickyard.train import resolve, resume, train
from brickyard.train.checkpoint import Checkpoints
from brickyard.train.progress import ProgressLines
from brickyard.train.setup import build_setup

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from kill_resume import BASE, CONFIGS, compare  # noqa: E402

MORE = {
    "swa": {"regularizers": [{"name": "swa", "start": "50%", "every": 5}]},
    "manifold_mixup": {"augmentation": ["manifold_mixup"]},
    "snapshots": {"schedule": ["cosine"], "regularizers": [
        {"name": "snapshot_ensemble", "at": "2ep"}]},
}  # fmt: skip
#: Of runs that wait until nothing improves, or gather batches for a step; 4 epochs do for others.
BUDGETS = {"plateau": "8ep", "stopping": "40ep", "accumulation": "10ep"}


class Asked(ProgressLines):
    """Ask for a stop after some steps, and keep what is printed."""

    def __init__(self, step=10**9):
        super().__init__()
        self.stop_at, self.said = step, []
        self.console.print = lambda *words, **_: self.said.append(" ".join(map(str, words)))

    def boundary(self, loop):
        if loop.state.step >= self.stop_at:
            loop.stop_requested = True

    @property
    def warnings(self):
        return [line for line in self.said if line.startswith("warning")]


def _scramble():
    torch.manual_seed(987)
    np.random.seed(987)


@pytest.mark.parametrize("name", [*CONFIGS, *MORE])
def test_22_a_resume_in_mid_epoch_is_exact(tmp_path, name):
    """Data position, random numbers, averages, plateau and stopping; two workers, too.

    Logged every 4 steps, evaluated every 9, saved every 7, so that a stop lies between all of them.
    """
    recipe = {**BASE, **CONFIGS.get(name, {}), **MORE.get(name, {})}
    recipe["budget"] = BUDGETS.get(name, "4ep")
    train(recipe, out=tmp_path / "whole", progress=Asked())
    path = tmp_path / "cut"
    steps = RunFolder(tmp_path / "whole").summary()["steps"]
    train(recipe, out=path, progress=Asked(steps // 3 + 1))
    for share in (0.5, 0.8):
        _scramble()
        resume(path, progress=Asked(int(share * steps)))
    _scramble()
    resume(path, progress=Asked())
    assert compare(tmp_path / "whole", path) == []


def test_22_what_ends_a_run_is_not_forgotten_by_a_kill(tmp_path, monkeypatch):
    """Killed after early stopping was decided and before it was written down."""
    recipe = {**BASE, **CONFIGS["stopping"]}
    whole = train(recipe, out=tmp_path / "whole", progress=Asked())
    assert whole.summary["exit_reason"] == "early_stop"
    path = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr("brickyard.train.session.Session._finish", _die)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=path, progress=Asked())
    assert not (path / "summary.json").exists()
    assert resume(path, progress=Asked()).summary["exit_reason"] == "early_stop"
    assert compare(tmp_path / "whole", path) == []


def _die(session, *args, **options):
    session.writer.close()
    raise KeyboardInterrupt


def test_killed_before_the_first_checkpoint_a_run_begins_anew(tmp_path, monkeypatch):
    recipe = {**BASE, "budget": "2ep"}
    train(recipe, out=tmp_path / "whole", progress=Asked())
    path = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr("brickyard.train.session.Session._finish", _die)
        patch.setattr("brickyard.train.keeping.Keeper.save", _die)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=path, progress=Asked())
    assert (path / "metrics.jsonl").read_text(), "rows that must not stand there twice"
    _scramble()
    resume(path, progress=Asked())
    assert compare(tmp_path / "whole", path) == []


@pytest.mark.parametrize("regularizers", [[], [{"name": "ema", "decay": 0.5}]])
def test_23_the_weights_that_were_judged_best_are_kept_and_returned(tmp_path, regularizers):
    """Of averages the averaged ones: evaluated, saved, loaded and returned are the same weights."""
    recipe = {**BASE, "regularizers": regularizers, "optimizer": {"name": "sgd", "lr": 4.0},
              "schedule": [], "clipping": None}  # fmt: skip
    result = train(recipe, out=tmp_path / "run", progress=Asked())
    values = [r["accuracy"] for r in result.run.metrics() if r["split"] == "val"]
    best = result.summary["best"]
    assert best["val"]["accuracy"] == pytest.approx(max(values), abs=1e-7)
    assert values[-1] < max(values), "the last weights are not the best ones"
    fresh = build_setup(resolve(recipe))
    checkpoints = Checkpoints(result.run.checkpoints)
    fresh.parts.model.load_state_dict(checkpoints.load("best")["model"])
    again = fresh.evaluator.run(fresh.parts.model)
    assert again == pytest.approx(best["val"], abs=1e-7)
    assert fresh.evaluator.run(result.model) == again
    if regularizers:
        raw = [r["accuracy"] for r in result.run.metrics() if r["split"] == "raw"]
        assert raw != values, "the two kinds of weights are told apart"
    second = Checkpoints(result.run.checkpoints).load("best-2")
    fresh.parts.model.load_state_dict(second["model"])
    assert fresh.evaluator.run(fresh.parts.model)["accuracy"] == pytest.approx(second["value"])


# Recipes say what stays.


def test_keep_in_a_recipe_decides_what_stays(tmp_path):
    recipe = {**BASE, "budget": 60, "checkpoint_every": 7,
              "keep": {"last": 3, "best": 4, "every": "1ep"}}  # fmt: skip
    run = train(recipe, out=tmp_path / "run", progress=Asked()).run
    entries = Checkpoints(run.checkpoints).entries()
    steps = {role: entry.step for role, entry in entries.items()}
    assert [steps.pop(r) for r in ("last", "previous", "previous-2")] == [60, 56, 49]
    assert [steps.pop(f"step-{n}") for n in (20, 40, 60)] == [20, 40, 60], "an epoch has 20 steps"
    rows = {r["step"]: r["accuracy"] for r in run.metrics() if r["split"] == "val"}
    ranked = sorted(rows, key=lambda step: (-rows[step], step))[:4]
    assert list(steps.values()) == ranked
    assert all(entries[role].metric == "accuracy" for role in steps)
    assert [entries[role].value for role in steps] == pytest.approx([rows[s] for s in ranked])
    plain = train({**BASE, "budget": 20, "keep": {}}, out=tmp_path / "plain", progress=Asked()).run
    assert set(Checkpoints(plain.checkpoints).entries()) == {"last", "previous", "best"}


@pytest.mark.parametrize(
    ("keep", "says"),
    [({"lats": 2}, "keep.lats: no field is called 'lats'; did you mean 'last'"),
     ({"last": 0}, "keep.last: .*greater than or equal to 1.*got 0"),
     ({"best": 0}, "keep.best: .*greater than or equal to 1"),
     ({"best": 2.5}, "keep.best: .*integer.*got 2.5"),
     ({"every": "5 hours"}, r"keep.every: give a number of steps \(2000\) or epochs .*'5 hours'"),
     ({"every": "30s"}, "keep.every: give a number of steps"),
     (3, "keep: give any of last, best, every, such as .*got 3")],
)  # fmt: skip
def test_keep_is_checked_at_the_door(keep, says):
    with pytest.raises(RecipeError, match=says):
        resolve({**BASE, "keep": keep})


# Damage.


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    train(BASE, out=folder / "whole", progress=Asked())
    return folder / "whole"


def _stopped(tmp_path, step=60):
    train(BASE, out=tmp_path / "run", progress=Asked(step))
    return tmp_path / "run"


@pytest.mark.parametrize("role", ["last", "best", "both", "manifest", "manifest gone"])
def test_a_damaged_checkpoint_costs_steps_and_nothing_else(tmp_path, cut, role):
    path = _stopped(tmp_path)
    folder = path / "checkpoints"
    entries = Checkpoints(folder).entries()
    for name in {"both": ("last", "best")}.get(role, (role,)):
        if name in entries:
            file = folder / entries[name].file
            file.write_bytes(file.read_bytes()[:-200])
        elif name == "manifest":
            (folder / "manifest.json").write_text("{")
        else:
            (folder / "manifest.json").unlink()
    shown = Asked()
    resume(path, progress=shown)
    name = (
        "manifest.json" if "manifest" in role else entries["last" if role == "both" else role].file
    )
    assert any(name in line for line in shown.warnings)
    assert compare(cut, path) == [], "what was lost is trained again"


def test_best_weights_that_are_lost_for_good_are_told(tmp_path):
    """Damaged after the last evaluation: nothing can bring them back."""
    path = _stopped(tmp_path, 155)
    for file in (path / "checkpoints").glob("best-0*.pt"):
        file.write_bytes(b"")
    shown = Asked()
    recipe = {**json.loads(json.dumps(RunFolder(path).recipe())), "evaluate_every": 10**6}
    RunFolder(path).write_recipe(recipe)
    result = resume(path, progress=shown)
    assert any("best-0" in line and "is damaged" in line for line in shown.warnings)
    assert result.summary["exit_reason"] == "budget"


def test_a_changed_recipe_is_not_resumed_silently(tmp_path):
    path = _stopped(tmp_path, 30)
    recipe = RunFolder(path).recipe()
    recipe["schedule"] = [{"name": "reduce_on_plateau"}]
    RunFolder(path).write_recipe(recipe)
    with pytest.raises(RunError, match=r"does not fit the recipe.*was recipe.yaml changed"):
        resume(path, progress=Asked())


def test_a_recipe_that_was_broken_is_told(tmp_path):
    path = _stopped(tmp_path, 30)
    file = path / "recipe.yaml"
    text = file.read_text()
    for broken, kind, says in (
        (f"{text}budgett: 3\n", RecipeError, r"recipe\.yaml: budgett: .*did you mean 'budget'"),
        (f"{text}a: [", RunError, "not readable YAML"),
        ("", RunError, "holds no recipe"),
    ):
        file.write_text(broken)
        with pytest.raises(kind, match=says):
            resume(path, progress=Asked())


# No room.


class _Full:
    """A disk without room for checkpoints for a while."""

    def __init__(self, monkeypatch, fails):
        self.plain, self.calls, self.fails = checkpoint_module._Hashing.write, 0, fails
        monkeypatch.setattr(checkpoint_module._Hashing, "write", lambda one, data: self(one, data))

    def __call__(self, one, data):
        self.calls += 1
        if self.fails(self.calls):
            one.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise one.error
        return self.plain(one, data)


def test_a_full_disk_on_the_way_is_told_and_training_goes_on(tmp_path, cut, monkeypatch):
    shown = Asked()
    _Full(monkeypatch, lambda call: 40 < call < 44)
    result = train(BASE, out=tmp_path / "run", progress=shown)
    assert result.summary["exit_reason"] == "budget"
    first, last = shown.warnings
    assert "No space left on device" in first
    assert "already there are intact; training goes on, and the next checkpoint is tried" in first
    assert "checkpoints are written again" in last
    found = compare(cut, tmp_path / "run")
    assert found in ([], ["manifest"]), "at most a checkpoint that was to stay is missing"


def test_a_full_disk_at_the_start_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunFolder, "write_recipe", full)
    with pytest.raises(RunError, match=r"cannot write into the run folder .*No space left"):
        train(BASE, out=tmp_path / "run", progress=Asked())


def test_a_full_disk_at_the_end_is_an_error_and_the_run_can_be_resumed(
    tmp_path, cut, monkeypatch, capsys
):
    path = tmp_path / "run"
    recipe = tmp_path / "recipe.yaml"
    import yaml

    recipe.write_text(yaml.safe_dump(BASE))
    with monkeypatch.context() as patch:
        _Full(patch, lambda call: call > 200)
        code = main(["train", str(recipe), "--out", str(path)])
    said = capsys.readouterr().err
    assert code == 2
    assert "No space left on device; the checkpoints already there are intact" in said
    assert RunFolder(path).summary()["exit_reason"] == "failed"
    saved = Checkpoints(path / "checkpoints").load_last()[0]["step"]
    assert 0 < saved < 160
    assert main(["resume", str(path)]) == 0
    assert compare(cut, path) == []


def test_rows_that_cannot_be_written_are_written_later(tmp_path, cut, monkeypatch):
    import brickyard.runs as runs

    plain, calls = runs.MetricsWriter.flush, []

    def flush(self, sync=False):
        calls.append(sync)
        if 3 < len(calls) < 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(self, sync)

    monkeypatch.setattr(runs.MetricsWriter, "flush", flush)
    shown = Asked()
    train(BASE, out=tmp_path / "run", progress=shown)
    assert "no checkpoint is written without it" in shown.warnings[0]
    assert compare(cut, tmp_path / "run") in ([], ["manifest"])


def test_a_read_only_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make the run folder"):
        train({**BASE, "budget": "1ep"}, out=tmp_path / "file" / "run", progress=Asked())
    path = _stopped(tmp_path, 20)
    before = {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}
    path.chmod(0o555)
    for folder in path.parents:
        if folder.name.startswith(("test_", "popen", "pytest")):
            folder.chmod(0o755)
    root = os.geteuid() == 0  # whom modes do not bind
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(RunError, match=r"cannot write .*metrics.jsonl: Permission denied"):
            resume(path, progress=Asked())
    finally:
        if root:
            os.seteuid(0)
        path.chmod(0o755)
    assert {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()} == before
    assert resume(path, progress=Asked(30)).summary["steps"] >= 30


def test_workers_of_a_killed_run_do_not_keep_its_folder(tmp_path):
    """Forked children inherit the lock; they must let go of it."""
    run = RunFolder.create("run", tmp_path / "run")
    ready, say = os.pipe()
    with run.held():
        child = os.fork()
        if child == 0:
            os.write(say, b"x")
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
    try:
        with run.held():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_killed_at_random_moments_and_resumed():
    """A handful here; `benchmarks/kill_resume.py` kills 30 times in each configuration."""
    command = ["benchmarks/kill_resume.py", "--kills", "4", "--seed", "7",
               "--budget", "4ep", "--only", "fp16", "together"]  # fmt: skip
    done = warm.run(command, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.endswith("identical")]
    assert len(rows) == 2, done.stdout
