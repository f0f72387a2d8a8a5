"""Muon's matrices, L-BFGS, CMA-ES, and the numbers that textbooks print."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch

from brickyard import optim
from brickyard.optim.rules_layerwise import Orthogonalize


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12), (6, 3, 2)])
def test_muon_keeps_directions_and_evens_singular_values(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    flat = x.reshape(shape[0], -1)
    rows, cols = flat.shape
    u, s, v = torch.linalg.svd(flat / flat.norm(), full_matrices=False)
    assert float(s.min() / s.max()) < 0.6 or rows != cols
    factor = math.sqrt(max(1, rows / cols))
    found = Orthogonalize()(x / x.norm()).reshape(rows, cols) / factor
    values = torch.diag(u.T @ found @ v.T)
    assert float(values.min()) > 0.65
    assert float(values.max()) < 1.25
    torch.testing.assert_close(u @ torch.diag(values) @ v, found)
    exact = Orthogonalize((2.0, -1.5, 0.5), steps=40)(x / x.norm()).reshape(rows, cols) / factor
    torch.testing.assert_close(exact, u @ v, rtol=1e-6, atol=1e-6)
    adamw = Orthogonalize(adjust="match_rms_adamw")(x / x.norm()).reshape(rows, cols)
    torch.testing.assert_close(adamw, found * 0.2 * math.sqrt(max(rows, cols)))


def test_muon_leaves_what_is_no_hidden_matrix_to_adamw() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(5, 4)
            self.hidden = torch.nn.Linear(4, 4)
            self.conv = torch.nn.Conv1d(2, 3, 2)
            self.head = torch.nn.Linear(4, 5)

    model = Net()
    apart = {"head.weight": {"use_muon": False, "lr": 3e-4}, "table.*": {"use_muon": False}}
    ways = {"module": model, "groups": optim.param_groups(model, overrides=apart)}
    for way, params in ways.items():
        optimizer = optim.Muon(params, lr=0.02)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        named = list(model.named_parameters())
        muon = {n for n, p in named if "momentum_buffer" in optimizer.state[p]}
        adam = {n for n, p in named if "exp_avg_sq" in optimizer.state[p]}
        hidden = {"hidden.weight", "conv.weight"} | ({"head.weight"} if way == "module" else set())
        assert muon == hidden
        assert adam == {n for n, _ in named} - hidden


@pytest.mark.parametrize(("options", "message"), [
    ({"ns_steps": 0}, "ns_steps"), ({"ns_coefficients": (1.0, 2.0)}, "3 numbers"),
    ({"adjust_lr_fn": "twice"}, "match_rms_adamw"), ({"momentum": -0.1}, "momentum"),
])  # fmt: skip
def test_muon_refuses_bad_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optim.Muon([torch.nn.Parameter(torch.ones(2, 2))], **options)


@pytest.mark.parametrize("call", [
    lambda p: optim.Yogi(p, form="book"), lambda p: optim.AdaBound(p, form="book"),
    lambda p: optim.AdaBound(p, gamma=0.0), lambda p: optim.RAdam(p, threshold=3.0),
    lambda p: optim.Ranger(p, alpha=1.5), lambda p: optim.Ranger(p, k=0),
    lambda p: optim.Adadelta(p, rho=1.5), lambda p: optim.LARS(p, trust_coefficient=-1.0),
    lambda p: optim.NAG(p, momentum=-1.0), lambda p: optim.Adagrad(p, lr_decay=-1.0),
])  # fmt: skip
def test_bad_values_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|form|every"):
        call([torch.nn.Parameter(torch.ones(2))])


def test_amsgrad_and_adams_flag_share_checkpoints_with_torch(make: Any) -> None:
    ours, theirs, flagged = make(), make(), make()
    mine, torchs = optim.AMSGrad(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1, amsgrad=True)
    flag = optim.Adam(flagged, lr=0.1, amsgrad=True)
    for step in range(6):
        for params, optimizer in ((ours, mine), (theirs, torchs), (flagged, flag)):
            generator = torch.Generator().manual_seed(step)
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        if step == 2:
            mine.load_state_dict(torchs.state_dict())
            flag.load_state_dict(mine.state_dict())
    for x, y, z in zip(ours, theirs, flagged, strict=True):
        torch.testing.assert_close(x, y)
        assert torch.equal(x, z)


def test_lbfgs_searches_along_the_line_where_torchs_default_diverges() -> None:
    ends, calls = {}, {}
    for name, build in (("ours", optim.LBFGS), ("torch", torch.optim.LBFGS),
                        ("off", lambda p: optim.LBFGS(p, line_search_fn=None)),
                        ("short", lambda p: optim.LBFGS(p, max_iter=1))):  # fmt: skip
        w = torch.nn.Parameter(torch.tensor([3.0, -0.5], dtype=torch.float64))
        optimizer: Any = build([w])

        def closure(optimizer: Any = optimizer, w: Any = w, name: str = name) -> torch.Tensor:
            calls[name] = calls.get(name, 0) + 1
            optimizer.zero_grad()
            loss = torch.log(torch.cosh(w)).sum()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        ends[name] = torch.log(torch.cosh(w)).sum().item()
    assert ends["ours"] < 1e-9
    assert math.isnan(ends["torch"])
    assert math.isnan(ends["off"])
    assert calls["short"] < calls["ours"]
    layer = torch.nn.Linear(2, 1)
    assert len(optim.LBFGS(layer).param_groups[0]["params"]) == 2


def test_cma_es_finds_the_minimum_by_step_by_fit_and_by_ask_and_tell() -> None:
    pytest.importorskip("cma")
    ends = []
    for way in ("fit", "step", "ask"):
        x = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
        search = optim.CMAES(x, sigma=1.0, seed=0)
        before = np.random.get_state()[1].copy()

        def loss(x: Any = x) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            return ((x - torch.tensor([1.0, 0.5])) ** 2).sum()

        if way == "fit":
            assert search.fit(loss, evaluations=400) < 1e-8
        for _ in range(67 if way == "step" else 0):
            search.step(loss)
        for _ in range(67 if way == "ask" else 0):
            found = search.ask()
            search.tell(found, ((found - torch.tensor([1.0, 0.5])) ** 2).sum(1))
        assert np.array_equal(before, np.random.get_state()[1])
        search.assign(search.best[0])
        ends.append(x.detach().clone())
        torch.testing.assert_close(search.mean, x.detach(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ends[0], torch.tensor([1.0, 0.5], dtype=torch.float64),
                               rtol=1e-3, atol=1e-3)  # fmt: skip
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_cma_es_options_act() -> None:
    pytest.importorskip("cma")
    model = torch.nn.Linear(2, 1)
    search = optim.CMAES(model, sigma=0.5, popsize=9, seed=1, box=(-1.0, [1.0, 1.0, 0.2]))
    candidates = search.ask()
    assert candidates.shape == (9, 3)
    assert bool((candidates >= -1).all() and (candidates <= torch.tensor([1.0, 1.0, 0.2])).all())
    other = optim.CMAES(model, sigma=0.5, popsize=9, seed=2, box=(-1.0, [1.0, 1.0, 0.2]))
    assert not torch.equal(candidates, other.ask())
    wide = optim.CMAES(model, sigma=5.0, popsize=9, seed=1).ask()
    assert float(wide.abs().max()) > 1
    search.tell(candidates, [float("nan"), *range(8)])
    assert torch.equal(search.best[0], candidates[1])
    search.assign(candidates[1])
    torch.testing.assert_close(search.vector(), candidates[1], rtol=1e-6, atol=1e-7)
    ended = optim.CMAES(model, sigma=0.5, seed=1, options={"maxiter": 1})
    ended.step(lambda: 1.0)
    assert ended.stopped


@pytest.mark.parametrize(("call", "message"), [
    (lambda x: optim.CMAES(x, sigma=0.0), "sigma"),
    (lambda x: optim.CMAES([], sigma=1.0), "got none"),
    (lambda x: optim.CMAES(x, sigma=1.0, popsize=1), "popsize"),
    (lambda x: optim.CMAES(x, sigma=1.0, box=(2.0, 1.0)), "lowest below"),
    (lambda x: optim.CMAES(x, sigma=1.0, box=(2.0, 3.0)), "outside"),
    (lambda x: optim.CMAES(x, sigma=1.0).tell(torch.zeros(2, 2), [1.0]), "one loss per candidate"),
    (lambda x: optim.CMAES(x, sigma=1.0).assign(torch.zeros(3)), "shape"),
    (lambda x: optim.CMAES(x, sigma=1.0).fit(lambda: 0.0, evaluations=0), "evaluations"),
    (lambda x: optim.CMAES(x, sigma=1.0).best, "no candidate"),
])  # fmt: skip
def test_cma_es_refuses_bad_values(call: Any, message: str) -> None:
    pytest.importorskip("cma")
    with pytest.raises(ValueError, match=message):
        call(torch.nn.Parameter(torch.zeros(2)))


def test_cma_es_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(ImportError, match=r"brickyard\[sweep\]"):
        optim.CMAES(torch.zeros(2), sigma=1.0)
    with pytest.raises(TypeError, match="real tensors"):
        optim.CMAES([torch.zeros(2, dtype=torch.long)], sigma=1.0)
    with pytest.raises(TypeError, match="module, a tensor"):
        optim.CMAES(3.0, sigma=1.0)


def test_cma_es_keeps_the_best_when_losses_are_nan() -> None:
    pytest.importorskip("cma")
    x = torch.nn.Parameter(torch.zeros(2))
    values = iter([float("nan"), 2.0, 1.0, 3.0])
    search = optim.CMAES(x, sigma=1.0, popsize=4, seed=0)
    assert search.step(lambda: next(values)) == 1.0
    torch.testing.assert_close(search.vector(), search.best[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("backend", ["eager", "foreach", "native"])
def test_adams_first_steps_on_a_parabola(backend: str) -> None:
    x = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = optim.Adam([x], lr=0.01, backend=backend)
    rows = []
    for _ in range(3):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
        row = optimizer.state[x]
        rows.append([row["exp_avg"].item(), row["exp_avg_sq"].item(), x.item()])
    expected = [[0.4, 0.016, 1.99], [0.758, 0.031824, 1.98], [1.0782, 0.047474, 1.97]]
    np.testing.assert_allclose(rows, expected, rtol=5e-5)


def test_momentums_textbook_sequence() -> None:
    w = torch.nn.Parameter(torch.zeros(1))
    optimizer = optim.SGD([w], lr=0.1, momentum=0.9)
    seen = []
    for g in (2.0, 1.8, 1.5, -0.5):
        w.grad = torch.tensor([g])
        optimizer.step()
        seen.append(optimizer.state[w]["momentum_buffer"].item())
    np.testing.assert_allclose(seen, [2.0, 3.6, 4.74, 3.766], rtol=1e-6)


def test_the_ravine_orders_adam_momentum_and_sgd() -> None:
    ends = {}
    for name, build in (("sgd", lambda p: optim.SGD(p, lr=0.04)),
                        ("momentum", lambda p: optim.SGD(p, lr=0.02, momentum=0.9)),
                        ("adam", lambda p: optim.Adam(p, lr=0.2))):  # fmt: skip
        w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
        optimizer = build([w])
        for _ in range(300):
            optimizer.zero_grad()
            loss = (20 * w[0] ** 2 + w[1] ** 2) / 2
            loss.backward()
            optimizer.step()
        ends[name] = ((20 * w[0] ** 2 + w[1] ** 2) / 2).item()
    assert ends["adam"] < ends["momentum"] < ends["sgd"]
