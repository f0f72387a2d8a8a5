"""What torch's own tools do to an optimizer: hooks, schedulers, scalers, copies, groups."""

from __future__ import annotations

import copy
import importlib
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from brickyard import optim
from brickyard.catalog import shelf
from brickyard.optim import Optimizer, chain, clip_by_global_norm, ema_weights, hooks, scale_by_adam

BACKENDS = ["eager", "foreach", "native"]
#: Every optimizer that takes gradients, with options under which it has all the state it can have.
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9}, "rmsprop": {"momentum": 0.9, "centered": True},
    "adafactor": {"momentum": 0.9}, "adabound": {"amsbound": True}, "adam": {"amsgrad": True},
    "ranger": {"k": 3}, "sophia_g": {"update_interval": 3}, "sophia_h": {"update_interval": 3},
}  # fmt: skip
KEYS = [c.key for c in shelf("optimizer") if c.key not in ("cma_es", "lbfgs", "lookahead")]


def draw(params: Sequence[torch.Tensor], seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, generator=generator)).to(p.dtype)


def build(key: str, params: Any, **more: Any) -> Any:
    kind: Any = next(c for c in shelf("optimizer") if c.key == key).load()
    return kind(params, **{"lr": 0.05, **OPTIONS.get(key, {}), **more})


def walk(optimizer: Any, params: Sequence[torch.Tensor], steps: range) -> None:
    for step in steps:
        draw(params, step)
        if getattr(optimizer, "hessian_due", False):
            optimizer.record_hessian([p.grad.abs() for p in params])
        optimizer.step(lambda: 0.0)


def weights(params: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [p.detach().clone() for p in params]


def through_pickle(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


def through_save(pair: Any) -> Any:
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [copy.deepcopy, through_pickle, through_save])
@pytest.mark.parametrize("key", KEYS)
def test_copies_in_mid_training_go_on_identically(make: Any, key: str, way: Any) -> None:
    params = make()
    optimizer = build(key, params)
    walk(optimizer, params, range(4))
    others, twin = way((params, optimizer))
    walk(optimizer, params, range(4, 9))
    after = weights(params)
    walk(twin, others, range(4, 9))
    for mine, other in zip(after, weights(others), strict=True):
        assert torch.equal(mine, other)
    assert twin.steps == optimizer.steps == 9
    for p, q in zip(params, others, strict=True):
        for name, value in optimizer.state[p].items():
            assert torch.equal(value, twin.state[q][name])
            assert value is not twin.state[q][name]


@pytest.mark.parametrize("key", KEYS)
def test_state_dicts_are_plain_and_go_on_identically(make: Any, key: str) -> None:
    params, others = make(), make()
    optimizer, twin = build(key, params), build(key, others)
    walk(optimizer, params, range(4))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        for p, q in zip(params, others, strict=True):
            q.copy_(p)
    twin.load_state_dict(torch.load(file, weights_only=True))
    walk(optimizer, params, range(4, 9))
    walk(twin, others, range(4, 9))
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)


SCHEDULES: list[Callable[[Any], Any]] = [
    lambda o: lr_scheduler.StepLR(o, 2, 0.5), lambda o: lr_scheduler.CosineAnnealingLR(o, 7),
    lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=8),
    lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 2),
    lambda o: lr_scheduler.LambdaLR(o, [lambda k: 1 / (k + 1), lambda k: 0.9**k]),
    lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 3), lr_scheduler.ExponentialLR(o, 0.8)], [3]),
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["step", "cosine", "one cycle", "cyclic",
                                                     "lambda", "sequential"])  # fmt: skip
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_torchs_schedulers_drive_rates_and_momenta(make: Any, schedule: Any) -> None:
    ours, theirs = make(), make()
    pairs = []
    for kind, params in ((optim.AdamW, ours), (torch.optim.AdamW, theirs)):
        optimizer: Any = kind([{"params": params[:2]}, {"params": params[2:], "lr": 0.02}], lr=0.1)
        pairs.append((optimizer, schedule(optimizer), params))
    for step in range(8):
        for optimizer, scheduler, params in pairs:
            draw(params, step)
            optimizer.step()
            scheduler.step()
        for mine, other in zip(pairs[0][0].param_groups, pairs[1][0].param_groups, strict=True):
            assert (mine["lr"], mine["betas"]) == (other["lr"], other["betas"])
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scaled", [False, True])
def test_one_group_may_climb_while_the_other_descends(
    make: Any, backend: str, scaled: bool
) -> None:
    ours, theirs = make(), make()
    pairs = []
    for kind, params, more in ((optim.AdamW, ours, {"backend": backend}),
                               (torch.optim.AdamW, theirs, {"foreach": False})):  # fmt: skip
        groups = [{"params": params[:2]}, {"params": params[2:], "maximize": True}]
        pairs.append((kind(groups, lr=0.1, weight_decay=0.3, **more), params))
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(torch.tensor(1.0))
    for step in range(6):
        for optimizer, params in pairs:
            optimizer.param_groups[0]["maximize"] = step >= 4  # and may change its mind
            unscale = scaled and optimizer is pairs[0][0]
            draw(params, step, 64.0 if unscale else 1.0)
            kept = [p.grad.clone() for p in params]
            if unscale:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
            assert all(torch.equal(p.grad, g) for p, g in zip(params, kept, strict=True))
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "NAG", "LARS", "Adafactor", "Muon", "Lion"])
def test_climbing_is_descending_on_the_turned_gradient(make: Any, name: str) -> None:
    up, down = make(), make()
    climbs: Any = getattr(optim, name)([{"params": up[:1]}, {"params": up[1:], "maximize": True}])
    falls: Any = getattr(optim, name)(down)
    for step in range(3):
        draw(up, step)
        draw(down, step)
        for p in down[1:]:
            p.grad.neg_()
        climbs.step(lambda: 0.0)
        falls.step(lambda: 0.0)
    torch.testing.assert_close(weights(up), weights(down), rtol=0, atol=0)


def test_sophia_turns_the_curvature_of_the_group_that_climbs() -> None:
    p, q = (torch.nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    optimizer = optim.SophiaH([{"params": [p]}, {"params": [q], "maximize": True}],
                              betas=(0.9, 0.0))  # fmt: skip
    optimizer.update_hessian(lambda: (p**2).sum() - (q**2).sum(), probe="rademacher")
    assert optimizer.state[p]["hessian"].tolist() == [2.0, 2.0]
    assert optimizer.state[q]["hessian"].tolist() == [2.0, 2.0]
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    assert optimizer.hessian_due  # the new group has no estimate yet


def test_a_group_added_in_mid_training_starts_at_its_own_first_step(make: Any) -> None:
    ours, theirs = make(), make()
    pairs = [(optim.NAdam(ours[:2], lr=0.1), ours), (torch.optim.NAdam(theirs[:2], lr=0.1), theirs)]
    schedules = [lr_scheduler.ExponentialLR(optimizer, 0.9) for optimizer, _ in pairs]
    for step in range(8):
        for (optimizer, params), schedule in zip(pairs, schedules, strict=True):
            if step == 4:
                optimizer.add_param_group({"params": params[2:], "betas": (0.8, 0.95)})
            draw(params, step)
            optimizer.step()
            if step < 4:
                schedule.step()
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)
    assert float(pairs[0][0].state[ours[3]]["step"]) == 4
    saved = pairs[0][0].state_dict()
    again = optim.NAdam([{"params": ours[:2]}, {"params": ours[2:]}])
    again.load_state_dict(saved)
    assert again.param_groups[1]["betas"] == (0.8, 0.95)


def test_master_weights_are_saved_restored_and_survive_a_scaler() -> None:
    start = torch.linspace(-1, 1, 12).reshape(3, 4)
    half = torch.nn.Parameter(start.to(torch.float16))
    full = torch.nn.Parameter(start.to(torch.float16).float())
    optimizer = optim.AdamW([half], lr=1e-4, master_weights=True)
    reference = optim.AdamW([full], lr=1e-4)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.tensor(1.0))
    for step in range(40):
        full.grad = torch.cos(start + step).half().float()
        half.grad = full.grad.half() * 8
        reference.step()
        scaler.step(optimizer)
        scaler.update()
        if step == 20:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = optim.AdamW([half], lr=1e-4, master_weights=True)
            optimizer.load_state_dict(saved)
    master = optimizer.state[half]["master"]
    assert master.dtype == torch.float32
    torch.testing.assert_close(master, full.detach(), rtol=1e-6, atol=1e-7)
    assert torch.equal(half.detach(), master.half())


def test_a_piece_of_ones_own_keeps_its_state_through_a_checkpoint(make: Any) -> None:
    straight, resumed = make(), make()

    def composed(params: Any) -> Optimizer:
        pieces = chain(clip_by_global_norm(0.5), scale_by_adam(), ema_weights(0.9, every=2))
        return Optimizer(params, pieces, lr=lambda k: 0.1 / (k + 1))

    whole, first = composed(straight), composed(resumed)
    walk(whole, straight, range(9))
    walk(first, resumed, range(4))
    second = composed(resumed)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    walk(second, resumed, range(4, 9))
    for p, q in zip(straight, resumed, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(whole.state[p]["ema"], second.state[q]["ema"])


def listen(optimizer: Any) -> list[str]:
    """Register a hook of every kind; return the list into which they write."""
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *a: seen.append("step"))
    optimizer.register_step_post_hook(lambda *a: seen.append("stepped"))
    optimizer.register_state_dict_pre_hook(lambda *a: seen.append("save"))
    optimizer.register_state_dict_post_hook(lambda *a: seen.append("saved"))
    optimizer.register_load_state_dict_pre_hook(lambda *a: seen.append("load"))
    optimizer.register_load_state_dict_post_hook(lambda *a: seen.append("loaded"))
    return seen


ALL = ["step", "stepped", "save", "saved", "load", "loaded"]


@pytest.mark.parametrize("key", ["sgd", "nag", "sophia_g"])
def test_every_hook_is_called_once(make: Any, key: str) -> None:
    params = make()
    optimizer = build(key, params)
    seen = listen(optimizer)
    walk(optimizer, params, range(1))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ALL
    handles = [register_optimizer_step_pre_hook(lambda *a: seen.append("all")),
               register_optimizer_step_post_hook(lambda *a: seen.append("all"))]  # fmt: skip
    try:
        walk(optimizer, params, range(1))
    finally:
        for handle in handles:
            handle.remove()
    assert seen[6:] == ["all", "step", "stepped", "all"]
    walk(build(key, params), params, range(1))
    assert len(seen) == 10


def test_hooks_may_change_what_is_saved_and_loaded(make: Any) -> None:
    params = make()
    optimizer = optim.AdamW(params, lr=0.1)
    handle = optimizer.register_state_dict_post_hook(lambda o, found: {**found, "note": 1})
    optimizer.register_load_state_dict_pre_hook(
        lambda o, found: {k: v for k, v in found.items() if k != "note"}
    )
    order: list[int] = []
    optimizer.register_state_dict_pre_hook(lambda o: order.append(2))
    optimizer.register_state_dict_pre_hook(lambda o: order.append(1), prepend=True)
    saved = optimizer.state_dict()
    assert (saved["note"], order) == (1, [1, 2])
    optimizer.load_state_dict(saved)
    handle.remove()
    assert "note" not in optimizer.state_dict()


def test_the_profiler_sees_steps(make: Any) -> None:
    params = make()
    optimizer = optim.AdamW(params)
    draw(params, 0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        optimizer.step()
    assert any("Optimizer.step#AdamW" in event.name for event in found.events())


@pytest.mark.parametrize("gone", ["_global_optimizer_pre_hooks", "_global_optimizer_post_hooks",
                                  "_is_profiler_enabled", "profile_hook_step"])  # fmt: skip
def test_without_torchs_private_names_steps_only_take_longer(
    make: Any, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    owner = {"_is_profiler_enabled": torch.autograd.profiler,
             "profile_hook_step": torch.optim.Optimizer}.get(
        gone, importlib.import_module("torch.optim.optimizer"))  # fmt: skip
    with monkeypatch.context() as patch:
        patch.delattr(owner, gone)

        class Bare(optim.SGD):
            step = hooks.light(lambda self, closure=None: self._step(closure))

        assert not hasattr(Bare.step, "hooked")
    params, others = make(), make()
    optimizer, reference = Bare(params, lr=0.1), optim.SGD(others, lr=0.1)  # torch wraps it itself
    assert Bare.step.hooked  # type: ignore[attr-defined]
    seen = listen(optimizer)
    walk(optimizer, params, range(2))
    walk(reference, others, range(2))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == [*ALL[:2], *ALL]
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_a_missing_list_of_hooks_sends_steps_the_long_way(make: Any) -> None:
    params = make()
    optimizer = optim.SGD(params, lr=0.1)
    seen = listen(optimizer)
    hidden = optimizer.__dict__.pop("_optimizer_step_post_hooks")
    optimizer.__class__._optimizer_step_post_hooks = hidden  # as if torch kept it elsewhere
    try:
        walk(optimizer, params, range(1))
    finally:
        del optimizer.__class__._optimizer_step_post_hooks
    assert seen == ["step", "stepped"]


def test_a_rate_that_becomes_nan_changes_nothing(make: Any) -> None:
    params = make()
    optimizer = optim.AdamW(params, lr=lambda k: 0.1 if k < 2 else float("nan"))
    walk(optimizer, params, range(2))
    kept = weights(params)
    with pytest.raises(ValueError, match="lr of group 0 is NaN after 2 steps"):
        walk(optimizer, params, range(1))
    assert all(torch.equal(p, w) for p, w in zip(params, kept, strict=True))


def test_gradients_are_let_go_of_or_become_zeros() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = optim.AdamW([p], lr=0.1)
    p.grad = kept = torch.ones(3)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is kept
    assert not kept.any()
    optimizer.zero_grad()
    assert p.grad is None
