"""GANs: the steps of the papers, what a recipe names for them, and what is refused."""

import copy
import math

import numpy as np
import pytest
import torch
from game_cases import (
    EMA,
    GAN,
    changed,
    rows_of,
    set_up,
)

import brickyard.nn
import brickyard.train.data.environments
import brickyard.train.metrics_games  # noqa: F401  their cards
from brickyard.errors import RecipeError
from brickyard.losses import GradientPenalty, R1Penalty, Wasserstein
from brickyard.train import train
from brickyard.train.loop import Loop

# --- GAN ------------------------------------------------------------------------------------------


def _by_hand(setup, steps, penalty, window):
    """Return generator and critic after the paper's algorithm, with torch's own optimizers."""
    pair, game = copy.deepcopy(setup.parts.model), Wasserstein()
    pair.requires_grad_(True)
    make = lambda m: torch.optim.Adam(m.parameters(), lr=2e-3, betas=(0.5, 0.9))  # noqa: E731
    ours, theirs = make(pair.generator), make(pair.critic)
    batches = list(setup.parts.train.epoch(0))
    for step in range(steps):
        for x, _ in batches[step * window : (step + 1) * window]:
            fake = pair.generator(torch.randn(len(x), 4)).detach()
            theirs.zero_grad()
            loss = game.discriminator(pair.critic(x), pair.critic(fake))
            (loss + penalty(pair.critic, x, fake)).backward()
            theirs.step()
        ours.zero_grad()
        game.generator(pair.critic(pair.generator(torch.randn(len(x), 4)))).backward()
        ours.step()
    return pair


@pytest.mark.parametrize("kind", ["gradient_penalty", "r1_penalty", None])
def test_the_steps_of_the_paper(kind):
    given = None if kind is None else {"name": kind, "weight": 2.0}
    setup = set_up(changed(GAN, budget=4, task__penalty=given, task__critic_steps=3))
    penalty = {
        "gradient_penalty": GradientPenalty(2.0),
        "r1_penalty": lambda critic, real, fake: R1Penalty(2.0)(critic, real),
        None: lambda *_: 0.0,
    }[kind]
    state = torch.get_rng_state()
    hand = _by_hand(setup, 4, penalty, 3)
    torch.set_rng_state(state)
    Loop(setup.parts).run()
    for (name, a), b in zip(hand.named_parameters(), setup.parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=name)


def test_what_the_recipe_names_is_the_generators():
    recipe = changed(
        GAN, regularizers=[*EMA, {"name": "l2_penalty", "weight": 0.1}, "early_stopping"],
        clipping={"name": "clip_by_global_norm", "max_norm": 1e-3}, schedule=["cosine"],
    )  # fmt: skip
    setup = set_up(recipe)
    names = {name for name, _ in setup.parts.model.generator.named_parameters()}
    assert set(setup.parts.average.averaged) == names
    assert set(setup.built.groups.reasons) == names
    critic = copy.deepcopy(setup.parts.model.critic)
    loop = Loop(setup.parts)
    loop.run()
    rates = [group["lr"] for group in setup.task.optimizer.param_groups]
    assert rates == [2e-3] * len(rates), "the schedule is not the critic's"
    assert setup.parts.optimizer.param_groups[0]["lr"] < 1e-4
    moved = max(
        float((a - b).detach().abs().max())
        for a, b in zip(critic.parameters(), setup.parts.model.critic.parameters(), strict=True)
    )
    assert moved > 1e-3, "clipping holds the generator alone"
    assert setup.parts.stopping.monitor == "sliced_wasserstein"
    assert setup.parts.stopping.mode == "min"


def test_the_average_is_what_is_evaluated_and_kept(tmp_path):
    result = train(changed(GAN, regularizers=EMA), out=tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    pairs = [(r["sliced_wasserstein"], v["sliced_wasserstein"]) for r in rows for v in rows
             if r["split"] == "raw" and v["split"] == "val" and r["step"] == v["step"]]  # fmt: skip
    assert len(pairs) == 3
    assert all(a != b for a, b in pairs)
    assert result.summary["best"]["raw"]


def test_swa_measures_batch_norm_with_noise(tmp_path):
    generator = {"name": "mlp", "hidden": [16], "normalization": "batch_norm"}
    swa = [{"name": "swa", "start": 4, "every": 2}]
    recipe = changed(GAN, model__generator=generator, regularizers=swa)
    assert train(recipe, out=tmp_path / "run").summary["best"]["raw"]


def test_a_schedule_of_the_critics_own_counts_its_steps():
    rate = {"base": 1e-3, "schedule": ["linear"]}
    setup = set_up(changed(GAN, budget=6, task__critic_optimizer={"name": "adam", "lr": rate}))
    seen = []
    step = setup.task.optimizer.step
    setup.task.optimizer.step = lambda: (seen.append(setup.task.optimizer.param_groups[0]["lr"]),
                                         step())  # fmt: skip
    Loop(setup.parts).run()
    np.testing.assert_allclose(seen, 1e-3 * (1 - np.arange(12) / 12), rtol=1e-6)


def test_rows_tell_of_the_critic_and_no_loss_of_held_out_data(tmp_path):
    train(GAN, out=tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert all("critic_loss" in row for row in rows if row["split"] == "train")
    assert all("loss" not in row for row in rows if row["split"] == "val")
    shown = np.load(tmp_path / "run" / "evaluation.npz")["shown_pictures"]
    assert shown.shape == (1, 1, 4 * 10, 16 * 10)
    assert shown.dtype == np.uint8
    assert 'alt="Generated samples of sample 1"' in (tmp_path / "run" / "report.html").read_text()


GAN_REFUSED = {
    "accumulate": ({"accumulate": 2}, "accumulate: gan trains two networks in turn"),
    "bf16": ({"precision": "bf16"}, "precision: gan .* fp32"),
    "compile": ({"compile": True}, "compile: gan .* torch.compile cannot"),
    "pgd": ({"regularizers": ["fgsm"]}, "adversarial training changes samples"),
    "snapshots": ({"regularizers": ["snapshot_ensemble"]}, "mean of several generators"),
    "sophia": ({"optimizer": "sophia_g"}, "optimizer: gan cannot train with sophia_g"),
    "lbfgs": ({"optimizer": {"name": "lookahead", "inner": "lbfgs"}}, "cannot train with lbfgs"),
    "critic": ({"task__critic_optimizer": "sophia_h"}, "task.critic_optimizer: gan cannot train"),
    "mixup": ({"augmentation": ["mixup"]}, "mixup blends samples"),
    "loss": ({"loss": "cross_entropy"}, "cross_entropy is not what gan trains on.*wasserstein"),
    "model": ({"model": "mlp"}, "gan needs a model with a generator and a critic, and MLP"),
    "no metric": ({"metrics": []}, "there must be a metric: sliced_wasserstein"),
    "metric": ({"metrics": ["accuracy"]}, "accuracy is for .* take sliced_wasserstein"),
    "penalty": ({"task__penalty": "mse"}, "penalty: mse takes .* gradient_penalty or r1_penalty"),
    "steps": ({"task__critic_steps": 0}, "critic_steps must be 1 or more; got 0"),
    "stopping": ({"regularizers": [{"name": "early_stopping", "monitor": "loss"}]},
                 "'loss', which is not measured"),
    "plateau": ({"task__critic_optimizer": {"name": "adam", "lr": {
        "base": 1e-3, "schedule": ["reduce_on_plateau"]}}}, "reduce_on_plateau waits"),
    "no critic optimizer": ({"task": "gan"}, "gan needs critic_optimizer, an optimizer"),
    "its options": ({"task__critic_optimizer": {"name": "adam", "beta": 1}},
                    r"task.critic_optimizer.beta: adam has no option 'beta'"),
}  # fmt: skip


@pytest.mark.parametrize("case", GAN_REFUSED)
def test_what_makes_no_sense_with_a_gan_is_refused_with_a_reason(case):
    changes, message = GAN_REFUSED[case]
    with pytest.raises(RecipeError, match=message):
        set_up(changed(GAN, **changes))


@pytest.mark.parametrize("loss", ["gan_minimax", "gan_least_squares", "gan_hinge"])
def test_every_game_trains(loss):
    setup = set_up(changed(GAN, loss=loss, task__penalty=None, budget=2))
    assert Loop(setup.parts).run() == "budget"


def test_the_sliced_distance_against_its_definition():
    from brickyard.train.metrics_games import sliced_wasserstein

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 3, 2)), rng.normal(size=(40, 3, 2)) + 1
    metric = sliced_wasserstein(projections=100, seed=3)
    for part in (slice(0, 15), slice(15, 40)):
        metric.update(torch.tensor(a[part]), torch.tensor(b[part]))
    t = torch.randn(6, 100, generator=torch.Generator().manual_seed(3)).numpy().astype(float)
    t /= np.sqrt((t**2).sum(0))
    apart = np.sort(a.reshape(40, 6) @ t, 0) - np.sort(b.reshape(40, 6) @ t, 0)
    assert float(metric.compute()) == pytest.approx(math.sqrt((apart**2).mean()), rel=1e-5)
    metric.reset()
    metric.update(torch.tensor(a), torch.tensor(a[::-1].copy()))
    assert float(metric.compute()) < 1e-6
    with pytest.raises(ValueError, match="same shape and number"):
        metric.update(torch.zeros(3, 1), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="projections must be 1 or more"):
        sliced_wasserstein(projections=0)


def test_coverage_against_its_definition():
    from brickyard.train.metrics_games import coverage

    rng = np.random.default_rng(0)
    fake, real = rng.normal(size=(60, 2)) * 0.3, rng.normal(size=(60, 2))
    for neighbors in (1, 4):
        metric = coverage(neighbors)
        metric.update(torch.tensor(fake), torch.tensor(real))
        covered = 0
        for i, one in enumerate(real):
            others = np.sort(np.linalg.norm(np.delete(real, i, 0) - one, axis=1))
            covered += np.linalg.norm(fake - one, axis=1).min() < others[neighbors - 1]
        assert float(metric.compute()) == pytest.approx(covered / 60)
    with pytest.raises(ValueError, match="neighbors must be 1"):
        coverage(0)
    metric = coverage(60)
    metric.update(torch.tensor(fake), torch.tensor(real))
    with pytest.raises(ValueError, match="needs more samples"):
        metric.compute()
