"""Loggers: every row arrives once, through kills and resumes, and none costs the run."""

import csv
import importlib.util
import json
from contextlib import suppress
from typing import ClassVar

import pytest

from brickyard.errors import RecipeError
from brickyard.runs import MetricsWriter, RunFolder
from brickyard.train import resume, train
from brickyard.train.loggers import CsvLog, JsonlLog, Logger, Rows, RunFacts, check_logger
from brickyard.train.loggers.tensorboard import TensorBoard
from brickyard.train.progress import ProgressLines

RECIPE = {
    "data": "digits", "model": {"name": "mlp", "hidden": [8]}, "loss": "cross_entropy",
    "metrics": ["accuracy"], "budget": "3ep", "log_every": 5, "checkpoint_every": 12, "name": "try",
}  # fmt: skip


class Killed(BaseException):
    """End the process's work without its leave."""


class KillAt(ProgressLines):
    """Die after a step's rows are logged, and before the checkpoint after it."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def logged(self, loop, values):
        if loop.state.step == self.step:
            raise Killed


class Spy(Logger):
    """Remember everything; fail where asked."""

    made: ClassVar[list] = []

    def __init__(self, fails=""):
        self.fails, self.heard = fails, []
        Spy.made.append(self)

    def _hear(self, what, *rest):
        self.heard.append((what, *rest))
        if what == self.fails:
            raise OSError("no route to host\nat all")

    def start(self, run):
        self._hear("start", run)

    def row(self, step, epoch, split, values):
        self._hear("row", step, epoch, split, dict(values))

    def flush(self):
        self._hear("flush")

    def close(self, summary):
        self._hear("close", summary)


def spy(fails=""):
    return Spy(fails)


def rows_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def figures(path):
    """Return {(name/split, step): value} of metrics.jsonl."""
    return {
        (f"{name}/{row['split']}", row["step"]): value
        for row in rows_of(path) for name, value in row.items()
        if name not in ("step", "epoch", "split")
    }  # fmt: skip


def killed_and_resumed(path, loggers):
    with suppress(Killed):
        train({**RECIPE, "loggers": loggers}, out=path, progress=KillAt(30))
    (path / "summary.json").unlink(missing_ok=True)  # a kill leaves none
    resume(path)
    assert [r["step"] for r in rows_of(path) if r["split"] == "train" and "lr" in r][-1] == 69


def test_a_killed_run_has_every_row_once_in_a_table(tmp_path):
    killed_and_resumed(tmp_path / "run", ["csv_log", {"name": "csv_log", "path": "sub/more.csv"}])
    wanted = rows_of(tmp_path / "run")
    for name in ("metrics.csv", "sub/more.csv"):
        with open(tmp_path / "run" / name, newline="") as file:
            found = list(csv.DictReader(file))
        kept = [{k: v for k, v in row.items() if v} for row in found]
        assert kept == [{k: str(v) for k, v in row.items()} for row in wanted]


def test_a_killed_run_has_every_row_once_among_lines_that_runs_share(tmp_path):
    path = tmp_path / "all" / "rows.jsonl"
    loggers = [{"name": "jsonl_log", "path": str(path)}]
    train({**RECIPE, "loggers": loggers, "seed": 1}, out=tmp_path / "other")
    with open(path, "a") as file:
        file.write('{"torn": ')
    killed_and_resumed(tmp_path / "run", loggers)
    found = []
    for line in path.read_text().splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    for run in ("other", "run"):
        mine = [row for row in found if row["run"] == str(tmp_path / run)]
        assert all(row["time"] > 1e9 for row in mine)
        bare = [{k: v for k, v in row.items() if k not in ("run", "time")} for row in mine]
        assert bare == rows_of(tmp_path / run)


def test_a_killed_run_has_every_point_once_in_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed_and_resumed(
        tmp_path / "run", ["tensorboard", {"name": "tensorboard", "folder": str(tmp_path / "tb")}]
    )
    wanted = figures(tmp_path / "run")
    for folder in (tmp_path / "run" / "tensorboard", tmp_path / "tb"):
        events = EventAccumulator(str(folder))
        events.Reload()
        found = [((tag, e.step), e.value) for tag in events.Tags()["scalars"]
                 for e in events.Scalars(tag)]  # fmt: skip
        assert len(found) == len(dict(found)) == len(wanted)
        assert dict(found) == pytest.approx(wanted, rel=1e-6)
        text = events.Tensors("recipe/text_summary")
        assert len(text) == 1
        assert b"log_every: 5" in text[0].tensor_proto.string_val[0]


def test_a_killed_run_has_every_point_once_in_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    loggers = ["mlflow"]
    killed_and_resumed(tmp_path / "run", loggers)
    monkeypatch.chdir(tmp_path.parent)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    second = {**RECIPE, "budget": 7, "loggers": [
        {"name": "mlflow", "uri": uri, "experiment": "others"}]}  # fmt: skip
    train(second, out=tmp_path / "second")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    for experiment, path in (("try", tmp_path / "run"), ("others", tmp_path / "second")):
        place = client.get_experiment_by_name(experiment).experiment_id
        (run,) = client.search_runs([place])
        found = [((name, m.step), m.value) for name in run.data.metrics
                 for m in client.get_metric_history(run.info.run_id, name)]  # fmt: skip
        wanted = figures(path)
        assert len(found) == len(dict(found)) == len(wanted)
        assert dict(found) == pytest.approx(wanted, rel=1e-7)
        assert run.info.status == "FINISHED"
        assert run.data.params["optimizer.name"] == "adamw"
        assert run.data.params["model.hidden.0"] == "8"
        best = json.loads((path / "summary.json").read_text())["best"]
        assert run.data.tags["best_accuracy"] == str(best["val"]["accuracy"])
        assert run.data.tags["exit_reason"] == "budget"
        assert run.data.tags["run_folder"] == str(path)


def test_a_logger_of_ones_own_hears_everything_in_order(tmp_path):
    Spy.made.clear()
    train({**RECIPE, "loggers": [{"target": "test_loggers:spy"}]}, out=tmp_path / "run")
    heard = Spy.made[-1].heard
    assert heard[0][1].folder == tmp_path / "run"
    assert heard[0][1].recipe["log_every"] == 5
    assert heard[-1][1]["exit_reason"] == "budget"
    got = [{"step": s, "epoch": round(e, 4), "split": split, **values}
           for what, s, e, split, values in (h for h in heard if h[0] == "row")]  # fmt: skip
    assert [row["step"] for row in got] == [row["step"] for row in rows_of(tmp_path / "run")]
    assert got[0]["loss"] == pytest.approx(rows_of(tmp_path / "run")[0]["loss"])
    assert [h[0] for h in heard].count("flush") >= 69 // 12, "checkpoints flush"


@pytest.mark.parametrize("method", ["start", "row", "flush", "close"])
def test_a_logger_that_fails_is_named_and_the_run_goes_on(tmp_path, capfd, method):
    Spy.made.clear()
    loggers = [{"target": "test_loggers:spy", "fails": method}, {"target": "test_loggers:spy"}]
    result = train({**RECIPE, "budget": "1ep", "loggers": loggers}, out=tmp_path / "run")
    assert result.summary["exit_reason"] == "budget"
    told = " ".join(capfd.readouterr().err.split())
    assert told.count("test_loggers:spy failed in") == 1, "once"
    assert f"failed in {method}() and gets no more rows (OSError: no route to host)" in told
    failed, sound = Spy.made[-2:]
    assert failed.heard[-1][0] == method, "nothing after it failed"
    assert sound.heard[-1][0] == "close"


def test_a_logger_lacks_a_method_or_a_package(monkeypatch):
    with pytest.raises(TypeError, match=r"lacks start, row, flush, close: derive it from"):
        check_logger(object())
    with pytest.raises(TypeError, match="it is a class"):
        check_logger(Spy)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"needs tensorboard.*pip install 'brickyard\[track\]'"):
        train({**RECIPE, "loggers": ["tensorboard"]})


@pytest.mark.parametrize(
    ("logger", "what"),
    [
        ({"name": "csv_log", "path": ""}, "path must be the name of a file"),
        ({"name": "tensorboard", "flush_seconds": 0}, "flush_seconds must be above 0"),
        ({"name": "csv_log", "file": "x"}, "file"),
        ("wandb", "no logger is called 'wandb'"),
    ],
)
def test_a_wrong_option_is_refused_before_there_is_a_run(tmp_path, logger, what):
    with pytest.raises(RecipeError, match=what):
        train({**RECIPE, "loggers": [logger]}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_points_wait_no_longer_for_the_disk_than_asked(tmp_path, monkeypatch):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    given = {}
    monkeypatch.setattr(
        tensorboard, "SummaryWriter", lambda folder, **options: given.update(options) or Spy()
    )
    with suppress(AttributeError):  # Spy has no add_text
        TensorBoard(flush_seconds=7).start(RunFacts(tmp_path, "x", {}))
    assert given["flush_secs"] == 7


def test_a_row_torn_by_a_kill_is_dropped_from_a_table(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,epoch,split,loss\n10,0.5,train,2.0\n20,1.0,tr")
    log = CsvLog()
    log.start(RunFacts(tmp_path, "x", {}, step=15))
    log.row(20, 1.0, "train", {"loss": float("nan"), "new": 1.0})
    log.close({})
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,epoch,split,loss,new", "10,0.5,train,2.0,", "20,1.0,train,nan,1.0",
    ]  # fmt: skip


def test_the_folders_own_rows_may_fail_but_loggers_are_flushed_first(tmp_path):
    class Full(MetricsWriter):
        def flush(self, sync=False):
            raise OSError("disk full")

        def close(self):
            self._file.close()

    log, told = Spy(), []
    rows = Rows(Full(RunFolder(tmp_path)), [("spy", log)], RunFacts(tmp_path, "x", {}), told.append)
    with pytest.raises(OSError, match="disk full"):
        rows.flush()
    assert log.heard[-1] == ("flush",)
    rows.close()
    assert not told
    assert JsonlLog().path.name == "runs.jsonl"
