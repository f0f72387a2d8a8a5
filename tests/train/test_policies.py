"""What happens when something goes wrong: told, counted, and nothing is lost."""

import math
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from brickyard.clip import clip_by_global_norm
from brickyard.errors import RecipeError, RunError
from brickyard.runs import RunFolder
from brickyard.train import resolve, resume, train
from brickyard.train.data import Split, TensorBatches
from brickyard.train.evaluate import Evaluator
from brickyard.train.loop import Diverged, Loop, Parts
from brickyard.train.memory import OutOfMemory
from brickyard.train.precision import FP16
from brickyard.train.setup import build_setup
from brickyard.train.tasks import Classification

BASE = {"data": "digits", "model": {"name": "mlp", "hidden": 16}, "loss": "cross_entropy",
        "metrics": ["accuracy"], "budget": 30, "device": "cpu", "threads": 1, "log_every": 5,
        "checkpoint_every": 10}  # fmt: skip


def _net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def _parts(model, **changes):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=g)
    batches = TensorBatches(Split(x, (x[:, 0] > 0).long()), 16, shuffle=True, seed=5)
    settings = {"model": model, "loss": F.cross_entropy, "train": batches, "total": 12,
                "optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "log_every": 4,
                "task": Classification(3)}  # fmt: skip
    return Parts(**{**settings, **changes})


def _broken_at(*calls):
    """Return a loss that is not finite at some of its calls."""
    seen = []

    def loss(output, y):
        seen.append(1)
        return F.cross_entropy(output, y) * (math.nan if len(seen) in calls else 1.0)

    return loss


def test_a_loss_that_is_not_finite_stops_before_its_step():
    model = _net()
    loop = Loop(_parts(model, loss=_broken_at(7)))
    with pytest.raises(
        Diverged, match=r"the loss is nan at step 7 \(epoch 2, its batch 3, rate 0\.1"
    ):
        loop.run()
    assert loop.state.step == 6
    assert all(t.isfinite().all() for t in model.state_dict().values())


def test_the_policy_leaves_out_so_many_in_a_row_and_counts():
    for allowed, broken, steps in ((2, (3, 4, 7, 8), 12), (1, (3, 5, 7), 12)):
        model = _net()
        loop = Loop(_parts(model, loss=_broken_at(*broken), allowed_skips=allowed))
        assert loop.run() == "budget"
        assert (loop.state.skipped, loop.state.step) == (len(broken), steps)
        assert loop.state.epoch * 4 + loop.state.batch == steps + len(broken)
    with pytest.raises(Diverged, match=r"the loss is nan at step 3 after 2 steps left out"):
        Loop(_parts(_net(), loss=_broken_at(3, 4, 5), allowed_skips=2)).run()


def _poisoned(model):
    with torch.no_grad():
        model[3].weight[0, 0] = math.nan
    return model


class Root(nn.Module):
    """Have a finite value at 0, and no finite slope."""

    def forward(self, x):
        return (x * 0).sqrt() + x


def _exploding():
    model = _net()
    with torch.no_grad():
        model[3].weight.fill_(3e38)
    return model


@pytest.mark.parametrize(
    ("make", "says"),
    [(lambda: {"model": _poisoned(_net())}, r"3\.weight of the model is not finite, so an earlier"),
     (lambda: {"model": _exploding()}, r"value that is not finite is in the output of 3 \(Lin"),
     (lambda: {"model": nn.Sequential(nn.Linear(6, 3), Root()),
               "clip": lambda p: clip_by_global_norm(p, 1.0)},
      r"the loss is \d.*, its gradient not finite at step 1 .*gradient that is not is that of 0\."),
     (lambda: {"loss": _broken_at(1)}, "all layers are finite, so the loss itself is not")],
)  # fmt: skip
def test_the_diagnosis_says_where_it_began(make, says):
    given = make()
    parts = _parts(given.pop("model", None) or _net(), **given)
    with pytest.raises(Diverged, match=says):
        Loop(parts).run()


def test_the_diagnosis_names_samples():
    parts = _parts(_net())
    parts.train.split.x[[5, 9]] = math.inf
    with pytest.raises(Diverged, match=r"the inputs are not finite in samples \d+.*clean the data"):
        Loop(parts).run()


def test_the_diagnosis_knows_that_float16_ends():
    model = _net()
    with torch.no_grad():
        model[3].weight.fill_(4e4)
    parts = _parts(model, autocast=FP16().autocast(torch.device("cpu")))
    with pytest.raises(Diverged, match=r"output of 3 \(Linear\); take precision: bf16 or fp32"):
        Loop(parts).run()


def test_gradients_without_clipping_never_get_into_a_checkpoint():
    """Nobody looks at every gradient; before a checkpoint somebody does."""
    saved = []

    class Ear:
        def logged(self, loop, values):
            pass

        def boundary(self, loop):
            saved.append(all(p.isfinite().all() for p in loop.parts.model.parameters()))

    model = nn.Sequential(nn.Linear(6, 3), Root())
    with pytest.raises(Diverged, match=r"its gradient not finite at step 1 \(epoch 1, its batch 1"):
        Loop(_parts(model, checkpoint_every=1, log_every=100), [Ear()]).run()
    assert saved == []


def test_recipes_say_the_policy(tmp_path):
    assert build_setup(resolve({**BASE, "on_nonfinite": {"skip": 3}})).parts.allowed_skips == 3
    assert build_setup(resolve(BASE)).parts.allowed_skips == 0
    with pytest.raises(RecipeError, match=r"on_nonfinite: give stop, or \{skip: N\}.*got 'go'"):
        resolve({**BASE, "on_nonfinite": "go"})
    with pytest.raises(RecipeError, match="on_nonfinite: give stop"):
        resolve({**BASE, "on_nonfinite": {"skip": 0}})


CALLS = []


def flaky(raises=""):
    """Make a loss that breaks at its call 25, in one of several ways."""

    def loss(output, y):
        CALLS.append(output.requires_grad)
        if sum(CALLS) == 25 and output.requires_grad:
            if raises == "cuda":
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"
                )
            if raises == "cpu":
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to "
                                   "allocate 4000000000 bytes. Error code 12")  # fmt: skip
            if raises == "nan":
                return F.cross_entropy(output, y) * math.nan
            if raises == "term":
                os.kill(os.getpid(), signal.SIGTERM)
            if raises == "int":
                os.kill(os.getpid(), signal.SIGINT)
            if raises == "user":
                raise KeyError("a bug of the user")
        return F.cross_entropy(output, y)

    return loss


@pytest.mark.parametrize(
    ("raises", "error", "says"),
    [("cuda", OutOfMemory, r"out of memory while training after step \d+ \(it asked for 2.00 GiB "
      r"more\): weights .*B, gradients .*optimizer state .*Lower batch_size \(now 64\): 32 with "
      r"accumulate: 2 is the same step; or take checkpoint_layers: auto.*precision: bf16"),
     ("cpu", OutOfMemory, r"it asked for 4 GB more"),
     ("nan", Diverged, r"the loss is nan at step \d+"),
     ("user", KeyError, "a bug of the user"),
     ("term", None, ""), ("int", None, "")],
)  # fmt: skip
def test_whatever_ends_a_run_leaves_it_whole(tmp_path, raises, error, says):
    """The reason is told, the folder is complete, and the run goes on where it was saved."""
    CALLS.clear()
    recipe = {**BASE, "loss": {"target": f"{__name__}:flaky", "raises": raises}}
    if error is None:
        assert train(recipe, out=tmp_path / "run").summary["exit_reason"] == "interrupted"
    else:
        with pytest.raises(error, match=says):
            train(recipe, out=tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    summary = run.summary()
    if error is not None:
        assert summary["exit_reason"] == "failed"
        assert summary["error"].startswith(error.__name__)
    assert run.report.is_file()
    assert list(run.metrics())
    again = resume(tmp_path / "run")  # the counter is past the call that breaks
    CALLS.clear()
    CALLS.extend([True] * 100)
    whole = train(recipe, out=tmp_path / "whole")
    assert again.summary["exit_reason"] == "budget"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_memory_of_a_model_that_cannot_be_built_is_told(tmp_path):
    recipe = {**BASE, "model": {"name": "mlp", "hidden": [3_000_000, 3_000_000]}}
    with pytest.raises(OutOfMemory, match=r"is built \(it asked for 3.6e\+04 GB more\).*width"):
        train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_memory_of_an_evaluation_is_told_apart(tmp_path, monkeypatch):
    def run(self, model):
        raise MemoryError

    plain = Evaluator.run.__code__
    monkeypatch.setattr(Evaluator, "run", run)
    monkeypatch.setattr("brickyard.train.memory._passed", lambda trace, file: file == "evaluate.py")
    with pytest.raises(OutOfMemory, match=r"while evaluating .* Lower eval_batch_size \(now 512\)"):
        train({**BASE, "evaluate_every": 3}, out=tmp_path / "run")
    assert plain.co_filename.endswith("evaluate.py")


def test_other_runtime_errors_stay_themselves(tmp_path, monkeypatch):
    def run(self, model):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Evaluator, "run", run)
    with pytest.raises(RuntimeError, match="shapes") as found:
        train({**BASE, "evaluate_every": 3}, out=tmp_path / "run")
    assert not isinstance(found.value, RunError)
