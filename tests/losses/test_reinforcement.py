"""Returns and advantages against loops; targets without gradients; ends and truncations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import brickyard.losses as L

T, N = 7, 3


@st.composite
def episodes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31 - 1)))
    done = rng.random((T, N)) < draw(st.sampled_from([0.0, 0.2, 0.5]))
    cut = (rng.random((T, N)) < 0.2) & ~done
    return rng.normal(size=(T, N)), rng.normal(size=(T, N)), rng.normal(size=(T, N)), done, cut


def tensors(*arrays):
    return [torch.from_numpy(a) for a in arrays]


@settings(max_examples=60, deadline=None)
@given(episodes(), st.sampled_from([0.0, 0.9, 1.0]))
def test_discounted_returns(episode, gamma):
    """Sum forward from each step until something ends the episode."""
    rewards, _, after, done, cut = episode
    wanted = np.zeros((T, N))
    for t, n in np.ndindex(T, N):
        for k in range(t, T):
            wanted[t, n] += gamma ** (k - t) * rewards[k, n]
            if done[k, n]:
                break
            if cut[k, n] or k == T - 1:
                wanted[t, n] += gamma ** (k - t + 1) * after[k, n]
                break
    r, v, d, c = tensors(rewards, after, done, cut)
    found = L.discounted_returns(r, d, gamma, c, v)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    column = L.discounted_returns(r[:, 0], d[:, 0], gamma, c[:, 0], v[:, 0])
    torch.testing.assert_close(column, found[:, 0])


@settings(max_examples=60, deadline=None)
@given(episodes(), st.sampled_from([0.9, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_gae(episode, gamma, lam):
    """The paper's sum of discounted one-step errors, eq. 16, up to the end of the episode."""
    rewards, values, after, done, cut = episode
    wanted = np.zeros((T, N))
    for t, n in np.ndindex(T, N):
        for k in range(t, T):
            error = rewards[k, n] + gamma * after[k, n] * (not done[k, n]) - values[k, n]
            wanted[t, n] += (gamma * lam) ** (k - t) * error
            if done[k, n] or cut[k, n]:
                break
    r, b, v, d, c = tensors(rewards, values, after, done, cut)
    found = L.gae(r, b, v, d, gamma, lam, c)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(episodes(), st.integers(1, 9), st.sampled_from([0.5, 1.0]))
def test_n_step_returns(episode, n_steps, gamma):
    rewards, _, after, done, cut = episode
    wanted = np.zeros((T, N))
    for t, n in np.ndindex(T, N):
        for k in range(t, min(t + n_steps, T)):
            wanted[t, n] += gamma ** (k - t) * rewards[k, n]
            if done[k, n]:
                break
            if cut[k, n] or k in (T - 1, t + n_steps - 1):
                wanted[t, n] += gamma ** (k - t + 1) * after[k, n]
                break
    r, v, d, c = tensors(rewards, after, done, cut)
    found = L.n_step_returns(r, v, d, n_steps, gamma, c)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(episodes())
def test_ends_of_the_scales_agree(episode):
    """GAE with lambda 1 is the return minus the value; n steps at least T are all of them."""
    rewards, values, after, done, cut = episode
    after[:-1] = np.where(done | cut, after, np.roll(values, -1, 0))[:-1]  # the same states
    r, b, v, d, c = tensors(rewards, values, after, done, cut)
    returns = L.discounted_returns(r, d, 0.9, c, v)
    torch.testing.assert_close(L.gae(r, b, v, d, 0.9, 1.0, c) + b, returns)
    torch.testing.assert_close(L.n_step_returns(r, v, d, T, 0.9, c), returns)


def test_a_truncated_episode_is_not_over():
    r, zero = torch.ones(2), torch.zeros(2)
    over = L.discounted_returns(r, torch.tensor([1, 1]), 0.5)
    cut = L.discounted_returns(r, zero, 0.5, torch.tensor([1, 1]), torch.tensor([8.0, 8.0]))
    assert over.tolist() == [1, 1]
    assert cut.tolist() == [5, 5]
    with pytest.raises(ValueError, match="give next_values"):
        L.discounted_returns(r, zero, 0.5, torch.tensor([0, 1]))


def test_helpers_take_no_gradient_and_check_shapes():
    r = torch.ones(3, requires_grad=True)
    assert not L.discounted_returns(r, torch.zeros(3)).requires_grad
    for bad in (torch.zeros(3, 1), torch.zeros(2)):
        with pytest.raises(ValueError, match="everything must have the shape of rewards"):
            L.gae(r, r, r, bad)
    with pytest.raises(ValueError, match="gamma must be at least 0 and at most 1"):
        L.discounted_returns(r, torch.zeros(3), gamma=1.1)
    with pytest.raises(ValueError, match="n must be at least 1"):
        L.n_step_returns(r, r, torch.zeros(3), 0)


def networks():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 4).double(), torch.nn.Linear(3, 4).double()


def batch(done=(0, 1)):
    return {
        "state": torch.randn(2, 3).double(), "action": torch.tensor([1, 3]),
        "reward": torch.tensor([1.0, 2.0]).double(), "next_state": torch.randn(2, 3).double(),
        "done": torch.tensor(done).bool(),
    }  # fmt: skip


@pytest.mark.parametrize("double", [False, True])
def test_td_by_hand(double):
    q, frozen = networks()
    data = batch()
    loss = L.TDLoss(gamma=0.5, double=double, reduction="none")(q, frozen, data)
    for i in range(2):
        after = frozen(data["next_state"][i])
        best = after[q(data["next_state"][i]).argmax()] if double else after.max()
        y = data["reward"][i] + (0 if data["done"][i] else 0.5 * best)
        error = q(data["state"][i])[data["action"][i]] - y
        torch.testing.assert_close(loss[i], 0.5 * error**2)
    loss.sum().backward()
    assert all(p.grad is None for p in frozen.parameters())
    found = [p.grad.clone() for p in q.parameters()]
    q.zero_grad()
    chosen = q(data["state"])[torch.arange(2), data["action"]]
    (0.5 * (chosen - target(q, frozen, data, double)) ** 2).sum().backward()
    for a, p in zip(found, q.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)


def target(q, frozen, data, double):
    with torch.no_grad():
        after = frozen(data["next_state"])
        best = q(data["next_state"]).argmax(1) if double else after.argmax(1)
        return data["reward"] + 0.5 * ~data["done"] * after[torch.arange(2), best]


def test_a_terminal_state_is_never_bootstrapped():
    q, _ = networks()
    data = batch(done=(1, 1))
    infinite = lambda x: torch.full((len(x), 4), float("inf"), dtype=torch.float64)  # noqa: E731
    assert L.td_loss(q, infinite, data).isfinite()


def test_td_takes_objects_and_refuses_bad_batches():
    q, frozen = networks()
    data = batch()

    class Batch:
        pass

    thing = Batch()
    vars(thing).update(data)
    torch.testing.assert_close(L.td_loss(q, frozen, thing), L.td_loss(q, frozen, data))
    with pytest.raises(ValueError, match="'done' is not in"):
        L.td_loss(q, frozen, {k: v for k, v in data.items() if k != "done"})
    with pytest.raises(ValueError, match=r"reward must have shape \(2,\).*got \(2, 1\)"):
        L.td_loss(q, frozen, {**data, "reward": data["reward"].unsqueeze(1)})
    with pytest.raises(ValueError, match=r"action must lie in \[0, 4\)"):
        L.td_loss(q, frozen, {**data, "action": torch.tensor([0, 4])})
    with pytest.raises(TypeError, match="action must hold integers"):
        L.td_loss(q, frozen, {**data, "action": torch.zeros(2)})
    big = L.td_loss(q, frozen, data, kind="huber", delta=0.1)
    assert big < L.td_loss(q, frozen, data, kind="huber", delta=1.0)


def test_targets_and_advantages_are_detached():
    a, b = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    old = torch.randn(3, requires_grad=True)
    total = L.policy_gradient_loss(a, b) + L.value_loss(a, b) + L.ppo_clip_loss(a, old, b)
    total.backward()
    assert a.grad is not None
    assert b.grad is None
    assert old.grad is None


def test_entropy_needs_its_argument():
    a = torch.randn(3)
    with pytest.raises(ValueError, match=r"entropy_weight=0\.1 needs the policy's entropy"):
        L.policy_gradient_loss(a, a, entropy_weight=0.1)


def test_value_loss_has_the_half_and_delta():
    v, r = torch.tensor([3.0]), torch.tensor([0.0])
    assert L.value_loss(v, r).item() == 4.5
    assert L.value_loss(v, r, kind="huber", delta=2.0).item() == 2 * (3 - 1)


def test_ppo_stops_once_the_ratio_has_moved():
    """The gradient is 0 exactly where the step would go further in the good direction."""
    old = torch.zeros(4)
    new = torch.tensor([1.3, 1.3, 0.7, 0.7]).log().requires_grad_()
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    (grad,) = torch.autograd.grad(L.ppo_clip_loss(new, old, advantage, reduction="sum"), new)
    assert (grad != 0).tolist() == [False, True, True, False]
