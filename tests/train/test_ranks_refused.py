"""What several processes would do each in its own way is refused before anything is trained."""

import copy

import pytest
import torch
import torch.distributed as dist
from game_cases import AGENT, GAN, POLICY, PPO
from ranks import on_ranks
from torch.distributed.tensor import DTensor

from brickyard.errors import RecipeError
from brickyard.nn import GhostBatchNorm1d
from brickyard.train import ranks, resolve
from brickyard.train.evaluate import Evaluator
from brickyard.train.loop import Loop
from brickyard.train.setup import build_setup
from brickyard.train.tasks import Task
from brickyard.train.together import ranks_of

PLAIN = {
    "data": "digits", "model": {"name": "mlp", "hidden": [8]}, "loss": "cross_entropy",
    "budget": 3, "doctor": False,
}  # fmt: skip
ALONE = "acts on one process alone, so that 1 processes would drift apart; leave it out, or train"
OWN = "takes steps or keeps data of its own, which several processes do not share; train it with"
CASES = {
    "gan": (GAN, f"task: gan {OWN}"),
    "policy": (POLICY, f"task: policy {OWN}"),
    "ppo": (PPO, f"task: policy {OWN}"),
    "dqn": (AGENT, f"task: dqn {OWN}"),
    "lbfgs": ({**PLAIN, "optimizer": "lbfgs"}, f"asks for gradients by itself {ALONE}"),
    "nag": ({**PLAIN, "optimizer": {"name": "nag", "lr": 0.1}}, f"gradients by itself {ALONE}"),
    "its wrapper": ({**PLAIN, "optimizer": {"name": "lookahead", "inner": {
        "name": "nag", "lr": 0.1}}}, f"gradients by itself {ALONE}"),
    "torch's closure": ({**PLAIN, "optimizer": {"target": "torch.optim:LBFGS"}},
                        f"gradients by itself {ALONE}"),
    "sophia": ({**PLAIN, "optimizer": "sophia_g"}, f"estimate of the curvature {ALONE}"),
    "fp16 and fsdp": ({**PLAIN, "precision": "fp16", "distributed": "fsdp"},
                      f"precision: fp16, with fsdp {ALONE}"),
    "manifold mixup": (
        {**PLAIN, "augmentation": [{"name": "manifold_mixup", "layers": ["body.0"]}]},
        f"manifold_mixup {ALONE}"),
    "bf16 weights and fsdp": (
        {**PLAIN, "precision": "bf16_weights", "distributed": "fsdp",
         "model": {"name": "mlp", "hidden": [8], "normalization": "layer_norm"}},
        "keeps the weights of a block in one format; the model has torch.bfloat16 and torch.float"),
    "a whole graph": (
        {**PLAIN, "model": {"name": "mlp", "hidden": [8], "normalization": "batch_norm"},
         "compile": {"backend": "eager", "fullgraph": True}},
        "fullgraph leaves no room for what batch norms send to other processes"),
    "telemetry and fsdp": ({**PLAIN, "telemetry": True, "distributed": "fsdp"},
                           "telemetry: telemetry knows no sums over processes"),
}  # fmt: skip


@pytest.fixture
def launched(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", CASES)
def test_what_acts_on_one_process_alone_is_refused_at_the_door(name, launched):
    recipe, says = CASES[name]
    resolved = resolve(copy.deepcopy(recipe))
    with pytest.raises(RecipeError) as caught:
        build_setup(resolved, ranks_of(resolved.recipe))
    assert says in str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_one_process_trains_it(name):
    """The refusal is of several processes and not of the recipe."""
    build_setup(resolve(copy.deepcopy(CASES[name][0])))


def test_each_process_has_an_accelerator_of_its_own(monkeypatch):
    """NCCL sends objects through the present device: two processes on the first one fail."""
    begun, present = [], []
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "_accelerator", lambda name: "cuda")
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    monkeypatch.setattr(torch.accelerator, "set_device_index", present.append)
    monkeypatch.setattr(
        dist, "init_process_group", lambda kind, **_: begun.append((kind, *present))
    )
    monkeypatch.setattr(dist, "get_rank", lambda: 5)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    mine = ranks.Ranks("ddp", "auto")
    assert begun == [("cpu:gloo,cuda:nccl", 1)], (
        "metrics stay on the CPU, and the device is chosen before anything is sent"
    )
    assert mine.device("auto") == "cuda:1"
    assert mine._device() == torch.device("cuda:1")
    with pytest.raises(RecipeError, match=r"cuda:1 is one device, and 8 proc.*; take cuda:"):
        ranks.Ranks("ddp", "cuda:1")
    assert len(begun) == 1, "refused before the processes wait for each other"


NORMS = {"data": "mnist5k", "model": {"name": "cnn", "width": 4, "blocks": [1]}, "batch_size": 96}


class Ghosts(torch.nn.Sequential):
    """A batch norm that is not torch's own."""

    def __init__(self, input_shape, outputs):
        super().__init__(
            torch.nn.Flatten(), torch.nn.Linear(784, 8), GhostBatchNorm1d(8, 4),
            torch.nn.Linear(8, outputs),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [({**NORMS, "sync_batch_norm": False}, "normalizes its own 96 samples of 96"), (NORMS, ""),
     ({**NORMS, "model": {"target": "test_ranks_refused:Ghosts"}}, "normalizes its own 96"),
     ({"loss": "nt_xent"}, "looks at the samples"),
     ({"loss": {"name": "nt_xent", "gather": True}}, ""), ({}, "")],
)  # fmt: skip
def test_what_looks_at_a_batch_as_a_whole_is_told(changes, says, launched):
    views = {"task": "two_view", "augmentation": ["noise"]} if "loss" in changes else {}
    resolved = resolve(copy.deepcopy({**PLAIN, **views, **changes}))
    setup = build_setup(resolved, ranks_of(resolved.recipe))
    told = [one["evidence"] for one in setup.findings if one["check"] == "batch_in_parts"]
    assert len(told) == bool(says)
    assert says in "".join(told)


class OneBatch:
    def epoch(self, number, start=0):
        yield torch.zeros(4, 2), torch.zeros(4, 2)


def evaluate(rank, found):
    here = ranks.Ranks("ddp", "cpu")
    layer = torch.nn.BatchNorm1d(2, eps=0.0)
    torch.nn.init.constant_(layer.running_mean, rank + 1.0)
    evaluator = Evaluator(OneBatch(), torch.nn.functional.mse_loss, Task())
    evaluator.ranks = here
    found[rank] = evaluator.run(layer)["loss"]


def test_all_evaluate_with_the_statistics_of_the_first():
    """Otherwise figures are a mixture of models, and a checkpoint holds one of them."""
    assert on_ranks(evaluate, 2) == {0: 1.0, 1: 1.0}


def test_convolutions_can_be_cut(launched):
    resolved = resolve(copy.deepcopy({**PLAIN, **NORMS, "distributed": "fsdp"}))
    setup = build_setup(resolved, ranks_of(resolved.recipe))
    setup.parts.evaluator, setup.parts.total = None, 2
    Loop(setup.parts).run()
    weights = [p for p in setup.parts.model.parameters() if p.ndim == 4]
    assert len(weights) > 1
    assert all(isinstance(p, DTensor) and p.grad is not None for p in weights)
