"""GANs and agents: the steps of the papers, exact resumes, and the rest of a recipe."""

import copy
import itertools
import json
import math

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

import brickyard.nn
import brickyard.train.data.environments
import brickyard.train.metrics_games  # noqa: F401  their cards
from brickyard.errors import RecipeError
from brickyard.losses import GradientPenalty, R1Penalty, TDLoss, Wasserstein
from brickyard.train import resolve, resume, train
from brickyard.train.checkpoint import Checkpoints
from brickyard.train.data import gymnasium as environment
from brickyard.train.loop import Loop
from brickyard.train.playing import Episode, Game, Player, greedy, play
from brickyard.train.progress import ProgressLines
from brickyard.train.setup import build_setup
from brickyard.train.tasks.dqn import DQN, Replay
from brickyard.train.tasks.policy import ActorCritic, Policy

ADAM = {"name": "adam", "lr": 2e-3, "betas": [0.5, 0.9]}
GAN = {
    "name": "gan",
    "data": {"name": "digits", "val": 0.3},
    "task": {
        "name": "gan", "critic_steps": 2, "latent": 4, "critic_optimizer": ADAM,
        "penalty": {"name": "gradient_penalty", "weight": 1.0},
    },
    "model": {
        "name": "generator_and_critic", "generator": {"name": "mlp", "hidden": [16]},
        "critic": {"name": "mlp", "hidden": [16]},
    },
    "loss": "wasserstein", "optimizer": ADAM, "metrics": ["sliced_wasserstein"],
    "batch_size": 100, "budget": 12, "evaluate_every": 4, "log_every": 3, "checkpoint_every": 5,
    "threads": 1,
}  # fmt: skip
POLICY = {
    "name": "policy", "data": {"name": "gymnasium", "val": 4, "episodes": 20}, "task": "policy",
    "model": {"name": "mlp", "hidden": [8], "activation": "tanh"},
    "loss": {"name": "policy_gradient", "entropy_weight": 0.01},
    "optimizer": {"name": "adam", "lr": 1e-2}, "metrics": ["mean_return"], "batch_size": 3,
    "budget": 9, "evaluate_every": 4, "log_every": 2, "checkpoint_every": 5, "threads": 1,
}  # fmt: skip
REINFORCE = {**POLICY, "task": {"name": "policy", "entropy": 0.01}}
PPO = {**POLICY, "task": {"name": "policy", "updates": 3, "lam": 0.95}, "loss": "ppo_clip"}
AGENT = {
    **POLICY, "name": "dqn", "loss": {"name": "td", "double": True},
    "task": {"name": "dqn", "start": 40, "sample": 16, "target_every": 6, "updates": 2,
             "explore_for": 20, "replay": 100},
    "budget": 50, "evaluate_every": 20, "log_every": 7, "checkpoint_every": 15,
}  # fmt: skip


def _with(recipe, **changes):
    made = copy.deepcopy(recipe)
    for path, value in changes.items():
        *way, last = path.split("__")
        at = made
        for key in way:
            at = at[key]
        at[last] = value
    return made


def _setup(recipe):
    return build_setup(resolve(recipe))


def _rows(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


class Killed(Exception):  # noqa: N818
    pass


class DieAt(ProgressLines):
    """Break off without a checkpoint, as a kill does."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def boundary(self, loop):
        if loop.state.step >= self.step:
            raise Killed


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b or (a != a and b != b)


EMA = [{"name": "ema", "decay": 0.8}]
RESUMED = {
    "gan": (GAN, (7, 11)),
    "gan, schedules, r1, ema": (
        _with(GAN, regularizers=EMA, loss="gan_non_saturating", schedule=["cosine"],
              clipping={"name": "clip_by_global_norm", "max_norm": 0.1},
              task__penalty="r1_penalty", task__critic_optimizer={
                  "name": "adam", "lr": {"base": 1e-3, "schedule": ["linear"]}}), (7,)),
    "reinforce": (REINFORCE, (6, 8)),
    "ppo": (PPO, (7,)),
    "dqn": (AGENT, (22, 46)),
    "dqn, soft, ema": (
        _with(AGENT, task__target_every=1, task__tau=0.1, regularizers=EMA,
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
    assert _rows(path) == _rows(tmp_path / "whole")
    for role in ("last", "best"):
        a, b = (Checkpoints(p / "checkpoints").load(role) for p in (path, tmp_path / "whole"))
        for state in (a, b):
            state.get("state", {}).pop("seconds", None)
        assert _same(a, b), role


def test_evaluating_more_often_changes_nothing(tmp_path):
    for recipe in (GAN, REINFORCE, AGENT):
        made = [train(_with(recipe, evaluate_every=n), out=tmp_path / f"{recipe['name']}{n}")
                for n in (3, 50)]  # fmt: skip
        a, b = (Checkpoints(r.run.checkpoints).load("last")["model"] for r in made)
        assert _same(a, b)


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
    setup = _setup(_with(GAN, budget=4, task__penalty=given, task__critic_steps=3))
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
    recipe = _with(
        GAN, regularizers=[*EMA, {"name": "l2_penalty", "weight": 0.1}, "early_stopping"],
        clipping={"name": "clip_by_global_norm", "max_norm": 1e-3}, schedule=["cosine"],
    )  # fmt: skip
    setup = _setup(recipe)
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
    result = train(_with(GAN, regularizers=EMA), out=tmp_path / "run")
    rows = _rows(tmp_path / "run")
    pairs = [(r["sliced_wasserstein"], v["sliced_wasserstein"]) for r in rows for v in rows
             if r["split"] == "raw" and v["split"] == "val" and r["step"] == v["step"]]  # fmt: skip
    assert len(pairs) == 3
    assert all(a != b for a, b in pairs)
    assert result.summary["best"]["raw"]


def test_swa_measures_batch_norm_with_noise(tmp_path):
    generator = {"name": "mlp", "hidden": [16], "normalization": "batch_norm"}
    swa = [{"name": "swa", "start": 4, "every": 2}]
    recipe = _with(GAN, model__generator=generator, regularizers=swa)
    assert train(recipe, out=tmp_path / "run").summary["best"]["raw"]


def test_a_schedule_of_the_critics_own_counts_its_steps():
    rate = {"base": 1e-3, "schedule": ["linear"]}
    setup = _setup(_with(GAN, budget=6, task__critic_optimizer={"name": "adam", "lr": rate}))
    seen = []
    step = setup.task.optimizer.step
    setup.task.optimizer.step = lambda: (seen.append(setup.task.optimizer.param_groups[0]["lr"]),
                                         step())  # fmt: skip
    Loop(setup.parts).run()
    np.testing.assert_allclose(seen, 1e-3 * (1 - np.arange(12) / 12), rtol=1e-6)


def test_rows_tell_of_the_critic_and_no_loss_of_held_out_data(tmp_path):
    train(GAN, out=tmp_path / "run")
    rows = _rows(tmp_path / "run")
    assert all("critic_loss" in row for row in rows if row["split"] == "train")
    assert all("loss" not in row for row in rows if row["split"] == "val")
    shown = np.load(tmp_path / "run" / "evaluation.npz")["shown_pictures"]
    assert shown.shape == (1, 1, 4 * 10, 16 * 10)
    assert shown.dtype == np.uint8
    assert 'alt="Generated samples of sample 1"' in (tmp_path / "run" / "report.html").read_text()


GAN_REFUSED = {
    "accumulate": ({"accumulate": 2}, "accumulate: gan trains two networks in turn"),
    "bf16": ({"precision": "bf16"}, "precision: gan .* fp32"),
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
        _setup(_with(GAN, **changes))


@pytest.mark.parametrize("loss", ["gan_minimax", "gan_least_squares", "gan_hinge"])
def test_every_game_trains(loss):
    setup = _setup(_with(GAN, loss=loss, task__penalty=None, budget=2))
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


# --- Environments ---------------------------------------------------------------------------------


class Corridor(gymnasium.Env):
    """Walk right from a place that the seed draws; the end at 6 pays 10, every step costs 1."""

    observation_space = gymnasium.spaces.Discrete(7)
    action_space = gymnasium.spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = int(self.np_random.integers(0, 3))
        return self.at, {}

    def step(self, action):
        self.at = max(0, self.at + (1 if action == 6 else -1))
        over = self.at == 6
        return self.at, 10.0 if over else -1.0, over, False, {}


gymnasium.register("Corridor-v0", entry_point=Corridor, max_episode_steps=8)


def test_environments_are_data(tmp_path):
    data = environment("Corridor-v0", episodes=30, val=20, seed=1)
    assert (data.input_shape, data.outputs, data.task) == ((7,), 2, "environment")
    assert not set(data.train.x.tolist()) & set(data.val.x.tolist())
    again, other = (environment("Corridor-v0", seed=s, episodes=30, val=20) for s in (1, 2))
    assert torch.equal(data.train.x, again.train.x)
    assert not torch.equal(data.train.x, other.train.x)
    longer = environment("Corridor-v0", seed=1, episodes=30, val=20, max_steps=9)
    assert longer.facts["fingerprint"] != data.facts["fingerprint"], "a resume notices"
    episode = _always_left("Corridor-v0", None)
    assert (len(episode.actions), episode.ended) == (8, False)
    assert len(_always_left("Corridor-v0", 5).actions) == 5
    assert episode.states.shape == (9, 7)
    for given, message in (
        ({"id": "Pendulum-v1"}, "Discrete action space"),
        ({"id": "Nothing-v0"}, "gymnasium cannot make 'Nothing-v0'"),
        ({"val": 0}, "val must be 1 or more"),
        ({"options": {"speed": 3}}, "cannot make 'CartPole-v1'.*speed"),
    ):
        with pytest.raises(RecipeError, match=message):
            _setup(_with(POLICY, data={"name": "gymnasium", **given}))
    with pytest.raises(RecipeError, match="for which there is"):
        _setup(_with(POLICY, task=None))


def _always_left(name, most):
    return play([Player(Game(name, most))], [4], lambda states: [0] * len(states))[0]


def test_an_episode_goes_on_from_its_seed_and_actions():
    one, other = Player(Game("CartPole-v1")), Player(Game("CartPole-v1"))
    one.reset(11)
    for action in (0, 1, 1):
        one.step(action)
    other.load_state_dict(one.state_dict())
    assert np.array_equal(one.state, other.state)
    assert one.step(0)[0] == other.step(0)[0]
    assert np.array_equal(one.state, other.state)
    assert (one.total, other.total) == (4.0, 4.0)


def test_greedy_episodes_take_the_best_action():
    right = torch.tensor([0.0, 1.0])
    players = [Player(Game("Corridor-v0")) for _ in range(5)]
    found = greedy(players, [1, 2, 3], lambda states: right.expand(len(states), 2))
    first = [p.env.reset(seed=s)[0].argmax() for p, s in zip(players, [1, 2, 3], strict=False)]
    assert found.tolist() == [10.0 - (5 - at) for at in first]


# --- Policy ---------------------------------------------------------------------------------------


def _advantages(episode, values, gamma, lam, baseline):
    """Return the advantages of one episode in float64, term by term."""
    count = len(episode.actions)
    found = []
    for t in range(count):
        total = 0.0
        for k in range(t, count):
            ends = k == count - 1 and (episode.ended or baseline == "none")
            after = 0.0 if ends else values[k + 1]
            total += (gamma * lam) ** (k - t) * (
                float(episode.rewards[k]) + gamma * after - values[k]
            )
        found.append(total)
    return np.array(found)


@pytest.mark.parametrize("baseline", ["value", "none"])
@pytest.mark.parametrize("lam", [1.0, 0.7])
def test_advantages_of_episodes_that_end_and_that_are_cut_off(baseline, lam):
    data = environment("Corridor-v0")
    task = Policy(data, gamma=0.9, lam=lam, baseline=baseline, normalize=False)
    torch.manual_seed(0)
    model = task.build(lambda input_shape, outputs: nn.Linear(*input_shape, outputs), data)
    torch.manual_seed(1)
    task.prepare(model, [(torch.arange(6), torch.arange(6))])
    torch.manual_seed(1)
    with torch.no_grad():
        episodes = play(
            [Player(Game("Corridor-v0")) for _ in range(6)], range(6),
            lambda s: model(s).softmax(1).multinomial(1).squeeze(1).tolist(),
        )  # fmt: skip
        assert {e.ended for e in episodes} == {True, False}, "both kinds are there"
        values = [model.values(e.states).double().numpy() for e in episodes]
    want = [_advantages(e, v, 0.9, lam, baseline) for e, v in zip(episodes, values, strict=True)]
    got = task.played["advantage"].double().numpy()
    np.testing.assert_allclose(got, np.concatenate(want), rtol=1e-4, atol=1e-5)
    returns = got + np.concatenate([v[:-1] for v in values])
    np.testing.assert_allclose(task.played["returns"].numpy(), returns, rtol=1e-4, atol=1e-5)
    assert task.measured()["mean_return"] == pytest.approx(
        np.mean([float(e.rewards.sum()) for e in episodes])
    )


def test_the_options_of_the_policy_do_something():
    data = environment("Corridor-v0")
    torch.manual_seed(0)
    model = ActorCritic(nn.Linear(7, 2), nn.Linear(7, 1))
    seen = {}
    for name, options in {
        "plain": {"normalize": False, "value_weight": 0.0}, "normalize": {"value_weight": 0.0},
        "entropy": {"normalize": False, "value_weight": 0.0, "entropy": 0.5},
        "value": {"normalize": False, "value_weight": 2.0},
    }.items():  # fmt: skip
        task = Policy(data, **options)
        torch.manual_seed(1)
        batch = (torch.arange(6), torch.arange(6))
        task.prepare(model, [batch])
        output = task.forward(model, batch[0])
        loss = lambda log_prob, advantage: -(log_prob * advantage).mean()  # noqa: E731
        seen[name] = float(task.loss(loss, output, *batch).detach()), task, output
    plain, task, output = seen["plain"]
    assert abs(float(seen["normalize"][1].played["advantage"].mean())) < 1e-5
    assert float(seen["normalize"][1].played["advantage"].std()) == pytest.approx(1, abs=1e-4)
    assert seen["entropy"][0] == pytest.approx(
        plain - 0.5 * float(output.entropy.detach().mean()), abs=1e-5
    )
    error = nn.functional.huber_loss(output.value.detach(), task.played["returns"])
    assert seen["value"][0] == pytest.approx(plain + 2 * float(error), rel=1e-4)


def test_ppo_uses_its_episodes_again_and_reinforce_does_not():
    setup = _setup(_with(PPO, budget=7))
    Loop(setup.parts).run()
    assert setup.task.left == 2, "steps 0, 3 and 6 played"
    setup = _setup(REINFORCE)
    log_prob = []
    prepare = setup.task.prepare
    setup.task.prepare = lambda *a: (prepare(*a), log_prob.append(setup.task.played["log_prob"]))[0]
    Loop(setup.parts).run()
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(log_prob))


def test_accumulated_episodes_are_one_batch():
    """Three batches of two seeds play the same episodes as one batch of six."""
    ends = []
    for size, accumulate in ((6, 1), (2, 3)):
        setup = _setup(_with(REINFORCE, batch_size=size, accumulate=accumulate, budget=3,
                             data__episodes=18))  # fmt: skip
        Loop(setup.parts).run()
        ends.append(setup.parts.model.state_dict())
    assert _same(*ends)


# --- DQN ------------------------------------------------------------------------------------------


def test_the_memory_forgets_the_oldest():
    memory = Replay(3, 1)
    for i in range(5):
        memory.add(state=[i], action=i, reward=float(i), next_state=[i + 1], done=i == 4)
    assert len(memory) == 3
    assert sorted(memory.parts["action"].tolist()) == [2, 3, 4]
    drawn = memory.sample(200, torch.device("cpu"))
    assert set(drawn["action"].tolist()) == {2, 3, 4}
    assert torch.equal(drawn["done"], drawn["action"] == 4)
    other = Replay(3, 1)
    other.load_state_dict(memory.state_dict())
    assert _same(other.parts, memory.parts)


def test_a_cut_off_episode_has_not_ended():
    setup = _setup(_with(AGENT, data={"name": "gymnasium", "id": "Corridor-v0"}, budget=30))
    Loop(setup.parts).run()
    parts, count = setup.task.memory.parts, len(setup.task.memory)
    assert set(parts["reward"][:count].tolist()) <= {10.0, -1.0}
    assert torch.equal(parts["done"][:count], parts["reward"][:count] == 10.0)


@pytest.mark.parametrize(("every", "tau"), [(6, 1.0), (1, 0.25)])
def test_the_steps_of_q_learning(every, tau):
    """The same steps by hand, from the transitions that were drawn."""
    recipe = _with(AGENT, task__target_every=every, task__tau=tau, budget=15)
    setup = _setup(recipe)
    q = copy.deepcopy(setup.parts.model)
    after = copy.deepcopy(q)
    adam = torch.optim.Adam(q.parameters(), lr=1e-2)
    drawn = []
    prepare = setup.task.prepare
    setup.task.prepare = lambda *a: (prepare(*a), drawn.append(setup.task.drawn))[0]
    Loop(setup.parts).run()
    for step, batch in enumerate(drawn, 1):
        adam.zero_grad()
        TDLoss(double=True)(q, after, batch).backward()
        adam.step()
        if step % every == 0:
            with torch.no_grad():
                for a, b in zip(after.parameters(), q.parameters(), strict=True):
                    a.copy_(a + tau * (b - a))
    for a, b in zip(q.parameters(), setup.parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    pairs = zip(after.parameters(), setup.task.target_model.parameters(), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_what_dqn_explores_plays_and_draws():
    setup = _setup(_with(AGENT, budget=50, task__start=41, task__explore_to=0.2))
    task = setup.task
    assert task.chance == 1.0
    Loop(setup.parts).run()
    assert task.chance == pytest.approx(0.2)
    task.step = 10
    assert task.chance == pytest.approx(0.6)
    # 42 before the first step (14 rounds of 3), then a round at every second one of 50 steps.
    assert task.memory.count == 42 + 3 * 24
    assert len(task.drawn["action"]) == 16
    share = _setup(_with(AGENT, budget=40, task__explore_for="25%")).task
    assert share.explored == 10


def test_without_exploring_the_best_action_is_taken():
    data = environment("Corridor-v0")
    task = DQN(data, start=1, explore_from=0.0, explore_to=0.0)
    model = nn.Linear(7, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([0.0, 1.0]))
    task.begin(model, TDLoss(), 10, 10)
    for _ in range(5):
        task.prepare(model, [(torch.arange(4), torch.arange(4))])
    assert set(task.memory.parts["action"][: len(task.memory)].tolist()) == {1}


AGENT_REFUSED = {
    "bf16": (POLICY, {"precision": "bf16"}, "precision: policy plays"),
    "augmentation": (POLICY, {"augmentation": ["cutout"]}, "samples of policy are seeds"),
    "adversary": (POLICY, {"regularizers": ["fgsm"]}, "adversarial training changes samples"),
    "snapshots": (AGENT, {"regularizers": ["snapshot_ensemble"]}, "mean of several agents"),
    "td": (POLICY, {"loss": "td"}, "td is not what policy trains on.*policy_gradient"),
    "policy": (AGENT, {"loss": "policy_gradient"}, "not what dqn trains on.*take td"),
    "mse": (AGENT, {"loss": "mse"}, "mse is not what dqn trains on"),
    "updates": (POLICY, {"task": {"name": "policy", "updates": 2}}, "take updates: 1, or"),
    "accumulate": (AGENT, {"accumulate": 2}, "accumulate: the gradient of dqn"),
    "both": (PPO, {"accumulate": 2}, "accumulate: with updates the same episodes"),
    "sophia": (POLICY, {"optimizer": "sophia_g"}, "sophia_g draws targets"),
    "metric": (AGENT, {"metrics": ["accuracy"]}, "take mean_return"),
    "no metric": (AGENT, {"metrics": []}, "there must be a metric: mean_return"),
    "classes": (POLICY, {"data": "digits"}, "policy takes environment data, and digits"),
    "task": (POLICY, {"task": "classification"}, "takes classification data"),
    "gamma": (POLICY, {"task": {"name": "policy", "gamma": 2.0}}, "gamma must be 0 to 1"),
    "start": (AGENT, {"task__start": 500}, "start must be at most replay, 100"),
    "tau": (AGENT, {"task__tau": 0.0}, "tau must be above 0"),
    "explore": (AGENT, {"task__explore_to": 1.5}, "explore_to must be 0 to 1"),
    "workers": (POLICY, {"workers": 2}, "workers=2 has no effect"),
}  # fmt: skip


@pytest.mark.parametrize("case", AGENT_REFUSED)
def test_what_makes_no_sense_with_an_agent_is_refused_with_a_reason(case):
    recipe, changes, message = AGENT_REFUSED[case]
    with pytest.raises(RecipeError, match=message):
        _setup(_with(recipe, **changes))


@pytest.mark.parametrize("optimizer", ["nag", "sophia_h", "lbfgs"])
@pytest.mark.parametrize("recipe", [REINFORCE, AGENT], ids=["policy", "dqn"])
def test_optimizers_that_ask_for_more_than_gradients(recipe, optimizer):
    """Their closure asks again: the same episodes and transitions answer."""
    setup = _setup(_with(recipe, optimizer={"name": optimizer, "lr": 1e-3}, budget=4))
    assert Loop(setup.parts).run() == "budget"
    assert math.isfinite(float(setup.parts.evaluator.run(setup.parts.model)["mean_return"]))


def test_early_stopping_on_the_mean_return(tmp_path):
    stopping = {"name": "early_stopping", "patience": 2}
    recipe = _with(
        REINFORCE, budget=40, evaluate_every=1, regularizers=[stopping],
        optimizer={"name": "sgd", "lr": 1e-9}, data={"name": "gymnasium", "id": "Corridor-v0"},
    )  # fmt: skip
    result = train(recipe, out=tmp_path / "run")
    assert result.summary["exit_reason"] == "early_stop"
    assert result.summary["steps"] == 3
    assert result.summary["monitor"] == {"name": "mean_return", "mode": "max"}


def test_rows_of_agents(tmp_path):
    for recipe, names in ((REINFORCE, {"mean_return", "entropy", "value_loss"}),
                          (AGENT, {"mean_return", "q", "explore"})):  # fmt: skip
        path = tmp_path / recipe["name"]
        train(recipe, out=path)
        rows = _rows(path)
        found = set().union(*(row for row in rows if row["split"] == "train"))
        assert names <= found
        assert all("loss" not in row for row in rows if row["split"] == "val")
        assert (path / "report.html").is_file()


def test_the_range_test_leaves_no_trace():
    from brickyard.train.lr_range import lr_range_of

    for recipe in (GAN, REINFORCE, AGENT):
        found = lr_range_of(resolve(recipe), low=1e-6, high=1e-3, steps=4)
        assert len(found.losses) == 4


def test_episodes_are_plain():
    episode = _always_left("Corridor-v0", None)
    assert isinstance(episode, Episode)
    assert episode.rewards.dtype == torch.float32
