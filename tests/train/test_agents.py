"""Environments and agents: returns, replay and targets against hand calculations."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from game_cases import (
    AGENT,
    POLICY,
    PPO,
    REINFORCE,
    changed,
    rows_of,
    same,
    set_up,
)
from torch import nn

import brickyard.nn
import brickyard.train.data.environments
import brickyard.train.metrics_games  # noqa: F401  their cards
from brickyard.errors import RecipeError
from brickyard.losses import TDLoss
from brickyard.train import train
from brickyard.train.data import gymnasium as environment
from brickyard.train.loop import Loop
from brickyard.train.playing import Episode, Game, Player, greedy, play
from brickyard.train.tasks.dqn import DQN, Replay
from brickyard.train.tasks.policy import ActorCritic, Policy

# --- Environments ---------------------------------------------------------------------------------


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
            set_up(changed(POLICY, data={"name": "gymnasium", **given}))
    with pytest.raises(RecipeError, match="for which there is"):
        set_up(changed(POLICY, task=None))


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
    setup = set_up(changed(PPO, budget=7))
    Loop(setup.parts).run()
    assert setup.task.left == 2, "steps 0, 3 and 6 played"
    setup = set_up(REINFORCE)
    log_prob = []
    prepare = setup.task.prepare
    setup.task.prepare = lambda *a: (prepare(*a), log_prob.append(setup.task.played["log_prob"]))[0]
    Loop(setup.parts).run()
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(log_prob))


def test_accumulated_episodes_are_one_batch():
    """Three batches of two seeds play the same episodes as one batch of six."""
    ends = []
    for size, accumulate in ((6, 1), (2, 3)):
        setup = set_up(changed(REINFORCE, batch_size=size, accumulate=accumulate, budget=3,
                             data__episodes=18))  # fmt: skip
        Loop(setup.parts).run()
        ends.append(setup.parts.model.state_dict())
    assert same(*ends)


# --- DQN ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_the_memory_forgets_the_oldest(at_once):
    memory = Replay(3, 1)
    for some in np.array_split(np.arange(5), range(at_once, 5, at_once)):
        memory.add(state=some[:, None], action=some, reward=some + 0.5,
                   next_state=some[:, None] + 1, done=some == 4)  # fmt: skip
    assert len(memory) == 3
    assert sorted(memory.parts["action"].tolist()) == [2, 3, 4]
    drawn = memory.sample(200, torch.device("cpu"))
    assert set(drawn["action"].tolist()) == {2, 3, 4}
    assert torch.equal(drawn["done"], drawn["action"] == 4)
    assert torch.equal(drawn["reward"], drawn["action"] + 0.5)
    assert torch.equal(drawn["next_state"], drawn["state"] + 1)
    other = Replay(3, 1)
    other.load_state_dict(memory.state_dict())
    assert same(other.parts, memory.parts)


def test_a_cut_off_episode_has_not_ended():
    setup = set_up(changed(AGENT, data={"name": "gymnasium", "id": "Corridor-v0"}, budget=30))
    Loop(setup.parts).run()
    parts, count = setup.task.memory.parts, len(setup.task.memory)
    assert set(parts["reward"][:count].tolist()) <= {10.0, -1.0}
    assert torch.equal(parts["done"][:count], parts["reward"][:count] == 10.0)


@pytest.mark.parametrize(("every", "tau"), [(6, 1.0), (1, 0.25)])
def test_the_steps_of_q_learning(every, tau):
    """The same steps by hand, from the transitions that were drawn."""
    recipe = changed(AGENT, task__target_every=every, task__tau=tau, budget=15)
    setup = set_up(recipe)
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
    setup = set_up(changed(AGENT, budget=50, task__start=41, task__explore_to=0.2))
    task = setup.task
    assert task.chance == 1.0
    Loop(setup.parts).run()
    assert task.chance == pytest.approx(0.2)
    task.step = 10
    assert task.chance == pytest.approx(0.6)
    # 42 before the first step (14 rounds of 3), then a round at every second one of 50 steps.
    assert task.memory.count == 42 + 3 * 24
    assert len(task.drawn["action"]) == 16
    share = set_up(changed(AGENT, budget=40, task__explore_for="25%")).task
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
    "compile": (AGENT, {"compile": True}, "compile: dqn calls the network"),
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
        set_up(changed(recipe, **changes))


@pytest.mark.parametrize("optimizer", ["nag", "sophia_h", "lbfgs"])
@pytest.mark.parametrize("recipe", [REINFORCE, AGENT], ids=["policy", "dqn"])
def test_optimizers_that_ask_for_more_than_gradients(recipe, optimizer):
    """Their closure asks again: the same episodes and transitions answer."""
    setup = set_up(changed(recipe, optimizer={"name": optimizer, "lr": 1e-3}, budget=4))
    assert Loop(setup.parts).run() == "budget"
    assert math.isfinite(float(setup.parts.evaluator.run(setup.parts.model)["mean_return"]))


def test_early_stopping_on_the_mean_return(tmp_path):
    stopping = {"name": "early_stopping", "patience": 2}
    recipe = changed(
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
        rows = rows_of(path)
        found = set().union(*(row for row in rows if row["split"] == "train"))
        assert names <= found
        assert all("loss" not in row for row in rows if row["split"] == "val")
        assert (path / "report.html").is_file()


def test_episodes_are_plain():
    episode = _always_left("Corridor-v0", None)
    assert isinstance(episode, Episode)
    assert episode.rewards.dtype == torch.float32
