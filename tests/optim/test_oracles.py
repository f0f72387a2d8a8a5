"""Every optimizer against its paper, transcribed to float64 NumPy: 60 steps, weights and state."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import optimizer_papers as papers
import optimizer_papers_layerwise as layerwise
import pytest
import torch
from optimizer_cases import CASES, IDS, PAIRS

from brickyard import optim

SHAPES = ((4, 3), (3, 5), (5,), (2, 3, 4), ())
STEPS = 60
#: Options with tests of their own: they turn the sign, choose how the step is run, or matter only
#: when the rate changes.
OUTSIDE = {"params", "maximize", "engine", "velocity"}


def draws(dtype: type = np.float64) -> tuple[list[Any], list[list[Any]]]:
    source = np.random.default_rng(7)
    start = [np.asarray(source.normal(size=s), dtype) for s in SHAPES]
    # Scales differ between steps, weights and signs: every max, sign and clip is exercised.
    grads = [[np.asarray(source.normal(size=s) * 10 ** source.uniform(-2, 1), dtype)
              for s in SHAPES] for _ in range(STEPS)]  # fmt: skip
    return start, grads


def transcription(name: str, w: Any, grads: Any, options: Any) -> tuple[list[Any], dict[str, Any]]:
    key = name.lower()
    if name == "Muon":
        options, betas = {**options}, options.get("betas", (0.9, 0.999))
        options.pop("betas", None)
        if np.ndim(w) < 2:
            lr, shrink = options.get("lr", 1e-3), options.get("weight_decay", 0.1)
            return papers.adamw(w, grads, lr=lr, weight_decay=shrink, betas=betas)
    module = papers if hasattr(papers, key) else layerwise
    return getattr(module, key)(w, grads, **options)


def run(optimizer: Any, params: list[torch.nn.Parameter], grads: Any) -> list[list[torch.Tensor]]:
    path = []
    for row in grads:
        for p, g in zip(params, row, strict=True):
            p.grad = torch.from_numpy(g.copy()).to(p.dtype)
        optimizer.step()
        path.append([p.detach().clone() for p in params])
    return path


def parameters(start: list[Any]) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in start]


@pytest.mark.parametrize("sign", [1, -1], ids=["down", "up"])
@pytest.mark.parametrize(("name", "options"), PAIRS, ids=IDS)
def test_09_the_code_equals_the_paper(name: str, options: dict[str, Any], sign: int) -> None:
    start, grads = draws()
    params = parameters(start)
    optimizer = getattr(optim, name)(params, backend="eager", maximize=sign < 0, **options)
    path = run(optimizer, params, grads)
    for i, (p, w) in enumerate(zip(params, start, strict=True)):
        expected, state = transcription(name, w, [sign * row[i] for row in grads], options)
        ours = np.stack([row[i].numpy() for row in path])
        np.testing.assert_allclose(ours, np.stack(expected), rtol=1e-8, atol=1e-10)
        assert set(optimizer.state[p]) - {"step"} == set(state)
        for key, value in state.items():
            np.testing.assert_allclose(
                optimizer.state[p][key].numpy(), value, rtol=1e-8, atol=1e-12, err_msg=key
            )


@pytest.mark.parametrize("name", CASES)
def test_every_option_is_tested_where_it_matters(name: str) -> None:
    start, grads = draws()
    seen = set()
    for options in CASES[name]:
        paths = {}
        for left_out in (None, *options):
            rest = {k: v for k, v in options.items() if k != left_out}
            found = [transcription(name, w, [row[i] for row in grads], rest)[0]
                     for i, w in enumerate(start)]  # fmt: skip
            paths[left_out] = np.concatenate([np.stack(x).ravel() for x in found])
        for key in options:
            if np.abs(paths[key] - paths[None]).max() > 1e-6:
                seen.add(key)
    known = set(inspect.signature(getattr(optim, name)).parameters)
    assert known - OUTSIDE == seen - OUTSIDE


def test_bounds_of_the_authors_code_follow_a_scheduled_rate() -> None:
    start, grads = draws()
    rates = [0.02 * 0.9**k for k in range(STEPS)]
    params = parameters(start)
    optimizer = optim.AdaBound(params, lr=lambda k: rates[k], form="code", gamma=0.2)
    path = run(optimizer, params, grads)
    expected, _ = papers.adabound(start[0], [row[0] for row in grads], lr=rates, form="code",
                                  gamma=0.2)  # fmt: skip
    np.testing.assert_allclose(path[-1][0].numpy(), expected[-1], rtol=1e-8)
    with pytest.raises(ValueError, match="base_lr"):
        optim.AdaBound(params, lr=0.0, form="code")


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_two_velocities_differ_when_the_rate_changes(nesterov: bool) -> None:
    start, grads = draws()
    rates = [0.05 * 0.9**k for k in range(STEPS)]
    ends = []
    for velocity in ("torch", "classic"):
        options = {"momentum": 0.9, "nesterov": nesterov, "velocity": velocity}
        params = parameters(start)
        run(optim.SGD(params, lr=lambda k: rates[k], **options), params, grads)
        expected, _ = papers.sgd(start[0], [row[0] for row in grads], lr=rates, **options)
        ends.append(params[0].detach().numpy())
        np.testing.assert_allclose(ends[-1], expected[-1], rtol=1e-8)
    assert np.abs(ends[0] - ends[1]).max() > 0.1


@pytest.mark.parametrize("options", [{}, {"lr": 0.05, "momentum": 0.7, "weight_decay": 0.3}])
def test_nag_takes_the_gradient_ahead(options: dict[str, Any]) -> None:
    source = np.random.default_rng(3)
    w, a = source.normal(size=4), source.normal(size=(4, 4))
    a = a @ a.T
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    matrix = torch.from_numpy(a)
    optimizer = optim.NAG([p], **options)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = p @ matrix @ p / 2
        loss.backward()
        return loss

    for _ in range(STEPS):
        optimizer.step(closure)
    expected, state = papers.nag(w, lambda x: a @ x, STEPS, **options)
    np.testing.assert_allclose(p.detach().numpy(), expected[-1], rtol=1e-8)
    buffer = optimizer.state[p]["momentum_buffer"].numpy()
    np.testing.assert_allclose(buffer, state["momentum_buffer"], rtol=1e-8)


def test_nag_climbs_when_asked() -> None:
    ends = []
    for sign in (1.0, -1.0):
        p = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = optim.NAG([p], lr=0.1, maximize=sign < 0)

        def closure(p: Any = p, sign: float = sign, optimizer: Any = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = sign * (p**2).sum()
            loss.backward()
            return loss

        for _ in range(5):
            optimizer.step(closure)
        ends.append(p.detach())
    assert torch.equal(ends[0], ends[1])


def test_nag_restores_the_weights_whatever_happens() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = optim.NAG([p], lr=0.1)
    with pytest.raises(TypeError, match="closure"):
        optimizer.step()

    def closure() -> float:
        p.grad = torch.ones(3)
        return 1.0

    optimizer.step(closure)
    kept = p.detach().clone()

    def fails() -> float:
        assert not torch.equal(p.detach(), kept)
        raise KeyError

    with pytest.raises(KeyError):
        optimizer.step(fails)
    assert torch.equal(p.detach(), kept)
    seen = []
    optimizer.register_step_pre_hook(lambda *a: seen.append("pre"))
    assert optimizer.step(closure) == 1.0
    assert seen == ["pre"]


def test_torchs_muon_differs_by_its_rounding_only() -> None:
    start, grads = draws(np.float32)
    for options in ({"lr": 0.1}, {"lr": 0.1, "momentum": 0.5, "nesterov": False},
                    {"lr": 0.1, "adjust_lr_fn": "match_rms_adamw"}):  # fmt: skip
        ours, theirs = parameters(start[:2]), parameters(start[:2])
        mine, torchs = optim.Muon(ours, **options), torch.optim.Muon(theirs, **options)
        few = [row[:2] for row in grads[:8]]
        run(mine, ours, few)
        run(torchs, theirs, few)
        for x, y, w in zip(ours, theirs, start, strict=False):
            moved = float((y.detach() - torch.from_numpy(w)).norm())
            assert float((x - y).detach().norm()) < 0.03 * moved
        mine.load_state_dict(torchs.state_dict())
        torchs.load_state_dict(mine.state_dict())
        assert torch.equal(mine.state[ours[0]]["momentum_buffer"],
                           torchs.state[theirs[0]]["momentum_buffer"])  # fmt: skip
