"""What the processes of test_ranks.py run, and what recipes there name by target."""

import os
import signal
from pathlib import Path

import torch.nn.functional as F
from torch import nn

calls = {"loss": 0, "stop": 0}


def stopping():
    """Return cross-entropy; after some calls, one process is asked to stop."""
    return _stopping


def _stopping(output, target):
    calls["loss"] += 1
    if calls["loss"] == calls["stop"]:
        os.kill(os.getpid(), signal.SIGTERM)
    return F.cross_entropy(output, target)


class Net(nn.Module):
    """Blocks that fully_shard cuts each, with sizes that two and three processes divide badly."""

    def __init__(self, input_shape, outputs):
        super().__init__()
        width = 23
        self.first = nn.Linear(input_shape[0], width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()) for _ in range(2)
        )
        self.last = nn.Linear(width, outputs)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


class Normed(nn.Sequential):
    """Batch norms, and no bias before them.

    Its gradient is zero but for rounding, of which AdamW makes whole steps.
    """

    def __init__(self, input_shape, outputs):
        def block(inputs, outputs):
            linear = nn.Linear(inputs, outputs, bias=False)
            return nn.Sequential(linear, nn.BatchNorm1d(outputs), nn.ReLU())

        super().__init__(block(input_shape[0], 23), block(23, 23), nn.Linear(23, outputs))


def run(rank, count, jobs):
    """Train or resume several runs, one after the other, as torchrun's processes would.

    Args:
        rank: of this process.
        count: of processes.
        jobs: (port, folder, recipe or None to resume, call at which rank 1 is asked to stop).
    """
    import torch

    from brickyard.train import resume, train

    torch.set_num_threads(1)
    for port, folder, recipe, stop in jobs:
        os.environ.update(
            RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )  # fmt: skip
        calls.update(loss=0, stop=stop if rank == count - 1 else 0)
        if recipe is None:
            resume(Path(folder))
        else:
            train(recipe, out=folder)


def failing():
    """Return cross-entropy that one process cannot compute for long."""
    return _failing


def _failing(output, target):
    calls["loss"] += 1
    if os.environ["RANK"] == "1" and calls["loss"] == 3:
        raise ValueError("the third batch of rank 1 is broken")
    return F.cross_entropy(output, target)
