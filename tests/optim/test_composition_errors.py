"""Errors of composition that users meet elsewhere, each reproduced: impossible here, or loud.

Where a test shows torch doing it, the line is marked *seen* (torch 2.13, CPU).
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import nn

from brickyard import catalog, compiler, optim
from brickyard.catalog import shelf
from brickyard.optim import (
    Optimizer,
    StateError,
    chain,
    clip_by_global_norm,
    decay,
    engine,
    independent_decay,
    l2,
    param_groups,
    scale_by_adam,
)
from brickyard.optim.backends import compiled

BACKENDS = ["eager", "foreach", "native"]


def draw(params: Any, seed: int = 0, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, generator=generator)).to(p.dtype)


def weights(params: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in params]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("backend", ["native", "compiled", "foreach"])
def test_07_changed_learning_rate_never_recompiles(
    make: Any, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    calls: list[str] = []
    for module, name in ((compiler, "load"), (compiled.torch, "compile")):
        real = getattr(module, name)

        def counted(*args: Any, real: Any = real, **options: Any) -> Any:
            calls.append("compiled")
            return real(*args, **options)

        monkeypatch.setattr(module, name, counted)
    monkeypatch.setattr(engine, "_PLANS", {})
    params = make()
    optimizer = optim.AdamW(params, lr=0.1, backend=backend)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=20)
    before = -1
    for step in range(19):  # the rate and both betas change at every step
        draw(params, step)
        with torch.compiler.set_stance("fail_on_recompile" if step else "default"):
            optimizer.step()
        schedule.step()
        before = len(calls) if before < 0 else before
    assert len(calls) == before == (0 if backend == "foreach" else 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_07_seen_torch_recompiles() -> None:
    w = nn.Parameter(torch.ones(3))
    w.grad = torch.ones(3)
    optimizer = torch.optim.Adam([w], lr=0.1)
    step = torch.compile(optimizer.step, backend="eager")
    step()
    optimizer.param_groups[0]["lr"] = 0.05
    with (
        torch.compiler.set_stance("fail_on_recompile"),
        pytest.raises(RuntimeError, match="Detected recompile"),
    ):
        step()  # seen


def test_08_decay_tied_to_the_rate_is_documented_and_the_other_is_offered() -> None:
    assert "multiplied by ``lr``" in str(inspect.getdoc(optim.AdamW))
    for backend in BACKENDS:
        lost = {}
        for piece in (decay, independent_decay, l2):
            for lr in (0.1, 0.01):
                w = nn.Parameter(torch.full((2, 2), 4.0))
                w.grad = torch.zeros(2, 2)
                Optimizer([w], chain(piece(0.5)), lr=lr, backend=backend).step()
                lost[piece.name, lr] = round(1 - w[0, 0].item() / 4, 6)
        assert lost == {
            ("decay", 0.1): 0.05, ("decay", 0.01): 0.005, ("l2", 0.1): 0.05, ("l2", 0.01): 0.005,
            ("independent_decay", 0.1): 0.5, ("independent_decay", 0.01): 0.5,
        }  # fmt: skip


def test_08_the_papers_decay_follows_the_schedules_factor_alone(make: Any) -> None:
    def factor(k: int) -> float:
        return 1 / (k + 1)

    ours, plain = make(), make()
    pieces = chain(scale_by_adam(), independent_decay(lambda k: 0.02 * factor(k)), lr=factor)
    optimizer, reference = Optimizer(ours, pieces, lr=0.1), optim.Adam(plain, lr=0.1)
    for k in range(4):
        draw(ours, k)
        draw(plain, k)
        old = weights(plain)
        reference.param_groups[0]["lr"] = 0.1 * factor(k)
        optimizer.step()
        reference.step()
        with torch.no_grad():  # algorithm 2, line 12: eta * (alpha * step + lambda * old weights)
            for p, w in zip(plain, old, strict=True):
                p.sub_(0.02 * factor(k) * w)
    torch.testing.assert_close(weights(ours), weights(plain))


def test_11_wrapper_state_is_saved_and_never_missed_silently(make: Any) -> None:
    straight, resumed = make(), make()

    def wrapped(params: Any) -> Any:
        return optim.Lookahead(optim.AdamW(params, lr=0.1), k=4)

    whole, first = wrapped(straight), wrapped(resumed)
    for step in range(10):
        draw(straight, step)
        whole.step()
        if step == 6:
            second = wrapped(resumed)
            with pytest.raises(StateError, match="no slow weights"):
                second.load_state_dict(first.inner.state_dict())
            second.load_state_dict(copy.deepcopy(first.state_dict()))
            first = second
        draw(resumed, step)
        first.step()
    for p, q in zip(straight, resumed, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("kind", ["ours", "torch"])
def test_12_state_is_matched_by_name_not_by_position(kind: str) -> None:
    module: Any = optim if kind == "ours" else torch.optim
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    first = module.AdamW(model.named_parameters(), lr=0.1)
    draw(model.parameters())
    first.step()
    other = module.AdamW(list(model.named_parameters())[::-1], lr=0.1)
    other.load_state_dict(first.state_dict())
    same = [torch.equal(other.state[p]["exp_avg"], first.state[p]["exp_avg"])
            for p in model.parameters()]  # fmt: skip
    assert same == ([True] * 4 if kind == "ours" else [False] * 4)  # seen
    if kind == "ours":
        renamed = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
        with pytest.raises(StateError, match=r"only in the checkpoint: 0\.bias"):
            optim.AdamW(renamed.named_parameters()).load_state_dict(first.state_dict())


@pytest.mark.parametrize("kind", ["ours", "torch"])
def test_13_a_loaded_state_dict_shares_no_tensors(make: Any, kind: str) -> None:
    module: Any = optim if kind == "ours" else torch.optim
    params, others = make(), make()
    first, second = module.Adam(params, lr=torch.tensor(0.1)), module.Adam(others)
    draw(params)
    draw(others)
    first.step()
    second.load_state_dict(first.state_dict())
    kept = [second.state[q]["exp_avg"].clone() for q in others]
    draw(params, 1)
    first.step()
    first.param_groups[0]["lr"].fill_(9.0)
    apart = [torch.equal(second.state[q]["exp_avg"], m) for q, m in zip(others, kept, strict=True)]
    assert all(apart) is (kind == "ours")  # seen
    if kind == "ours":
        assert float(second.param_groups[0]["lr"]) == pytest.approx(0.1)


def test_14_norms_and_scales_are_not_decayed_whatever_they_are_called() -> None:
    model = nn.Sequential()
    model.add_module("stem", nn.Linear(3, 3))
    model.add_module("shift", nn.BatchNorm1d(3))
    by_name = [n for n, _ in model.named_parameters() if "bias" not in n and "Norm" not in n]
    assert "shift.weight" in by_name  # seen: what recipes that go by name decay
    groups = param_groups(model, 0.5)
    optimizer = optim.AdamW(groups, lr=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"stem.weight"}


@pytest.mark.parametrize("card", [c for c in shelf("optimizer") if c.key != "cma_es"],
                         ids=lambda c: c.key)  # fmt: skip
def test_15_no_option_is_dropped_by_the_factory(card: Any) -> None:
    w = nn.Parameter(torch.ones(2, 2))
    wrapped = card.key == "lookahead"
    first = {"inner": optim.SGD([w], lr=0.1)} if wrapped else {"params": [w]}
    places = inspect.signature(card.load()).parameters.values()
    numbers = {p.name: p.default for p in places if isinstance(p.default, float | tuple)}
    for name, default in numbers.items():
        changed = tuple(0.5 for _ in default) if isinstance(default, tuple) else default / 2
        changed = 6.0 if name == "threshold" else changed
        made = catalog.build("optimizer", card.key, **first, **{name: changed})
        held = vars(made) if wrapped else made.param_groups[0]
        assert held[name] == changed
    with pytest.raises((TypeError, ValueError, catalog.card.CatalogError), match="bates"):
        catalog.build("optimizer", card.key, **first, bates=(0.5, 0.6))


@pytest.mark.parametrize("backend", BACKENDS)
def test_16_half_precision_never_rounds_hyperparameters(backend: str) -> None:
    assert torch.tensor(0.999, dtype=torch.bfloat16) == 1.0  # seen: a memory that takes up nothing
    w, full = nn.Parameter(torch.ones(8, dtype=torch.bfloat16)), nn.Parameter(torch.ones(8))
    optimizer = optim.AdamW([w], lr=1e-2, master_weights=True, backend=backend)
    reference = optim.AdamW([full], lr=1e-2, backend=backend)
    for step in range(50):
        draw([w], step)
        full.grad = w.grad.float()
        optimizer.step()
        reference.step()
    for name, exact in reference.state[full].items():
        torch.testing.assert_close(optimizer.state[w][name], exact, rtol=1e-6, atol=1e-9)
    assert torch.equal(w.detach(), full.detach().bfloat16())
    plain = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))  # state in bfloat16 too
    optimizer = optim.AdamW([plain], lr=1e-2, backend=backend)
    plain.grad = torch.ones_like(plain)
    optimizer.step()
    assert optimizer.state[plain]["exp_avg_sq"][0].item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scaled", [False, True])
def test_17_gradients_are_never_overwritten(make: Any, backend: str, scaled: bool) -> None:
    params = make()
    pieces = chain(clip_by_global_norm(0.1), l2(0.1), scale_by_adam(), decay(0.1))
    optimizer = Optimizer(params, pieces, lr=0.1, maximize=True, backend=backend)
    draw(params, scale=8.0)
    kept = [p.grad.clone() for p in params]
    if scaled:
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        scaler.scale(torch.tensor(1.0))
        scaler.step(optimizer)
    else:
        optimizer.step()
    assert optimizer.steps == 1
    for p, g in zip(params, kept, strict=True):
        assert torch.equal(p.grad, g)


def test_17_seen_torchs_fused_step_overwrites_gradients_under_a_scaler() -> None:
    w = nn.Parameter(torch.ones(3))
    w.grad = torch.full((3,), 8.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.tensor(1.0))
    scaler.step(torch.optim.AdamW([w], lr=0.1, fused=True))
    assert w.grad.tolist() == [1.0] * 3  # seen


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unscaled_first", [False, True])
def test_20_a_scaler_gives_the_same_results_bit_by_bit(
    make: Any, backend: str, unscaled_first: bool
) -> None:
    params, plain = make(), make()

    def composed(params: Any) -> Optimizer:
        pieces = chain(clip_by_global_norm(0.5), scale_by_adam(), decay(0.1))
        return Optimizer(params, pieces, lr=0.1, backend=backend)

    optimizer, reference = composed(params), composed(plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
    scaler.scale(torch.tensor(1.0))
    scales = set()
    for step in range(8):
        draw(plain, step)
        scales.add(scaler.get_scale())
        draw(params, step, scaler.get_scale())
        if step in (3, 5):
            params[step % 2].grad.view(-1)[0] = float("inf" if step == 3 else "nan")
        else:
            reference.step()
        if unscaled_first:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert len(scales) > 2
    assert (optimizer.steps, optimizer.skipped, reference.steps) == (6, 2, 6)
    for p, q in zip(params, plain, strict=True):
        assert torch.equal(p, q)
        for name, value in reference.state[q].items():
            assert torch.equal(optimizer.state[p][name], value)
