"""Runs: a complete folder, and a resume that nobody can tell from a run never stopped."""

import json
import os
import signal
import textwrap
import time

import numpy as np
import pytest
import torch
import warm
import yaml
from alike import StopAt, read_rows, same_runs

from brickyard.errors import RecipeError, RunError
from brickyard.report.facts import Facts
from brickyard.report.phrases import gap
from brickyard.runs import RunFolder
from brickyard.train import Recipe, resolve, resume, train
from brickyard.train.setup import build_setup

RECIPE = {
    "data": "digits",
    "model": {"name": "mlp", "hidden": [24], "dropout": {"name": "dropout", "p": 0.1}},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.05},
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "schedule": [{"name": "warmup", "steps": "10%"}, "cosine"],
    "clipping": {"name": "clip_by_global_norm", "max_norm": 1.0},
    "regularizers": [{"name": "early_stopping", "patience": 50}],
    "metrics": ["accuracy"],
    "budget": "3ep",
    "log_every": 7,
    "checkpoint_every": 11,
    "name": "try",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    return path, train(RECIPE, out=path)


def test_the_run_folder_is_complete(whole):
    path, result = whole
    names = {p.name for p in path.iterdir()}
    assert names == {"recipe.yaml", "environment.json", "metrics.jsonl", "checkpoints",
                     "evaluation.npz", "summary.json", "report.html", "groups.txt",
                     "findings.json"}  # fmt: skip
    assert {"last.pt", "best.pt", "manifest.json"} <= {
        p.name for p in (path / "checkpoints").iterdir()
    }
    recipe = yaml.safe_load((path / "recipe.yaml").read_text())
    assert resolve(recipe).recipe == resolve(RECIPE).recipe
    rows = read_rows(path)
    assert {row["split"] for row in rows} == {"train", "val"}
    assert [row["epoch"] for row in rows if row["split"] == "val"] == [1.0, 2.0, 3.0]
    assert {"loss", "lr", "grad_norm"} < set(rows[0])
    summary = json.loads((path / "summary.json").read_text())
    assert summary["exit_reason"] == "budget"
    assert summary["monitor"] == {"name": "accuracy", "mode": "max"}
    val = [row["accuracy"] for row in rows if row["split"] == "val"]
    assert summary["best"]["val"]["accuracy"] == max(val)
    assert summary["model"]["parameters"] == 64 * 24 + 24 + 24 * 10 + 10
    assert sum(summary["seconds"][k] for k in summary["seconds"] if k != "total") == pytest.approx(
        summary["seconds"]["total"], rel=0.01
    )
    environment = json.loads((path / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    evaluation = RunFolder(path).evaluation()
    accuracy = (evaluation["target"] == evaluation["prediction"]).mean()
    assert accuracy == pytest.approx(summary["best"]["val"]["accuracy"]), "from the best weights"
    assert len(evaluation["classes"]) == 10
    assert result.summary["steps"] == summary["steps"] == 69


def test_the_page_rests_on_training_metrics_and_tells_the_groups(whole):
    facts = Facts.read(whole[0])
    rows = [r for r in read_rows(whole[0]) if r["split"] == "train" and "accuracy" in r]
    assert facts.train_monitor == pytest.approx(
        next(r["accuracy"] for r in rows if r["epoch"] == facts.best_epoch)
    )
    assert gap(facts).startswith("On training batches (with dropout): ")
    page = (whole[0] / "report.html").read_text()
    assert "Optimizer: 2 parameter groups" in page
    assert "a bias" in page


def test_the_same_recipe_twice_is_the_same_run(whole, tmp_path):
    train(RECIPE, out=tmp_path / "again")
    same_runs(whole[0], tmp_path / "again")
    train({**RECIPE, "seed": 1}, out=tmp_path / "other")
    assert read_rows(whole[0]) != read_rows(tmp_path / "other")


@pytest.mark.parametrize("step", [1, 20, 23, 40, 60])
def test_stopped_and_resumed_is_bit_identical(whole, tmp_path, step):
    """In mid-epoch, at an epoch's end, between logged rows; twice over."""
    path = tmp_path / "run"
    first = train(RECIPE, out=path, progress=StopAt(step))
    assert first.summary["exit_reason"] == "interrupted"
    assert first.summary["steps"] < 69
    resume(path, progress=StopAt(step + 12))
    if step + 12 < 60:
        assert resume(path).summary["exit_reason"] == "budget"
    same_runs(whole[0], path)


def test_seeds_vary_the_training_and_split_seeds_the_data(tmp_path, monkeypatch):
    (tmp_path / "seeded.py").write_text("import numpy as np\ndef make():\n  return np.arange(20."
        ")[:, None].repeat(64, 1).astype('float32'), np.arange(20) % 2\n")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    for data in ("digits", {"target": "seeded:make"}):
        recipe = {**RECIPE, "data": data}
        usual, seed, split = (build_setup(resolve({**recipe, **changes})) for changes in
                              ({}, {"seed": 5}, {"split_seed": 5}))  # fmt: skip
        assert torch.equal(usual.data.val.x, seed.data.val.x)
        assert usual.data.facts["fingerprint"] == seed.data.facts["fingerprint"]
        assert not torch.equal(usual.data.val.x, split.data.val.x)
        weights = [next(s.parts.model.parameters()) for s in (usual, seed, split)]
        assert torch.equal(weights[0], weights[2])
        assert not torch.equal(weights[0], weights[1])
        orders = [next(iter(s.parts.train.epoch(0)))[0] for s in (usual, seed)]
        assert not torch.equal(*orders)


def test_a_run_from_before_there_was_a_split_seed_keeps_its_split(tmp_path):
    run = train({**RECIPE, "seed": 3, "split_seed": 3}, out=tmp_path / "run",
                progress=StopAt(3)).run  # fmt: skip
    path = run.path / "recipe.yaml"
    path.write_text(path.read_text().replace("split_seed: 3\n", ""))
    resume(run.path, progress=StopAt(5))


def test_a_finished_run_has_nothing_to_resume(whole):
    with pytest.raises(RunError, match=r"has ended \(budget\): nothing to resume"):
        resume(whole[0])


def test_resume_of_something_else(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        resume(tmp_path / "no")
    with pytest.raises(RunError, match="holds no run"):
        resume(tmp_path)


def test_a_used_folder_is_not_written_over(whole):
    with pytest.raises(RunError, match="is not empty"):
        train(RECIPE, out=whole[0])


SCRIPT = """
import json, sys
from brickyard.train import train, resume
if sys.argv[1] == "train":
    train(json.loads(sys.argv[3]), out=sys.argv[2])
else:
    resume(sys.argv[2])
"""


def _start(*words):
    return warm.start(["-c", SCRIPT, *words])


def _wait_for_checkpoint(process, path):
    while not (path / "checkpoints" / "manifest.json").exists():
        assert process.exitcode is None, "it ended before its first checkpoint"
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_and_resumed_is_bit_identical(tmp_path, number):
    long = {**RECIPE, "budget": "40ep", "checkpoint_every": 20, "threads": 1}
    path = tmp_path / "run"
    process = _start("train", path, json.dumps(long))
    _wait_for_checkpoint(process, path)
    time.sleep(0.05)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == (-number if number == signal.SIGKILL else 0)
    if number != signal.SIGKILL:
        assert RunFolder(path).summary()["exit_reason"] == "interrupted"
    if RunFolder(path).summary().get("exit_reason") != "budget":
        assert resume(path).summary["exit_reason"] == "budget"
    train(long, out=tmp_path / "whole")
    same_runs(tmp_path / "whole", path)


def test_a_run_that_another_process_trains_is_left_alone(tmp_path):
    path = tmp_path / "run"
    long = {**RECIPE, "budget": "4000ep", "checkpoint_every": 20, "threads": 1}
    process = _start("train", path, json.dumps(long))
    try:
        _wait_for_checkpoint(process, path)
        with pytest.raises(RunError, match="another process is training in"):
            resume(path)
        with pytest.raises(RunError, match="is not empty"):
            train(RECIPE, out=path)
    finally:
        process.kill()
        process.join(60)
    rows = len(read_rows(path))
    assert resume(path, progress=StopAt(1)).summary["exit_reason"] == "interrupted", "let go of"
    assert len(read_rows(path)) <= rows + 3, "nothing was written twice"


def test_changed_data_is_not_resumed(tmp_path, monkeypatch):
    module = tmp_path / "changing.py"
    module.write_text(
        textwrap.dedent("""
        import os, numpy as np
        def make():
            x = np.random.default_rng(int(os.environ["DATA_SEED"])).normal(size=(200, 3))
            return x.astype("float32"), x.sum(1).astype("float32")
    """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DATA_SEED", "1")
    recipe = {**RECIPE, "data": {"target": "changing:make"}, "loss": "mse", "metrics": ["r2"],
              "model": {"name": "mlp", "hidden": [4]}}  # fmt: skip
    train(recipe, out=tmp_path / "run", progress=StopAt(3))
    monkeypatch.setenv("DATA_SEED", "2")
    with pytest.raises(RunError, match="data has changed"):
        resume(tmp_path / "run")


def test_regression_metrics_are_in_the_users_units(tmp_path):
    recipe = {**RECIPE, "data": "diabetes", "loss": "mse", "budget": "10ep",
              "metrics": ["mean_absolute_error", "r2"]}  # fmt: skip
    result = train(recipe, out=tmp_path / "run")
    error = result.summary["final"]["val"]["mean_absolute_error"]
    assert 20 < error < 80, "diabetes targets go from 25 to 346"
    assert result.summary["monitor"] == {"name": "mean_absolute_error", "mode": "min"}
    evaluation = result.run.evaluation()
    assert evaluation["target"].mean() > 100


def test_bce_on_two_classes(tmp_path):
    recipe = {**RECIPE, "data": "breast_cancer", "loss": "bce", "metrics": ["accuracy", "auroc"]}
    result = train(recipe, out=tmp_path / "run")
    assert result.summary["best"]["val"]["accuracy"] > 0.9
    assert result.model(torch.zeros(1, 30)).shape == (1, 1)


MINE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, outputs, width: int = 8):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(input_shape[0], width), nn.Tanh(),
                                  nn.Linear(width, outputs))
    def forward(self, x):
        return self.body(x)

def loss(weight: float = 1.0):
    return lambda output, target: weight * nn.functional.cross_entropy(output, target)

class Penalty:
    def __init__(self, weight: float = 0.1):
        self.weight = weight
    def penalty(self, model):
        return self.weight * sum(p.abs().sum() for p in model.parameters())

class Cage:
    def after_step(self, model):
        with torch.no_grad():
            for p in model.parameters():
                p.clamp_(-0.05, 0.05)

class Double:
    def __call__(self, x, y, generator):
        return x * 2, y

def scheduled():
    from brickyard.schedules import constant
    return constant(0.5)
"""


def test_ones_own_parts_by_target(tmp_path, monkeypatch):
    (tmp_path / "parts.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = Recipe(
        data="digits", model={"target": "parts:Net", "width": 5}, loss={"target": "parts:loss"},
        regularizers=[{"target": "parts:Penalty", "weight": 0.01}, {"target": "parts:Cage"}],
        augmentation=[{"target": "parts:Double"}, {"target": "parts:Double"}],
        schedule=[{"target": "parts:scheduled"}], metrics=["accuracy"], budget=5,
        optimizer={"target": "torch.optim:SGD", "lr": 0.2},
    )  # fmt: skip
    result = train(recipe, out=tmp_path / "run")
    assert max(p.abs().max() for p in result.model.parameters()) <= 0.05
    assert result.model.body[0].out_features == 5
    assert result.run.metrics()[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"loss": "mse"}, "loss: mse takes values .*, and digits has 10 classes"),
     ({"data": "diabetes"}, "cross_entropy takes .* diabetes is a regression task"),
     ({"metrics": ["r2"]}, r"metrics.0: r2 is for regression, and digits is classification; take"),
     ({"monitor": "recall"}, "monitor: no metric is called 'recall'; there is loss, accuracy"),
     ({"regularizers": ["early_stopping"] * 2}, "regularizers.1: early stopping is given twice"),
     ({"regularizers": [{"name": "early_stopping", "monitor": "f2"}]}, "'f2', which is not meas"),
     ({"regularizers": [{"name": "early_stopping", "patience": 0}]}, "regularizers.0: patience"),
     ({"clipping": {"name": "clip_by_global_norm", "max_norm": -1}}, "clipping: max_norm must"),
     ({"optimizer": {"name": "adamw", "lr": -1.0}}, r"optimizer: .*-1"),
     ({"schedule": ["constant", "cosine"]}, "schedule.1: .*has no end"),
     ({"schedule": [{"name": "cosine", "total": "5 hours"}]}, "schedule.0: .*'5 hours'"),
     ({"device": "tpu9"}, "device: 'tpu9' cannot be used here"),
     ({"model": {"name": "mlp", "activation": "rellu"}}, "model: .*rellu"),
     ({"data": {"name": "digits", "val": 1.5}}, "data: .*1.5"), ({"workers": 2}, "workers: .*"),
     ({"loss": {"name": "cross_entropy", "label_smoothing": 1.5}}, "loss: .*1.5"),
     ({"regularizers": [{"target": "math:sin"}]}, "regularizers.0")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_training(change, says, tmp_path):
    with pytest.raises(RecipeError, match=says):
        train({**RECIPE, **change}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists(), "nothing half-written"


def test_a_run_that_fails_says_so_in_its_folder(tmp_path):
    with pytest.raises(RunError, match="the loss is"):
        train({**RECIPE, "optimizer": {"name": "sgd", "lr": 1e30}, "clipping": None},
              out=tmp_path / "run")  # fmt: skip
    summary = RunFolder(tmp_path / "run").summary()
    assert summary["exit_reason"] == "failed"
    assert "the loss is" in summary["error"]
    assert (tmp_path / "run" / "report.html").exists()


def test_precision_and_channels_last_change_the_run(tmp_path):
    base = {**RECIPE, "data": "digits", "budget": 5}
    plain = train(base, out=tmp_path / "a").run.metrics()
    half = train({**base, "precision": "bf16"}, out=tmp_path / "b").run.metrics()
    assert plain[0]["loss"] != half[0]["loss"]
    assert plain[0]["loss"] == pytest.approx(half[0]["loss"], rel=0.05)


def test_best_weights_are_what_a_run_ends_with(tmp_path):
    """Also when early stopping restores; and the last ones where it is told to keep them."""
    high = {**RECIPE, "optimizer": {"name": "sgd", "lr": 3.0}, "schedule": [], "budget": "12ep"}
    for restore in (True, False):
        recipe = {**high, "regularizers": [
            {"name": "early_stopping", "patience": 3, "restore_best": restore}]}  # fmt: skip
        result = train(recipe, out=tmp_path / str(restore))
        rows = [r["accuracy"] for r in result.run.metrics() if r["split"] == "val"]
        evaluation = result.run.evaluation()
        got = (evaluation["target"] == evaluation["prediction"]).mean()
        assert got == pytest.approx(max(rows) if restore else rows[-1])
    assert max(rows) != rows[-1], "the case tells the two apart"


def test_threads_are_set(tmp_path):
    before = torch.get_num_threads()
    try:
        train({**RECIPE, "budget": 4, "threads": 1}, out=tmp_path / "run")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("data", ["mnist5k", "digits"])
def test_worst_images_are_the_worst(data, tmp_path):
    """Also where samples are flat, and the data set says what pictures they are."""
    result = train({**RECIPE, "data": {"name": data, "val": 0.1}, "budget": 2},
                   out=tmp_path / "run")  # fmt: skip
    evaluation = result.run.evaluation()
    order = np.argsort(-evaluation["loss"], kind="stable")[: len(evaluation["worst_index"])]
    np.testing.assert_allclose(
        evaluation["loss"][evaluation["worst_index"]], evaluation["loss"][order]
    )
    side = {"mnist5k": 28, "digits": 8}[data]
    assert evaluation["worst_images"].shape[1:] == (side, side)
    assert evaluation["worst_images"].dtype == np.uint8
    assert os.environ.get("CI") or evaluation["worst_images"].max() == 255


def test_two_metrics_of_one_kind_have_columns_of_their_own(tmp_path):
    both = ["accuracy", {"name": "accuracy", "top_k": 3}]
    given = {**RECIPE, "metrics": both, "monitor": "accuracy_top_k_3", "budget": "1ep"}
    result = train(given, out=tmp_path / "run")
    assert result.summary["monitor"] == {"name": "accuracy_top_k_3", "mode": "max"}
    best = result.summary["best"]["val"]
    assert best["accuracy"] < best["accuracy_top_k_3"] <= 1
    assert "accuracy_top_k_3" in read_rows(tmp_path / "run")[-1]


def test_a_folder_in_use_is_refused_before_the_data_are_read(tmp_path, monkeypatch):
    (tmp_path / "kept.txt").write_text("mine", encoding="utf-8")
    monkeypatch.setattr("brickyard.train.session.build_setup", lambda *_: pytest.fail("too late"))
    with pytest.raises(RunError, match="is not empty"):
        train(RECIPE, out=tmp_path)
