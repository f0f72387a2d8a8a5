"""Several processes with float16: one scale for all, which a resume goes on with."""

import pytest
import rank_jobs
import torch
import warm
from game_cases import rows_of
from ranks import free_port

from brickyard.train import resume
from brickyard.train.checkpoint import Checkpoints

RECIPE = {
    "data": {"name": "digits", "val": 0.2},
    "model": {"target": "rank_jobs:Net"},
    "loss": {"target": "rank_jobs:stopping"},
    "optimizer": {"name": "adamw", "lr": 4e-3},
    "clipping": {"name": "clip_by_global_norm", "max_norm": 0.7},
    # The first scale overflows; it falls, and grows again every third step that is taken.
    "precision": {"name": "fp16", "init_scale": 2.0**24, "growth_interval": 3},
    "metrics": ["accuracy"], "batch_size": 96, "accumulate": 2, "budget": "2ep", "log_every": 1,
    "checkpoint_every": 4, "threads": 1, "doctor": False,
}  # fmt: skip
STOP = 18  # calls of the loss: in the middle of an epoch


def test_a_scale_is_shared_and_a_resume_goes_on_with_it(tmp_path):
    jobs = [("whole", RECIPE, 0), ("two", RECIPE, STOP), ("two", None, 0), ("one", RECIPE, STOP)]
    full = [(free_port(), str(tmp_path / name), *rest) for name, *rest in jobs]
    warm.on_each(rank_jobs.run, 2, full, count=2)
    stopped = max(row["step"] for row in rows_of(tmp_path / "one"))
    resume(tmp_path / "one")
    whole, two, one = (rows_of(tmp_path / name) for name in ("whole", "two", "one"))
    scales = [row["loss_scale"] for row in whole if "loss_scale" in row]
    assert stopped < len(scales) - 3
    assert whole[-1]["step"] == len(scales)
    last = [row for row in whole if "loss_scale" in row][-1]
    assert last["scale_backoffs"] > 0
    assert last["scale_growths"] > 0
    assert last["skipped_steps"] == last["scale_backoffs"]
    assert two == whole, "bit for bit"
    for name in ("last", "best"):
        wanted, found = (Checkpoints(tmp_path / run / "checkpoints").load(name)["model"]
                         for run in ("whole", "two"))  # fmt: skip
        assert all(torch.equal(wanted[key], found[key]) for key in wanted)
    went_on = [row for row in one if "loss_scale" in row][stopped:]
    (saved,) = (row for row in one if row["step"] == stopped and "loss_scale" in row)
    assert went_on[0]["loss_scale"] in (saved["loss_scale"] * f for f in (0.5, 1, 2))
    assert went_on[0]["scale_growths"] >= saved["scale_growths"] > 0
    assert [row["step"] for row in one] == [row["step"] for row in whole]
    # Which sums overflow depends on how a batch is cut, so the losses are like, and not the same.
    assert one[-1]["accuracy"] == pytest.approx(whole[-1]["accuracy"], abs=0.1)
