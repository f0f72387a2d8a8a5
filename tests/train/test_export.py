"""Exports: files that stand for themselves, read back, compared, and whole or not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from brickyard.cli import main
from brickyard.errors import RunError
from brickyard.runs import RunFolder
from brickyard.train import export, export_run, load_exported, train
from brickyard.train.checkpoint import Checkpoints
from brickyard.train.progress import ProgressLines

RECIPE = {
    "data": "digits",
    "model": {"name": "mlp", "hidden": [16], "dropout": {"name": "dropout", "p": 0.5}},
    "loss": "cross_entropy", "metrics": ["accuracy"], "budget": "4ep", "name": "small",
    "regularizers": [{"name": "ema", "decay": 0.9}], "threads": 1,
}  # fmt: skip


class Silent(ProgressLines):
    def evaluated(self, loop, values, best):
        pass


def _train(folder, **changes):
    return train({**RECIPE, **changes}, out=folder, progress=Silent())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    return _train(folder)


@pytest.fixture(scope="module")
def exported(run):
    return export_run(run.run.path)


def test_weights_and_program_are_those_of_the_best_model(run, exported):
    """The averaged ones, which were the ones that were evaluated."""
    assert exported.folder == run.run.path / "export"
    assert exported.warnings == []
    x = torch.rand(9, 64)
    best = Checkpoints(run.run.checkpoints).load("best")["model"]
    model = load_exported(exported.folder)
    assert not model.training
    assert all(torch.equal(best[k], v) for k, v in model.state_dict().items())
    program = torch.export.load(exported.folder / "model.pt2").module()
    with torch.no_grad():
        for size in (1, 2, 9):
            torch.testing.assert_close(program(x[:size]), model(x[:size]))
    plain = load_file(exported.folder / "model.safetensors")
    assert plain.keys() == best.keys(), "other readers get the names of the state_dict"
    assert any("outputs for 64 samples bit for bit" in text for text in exported.checks)


def test_the_card_says_what_a_stranger_must_know(run, exported):
    card = (exported.folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "brickyard"
    best = run.summary["best"]
    for text in (
        "# small", "load_exported", "torch.export.load", "shape (N, 64)", "torch.float32",
        "scaling: pixels / 16", "logits.argmax(1)", "Classes: 0 to 9", "1,438 samples for training",
        f"| accuracy | {best['val']['accuracy']:.6g} |", "somewhat too good", torch.__version__,
        "## Limits", f"after step {best['step']}", "it ended by: budget",
    ):  # fmt: skip
        assert text in card, text
    inside = yaml.safe_load(card.split("The whole recipe:")[1].split("```yaml")[1].split("```")[0])
    assert (
        inside == run.run.recipe() == yaml.safe_load((exported.folder / "recipe.yaml").read_text())
    )
    for name, digest in exported.files.items():
        assert f"| `{name}` | `{digest}` |" in card
        assert export.checksum(exported.folder / name) == digest


def test_the_code_of_the_card_runs_where_there_is_no_run(exported, tmp_path):
    """Only the export folder is there, and the data set's package is not needed."""
    card = (exported.folder / "README.md").read_text()
    snippets = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    assert len(snippets) == 2
    script = "import sys\nsys.modules['sklearn'] = None\n" + "\n".join(
        f"{code}\nprint(tuple(model(__import__('torch').zeros(3, 64)).shape))" for code in snippets
    )
    script = script.replace('"FOLDER', f'"{exported.folder}')
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["(3, 10)", "(3, 10)"], done.stderr


def test_regression_tells_the_units(tmp_path):
    _train(tmp_path / "run", data="diabetes", loss="mse", metrics=["r2"], budget="1ep")
    made = export_run(tmp_path / "run", formats=("safetensors",))
    card = (made.folder / "README.md").read_text()
    with safe_open(made.folder / "model.safetensors", framework="pt") as file:
        data = json.loads(file.metadata()["brickyard"])["data"]
    assert 100 < data["target_mean"] < 200
    assert f"`output * {data['target_std']:.8g} + {data['target_mean']:.8g}`" in card
    assert "columns, in this order: age" in card
    assert '"mean"' in card, "what was fitted to prepare samples"
    assert load_exported(made.folder)(torch.zeros(2, 10)).shape == (2, 1)


def test_one_logit(tmp_path):
    _train(tmp_path / "run", data="breast_cancer", loss="bce", metrics=["auroc"], budget="1ep")
    made = export_run(tmp_path / "run", formats=("safetensors",))
    assert (
        "`logit.sigmoid()` is the probability of class 1" in (made.folder / "README.md").read_text()
    )
    assert load_exported(made.folder)(torch.zeros(2, 30)).shape == (2, 1)


MODULE = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self, input_shape, outputs):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.head = nn.Linear(64, outputs)

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()).relu())

class Branching(nn.Module):
    def __init__(self, input_shape, outputs):
        super().__init__()
        self.head = nn.Linear(64, outputs)

    def forward(self, x):
        out = self.head(x)
        return out if out.sum().item() > 0 else 2 * out

class Fixed(nn.Module):
    def __init__(self, input_shape, outputs):
        super().__init__()
        self.head = nn.Linear(64, outputs)

    def forward(self, x):
        return self.head(torch.cat([row for row in x]).view(x.shape))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_to_export.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_to_export", raising=False)

    def make(name):
        _train(tmp_path / "run", model={"target": f"mine_to_export:{name}"}, budget="1ep",
               regularizers=[])  # fmt: skip
        return tmp_path / "run"

    return make


def test_tied_weights_are_written_once_and_tied_again(mine):
    made = export_run(mine("Tied"))
    assert "second.weight" not in load_file(made.folder / "model.safetensors")
    model = load_exported(made.folder, trust_code=True)
    assert model.second.weight is model.first.weight
    assert "trust_code=True" in (made.folder / "README.md").read_text()


def test_code_named_by_a_file_is_not_run_unasked(mine, tmp_path):
    made = export_run(mine("Tied"), formats=("safetensors",))
    with pytest.raises(RunError, match=r"the model in .* is 'mine_to_export:Tied', code that"):
        load_exported(made.folder)
    with safe_open(made.folder / "model.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["brickyard"])
    folder = str(tmp_path / "pwned")
    evil = {"name": "mlp", "activation": {"target": "os:mkdir", "path": folder}}
    about["recipe"]["model"] = evil
    save_file({"x": torch.zeros(1)}, tmp_path / "evil.safetensors",
              metadata={"brickyard": json.dumps(about)})  # fmt: skip
    with pytest.raises(RunError, match="'os:mkdir', code that this would import"):
        load_exported(tmp_path / "evil.safetensors")
    assert not Path(folder).exists()


@pytest.mark.parametrize("name", ["Branching", "Fixed"])
def test_a_model_without_a_program_is_told_and_the_rest_exported(mine, name, capsys):
    run = mine(name)
    made = export_run(run)
    assert set(made.files) == {"model.safetensors", "recipe.yaml"}
    (told,) = made.warnings
    assert told.startswith(
        "no model.pt2: torch.export cannot trace this model for every batch size"
    )
    assert told in (made.folder / "README.md").read_text()
    assert main(["export", str(run), "--format", "pt2", "--out", str(run / "other")]) == 2
    assert "no model.pt2" in capsys.readouterr().err
    assert not (run / "other").exists()


def test_convolutions_with_batch_norm(tmp_path):
    _train(tmp_path / "run", data={"name": "mnist5k", "val": 0.02}, budget=3, regularizers=[],
           model={"name": "cnn", "width": 4})  # fmt: skip
    made = export_run(tmp_path / "run")
    assert made.warnings == []
    model = load_exported(made.folder)
    x = torch.rand(5, 1, 28, 28)
    program = torch.export.load(made.folder / "model.pt2").module()
    torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_command_writes_again_and_leaves_others_alone(run, tmp_path, capsys):
    out = tmp_path / "out"
    for formats in ("all", "safetensors"):
        assert main(["export", str(run.run.path), "--out", str(out), "--format", formats]) == 0
        said = capsys.readouterr().out
        assert said.splitlines()[-1] == str(out / "README.md")
        assert ("model.pt2" in said) == (out / "model.pt2").exists() == (formats == "all")
    (out / "mine.txt").write_text("x")
    assert main(["export", str(run.run.path), "--out", str(out)]) == 2
    assert "holds something else than an export" in capsys.readouterr().err
    assert (out / "mine.txt").read_text() == "x"
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        export_run(run.run.path, tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "out"], "nothing half-written"


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failure_leaves_the_old_export(run, tmp_path, monkeypatch, name):
    out = tmp_path / "out"
    export_run(run.run.path, out, ("safetensors",))
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def failing(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing)
        with pytest.raises(RunError, match=r"cannot write .*No space left"):
            export_run(run.run.path, out, ("safetensors",))
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_weights_that_read_back_differently_are_not_exported(run, tmp_path, monkeypatch):
    plain = export._write_weights

    def damaged(path, model, *rest):
        plain(path, model, *rest)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        tensors = load_file(path)
        tensors["head.bias" if "head.bias" in tensors else next(iter(tensors))].add_(1e-3)
        save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr(export, "_write_weights", damaged)
    with pytest.raises(RunError, match="gives other outputs when read back"):
        export_run(run.run.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_export_is_told(tmp_path, exported):
    with pytest.raises(RunError, match=r"no model.safetensors at"):
        load_exported(tmp_path)
    cut = tmp_path / "model.safetensors"
    cut.write_bytes((exported.folder / "model.safetensors").read_bytes()[:-50])
    with pytest.raises(RunError, match="is damaged or no safetensors file"):
        load_exported(cut)
    save_file({"x": torch.zeros(1)}, cut)
    with pytest.raises(RunError, match="was not written by `brickyard export`"):
        load_exported(tmp_path)


def test_a_damaged_best_and_a_run_without_one(tmp_path):
    _train(tmp_path / "run", keep={"best": 2}, regularizers=[])
    folder = RunFolder(tmp_path / "run").checkpoints
    entries = Checkpoints(folder).entries()
    (folder / entries["best"].file).write_bytes(b"")
    made = export_run(tmp_path / "run", formats=("safetensors",))
    assert "is damaged" in made.warnings[0]
    assert f"taken instead: {entries['best-2'].file}" in made.warnings[0]
    assert made.warnings[0] in (made.folder / "README.md").read_text()
    (folder / entries["best-2"].file).unlink()
    made = export_run(tmp_path / "run", formats=("safetensors",))
    assert "the last weights are exported instead, of step 92" in made.warnings[0]
    assert "Not evaluated" in (made.folder / "README.md").read_text()
