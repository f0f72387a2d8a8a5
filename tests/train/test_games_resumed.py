"""GANs and agents that are killed and resumed end bit-identical."""

import pytest
from game_cases import AGENT, EMA, GAN, PPO, REINFORCE, DieAt, Killed, changed, rows_of, same

import brickyard.nn
import brickyard.train.data.environments
import brickyard.train.metrics_games  # noqa: F401  their cards
from brickyard.train import resolve, resume, train
from brickyard.train.checkpoint import Checkpoints

RESUMED = {
    "gan": (GAN, (7, 11)),
    "gan, schedules, r1, ema": (
        changed(GAN, regularizers=EMA, loss="gan_non_saturating", schedule=["cosine"],
              clipping={"name": "clip_by_global_norm", "max_norm": 0.1},
              task__penalty="r1_penalty", task__critic_optimizer={
                  "name": "adam", "lr": {"base": 1e-3, "schedule": ["linear"]}}), (7,)),
    "reinforce": (REINFORCE, (6, 8)),
    "ppo": (PPO, (7,)),
    "dqn": (AGENT, (22, 46)),
    "dqn, soft, ema": (
        changed(AGENT, task__target_every=1, task__tau=0.1, regularizers=EMA,
              schedule=["linear"]), (21,)),
}  # fmt: skip


@pytest.mark.parametrize("case", RESUMED)
def test_a_run_that_was_killed_ends_bit_identical(case, tmp_path):
    recipe, kills = RESUMED[case]
    train(recipe, out=tmp_path / "whole")
    path = tmp_path / "killed"
    with pytest.raises(Killed):
        train(recipe, out=path, progress=DieAt(kills[0]))
    for kill in kills[1:]:
        with pytest.raises(Killed):
            resume(path, progress=DieAt(kill))
    resume(path)
    assert rows_of(path) == rows_of(tmp_path / "whole")
    for role in ("last", "best"):
        a, b = (Checkpoints(p / "checkpoints").load(role) for p in (path, tmp_path / "whole"))
        for state in (a, b):
            state.get("state", {}).pop("seconds", None)
        assert same(a, b), role


def test_evaluating_more_often_changes_nothing(tmp_path):
    for recipe in (GAN, REINFORCE, AGENT):
        made = [train(changed(recipe, evaluate_every=n), out=tmp_path / f"{recipe['name']}{n}")
                for n in (3, 50)]  # fmt: skip
        a, b = (Checkpoints(r.run.checkpoints).load("last")["model"] for r in made)
        assert same(a, b)


def test_the_range_test_leaves_no_trace():
    from brickyard.train.lr_range import lr_range_of

    for recipe in (GAN, REINFORCE, AGENT):
        found = lr_range_of(resolve(recipe), low=1e-6, high=1e-3, steps=4)
        assert len(found.losses) == 4
