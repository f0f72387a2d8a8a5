"""Several processes: the same run as one process with the joined batch, resumed on any number."""

import json
import shutil
from pathlib import Path

import pytest
import rank_jobs
import torch
import warm
from ranks import free_port

from brickyard.runs import RunFolder
from brickyard.train import resolve, resume, train
from brickyard.train.checkpoint import Checkpoints
from brickyard.train.export import best_model
from brickyard.train.manifest import rebuild

RECIPE = {
    "data": {"name": "digits", "val": 0.2},
    "model": {"target": "rank_jobs:Net"},
    "loss": {"target": "rank_jobs:stopping"},
    "optimizer": {"name": "adamw", "lr": 4e-3},
    "schedule": [{"name": "warmup", "steps": "10%"}, "cosine"],
    "clipping": {"name": "clip_by_global_norm", "max_norm": 0.7},
    "metrics": ["accuracy", "auroc"],
    # 1,437 samples: the last batch has 29, the last step fewer batches than the others.
    "batch_size": 64, "accumulate": 3, "budget": "2ep", "log_every": 1, "eval_batch_size": 100,
    "checkpoint_every": 5, "threads": 1,
}  # fmt: skip
CASES = {
    "ddp": {},
    "fsdp averaged": {"distributed": "fsdp", "regularizers": [{"name": "ema", "decay": 0.8}]},
    "fsdp muon": {"distributed": "fsdp", "optimizer": {"name": "muon", "lr": 0.01}},
    "fsdp torch sgd": {"distributed": "fsdp", "clipping": None, "optimizer": {
        "target": "torch.optim:SGD", "lr": 0.1, "momentum": 0.9}},
    "ddp batch norm": {"model": {"target": "rank_jobs:Normed"}},
    "fsdp batch norm": {"model": {"target": "rank_jobs:Normed"}, "distributed": "fsdp"},
    # 1,437 = 14 * 97 + 79; parts of 48 and 49, then of 39 and 40: all agree on what is full
    "ddp batch norm averaged": {
        "model": {"target": "rank_jobs:Normed"}, "batch_size": 97, "accumulate": 1,
        "regularizers": [{"name": "swa", "start": "30%", "every": 3}]},
    "fsdp batch norm averaged": {
        "model": {"target": "rank_jobs:Normed"}, "distributed": "fsdp",
        "regularizers": [{"name": "ema", "decay": 0.8}]},
    "last batch of one": {"batch_size": 359, "accumulate": 2},  # 1,437 = 4 * 359 + 1
}  # fmt: skip
STOP = 8  # calls of the loss: in the middle of the first epoch


def rows(folder):
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def together(count, jobs):
    full = [(free_port(), str(folder), *rest) for folder, *rest in jobs]
    warm.on_each(rank_jobs.run, count, full, count=count)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Train every case alone and on two processes; stop and resume some on one, two and three."""
    root = tmp_path_factory.mktemp("ranks")
    for name, changes in CASES.items():
        torch.manual_seed(0)
        train({**RECIPE, **changes}, out=root / f"{name}, one")
    two = [(root / f"{name}, two", {**RECIPE, **changes}, 0) for name, changes in CASES.items()]
    for how in ("ddp", "fsdp"):
        recipe = {**RECIPE, "distributed": how, "regularizers": [{"name": "ema", "decay": 0.8}]}
        if how == "ddp":  # rows of several steps, of which a stop cuts one in two
            recipe["log_every"] = 2
        two.append((root / f"{how}, whole", recipe, 0))
        for name in ("one", "two", "three")[: 3 if how == "fsdp" else 2]:
            two.append((root / f"{how}, stopped, {name}", recipe, STOP))
        two.append((root / f"{how}, stopped, two", None, 0))
    together(2, two)
    together(3, [(root / "fsdp, stopped, three", None, 0)])
    for how in ("ddp", "fsdp"):
        resume(root / f"{how}, stopped, one")
    return root


def assert_close(first, second, tolerance):
    a, b = rows(first), rows(second)
    assert [(r["step"], r["split"]) for r in a] == [(r["step"], r["split"]) for r in b]
    for one, other in zip(a, b, strict=True):
        for key in set(one) - {"step", "epoch", "split"}:
            assert one[key] == pytest.approx(other[key], rel=tolerance, abs=tolerance), (one, other)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_with_the_joined_batch(root, name):
    """Losses, norms, rates and metrics of every step and evaluation agree to 1e-5."""
    assert len(rows(root / f"{name}, one")) > 8
    assert_close(root / f"{name}, one", root / f"{name}, two", 1e-5)


@pytest.mark.parametrize(
    ("how", "name"),
    [("ddp", "one"), ("ddp", "two"), ("fsdp", "one"), ("fsdp", "two"), ("fsdp", "three")],
)
def test_goes_on_with_another_number_of_processes(root, how, name):
    folder = root / f"{how}, stopped, {name}"
    assert_close(root / f"{how}, whole", folder, 0.0 if name == "two" else 1e-5)
    found, wanted = (
        Checkpoints(run / "checkpoints").load("best")["model"]
        for run in (folder, root / f"{how}, whole")
    )
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)
        assert type(found[key]) is torch.Tensor, "the best weights are whole, for anybody to load"


def test_shards_are_safetensors_and_old_ones_go(root):
    folder = root / "fsdp, whole" / "checkpoints"
    entries = Checkpoints(folder).entries()
    named = {entry.shards for entry in entries.values()} - {""}
    assert len(named) == 2  # last and previous
    assert {path.name for path in folder.glob("shards-*")} == named
    for name in named:
        assert {path.suffix for path in (folder / name).iterdir()} == {".safetensors"}


def test_shards_are_found_without_a_manifest_and_export_whole_weights(root, tmp_path):
    """A run that was stopped before it was ever evaluated has no other weights."""
    run = tmp_path / "run"
    shutil.copytree(root / "fsdp, whole", run, symlinks=True)
    named = {e.shards for e in Checkpoints(run / "checkpoints").entries().values()}
    for path in (run / "checkpoints").glob("best*"):
        path.unlink()
    (run / "checkpoints" / "manifest.json").unlink()
    found = rebuild(run / "checkpoints")[0]
    assert {entry.shards for entry in found.values()} == named - {""}
    folder = RunFolder.open(run)
    model, told = best_model(folder, resolve(folder.recipe()))[1::2]
    assert "the last weights are exported instead" in told[0]
    whole = Checkpoints(root / "ddp, whole" / "checkpoints").load("last")["model"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-6)


def test_a_damaged_shard_is_noticed_and_the_checkpoint_before_it_taken(root):
    folder = root / "fsdp, whole" / "checkpoints"
    checkpoints = Checkpoints(folder)
    entries = checkpoints.entries()
    shard = next((folder / entries["last"].shards).iterdir())
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    state, warning = checkpoints.load_last()
    assert shard.name in warning
    assert state["step"] == entries["previous"].step


def torchrun(folder, recipe):
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return warm.run([
        "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", free_port(),
        "-m", "brickyard", "train", path, "--out", folder / "run",
    ])  # fmt: skip


def test_one_process_that_fails_ends_all_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    recipe = {**RECIPE, "loss": {"target": "rank_jobs:failing"}}
    done = torchrun(tmp_path, recipe)
    assert done.returncode != 0
    assert "the third batch of rank 1 is broken" in done.stderr
    assert "rank      : 1" in done.stderr.split("Root Cause")[1]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["exit_reason"] == "failed"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"optimizer": {"name": "lbfgs"}, "clipping": None}, "asks for gradients by itself"),
        ({"regularizers": ["adversarial_training"]}, "adversarial training acts on one process"),
        ({"regularizers": ["l1_l2"], "distributed": "fsdp"}, "penalty on the weights, with fsdp"),
    ],
)
def test_what_would_drift_apart_is_refused(changes, text, monkeypatch):
    import torch.distributed as dist

    from brickyard.errors import RecipeError
    from brickyard.train.recipe import resolve
    from brickyard.train.setup import build_setup
    from brickyard.train.together import ranks_of

    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        resolved = resolve({**RECIPE, "loss": "cross_entropy", **changes})
        with pytest.raises(RecipeError, match=text):
            build_setup(resolved, ranks_of(resolved.recipe))
    finally:
        dist.destroy_process_group()
