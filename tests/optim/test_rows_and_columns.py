"""Sums over rows, columns, matrices and units: native in one pass, the same as the plain rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from brickyard import optim
from brickyard.optim import Optimizer, adaptive_clip, chain, scale_by_adam, scale_by_factored_rms
from brickyard.optim.maths import maximum, total, unit_sum
from brickyard.optim.rule import rule
from brickyard.optim.trace import RuleError

#: 1x1 kernels, 3x3 kernels with a full and a partial tile, matrices that are small, tall, wide, of
#: several chunks, of one row; several matrices in a tensor, large and small.
SHAPES = (
    (6, 4, 1, 1), (50, 5, 3, 3), (3, 2, 3, 3), (4, 3, 7, 7), (7, 5), (90, 3), (3, 90), (70, 2100),
    (2, 40, 50), (300, 130), (1, 200), (9, 2, 8, 8), (5, 1), (2, 2, 1, 3),
)  # fmt: skip


@rule(slots={"row": "rows"}, hyper={"b": 0.9})
def by_row(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Use a row's sum for its own elements in the same pass, and its old value beside it."""
    r = h.b * s.row + (u * u).mean(-1, keepdim=True)
    return u / (1 + r.sqrt()) + 0.1 * s.row, {"row": r}


@rule(slots={"col": "cols"}, hyper={"b": 0.9})
def by_col(u: Any, p: Any, s: Any, h: Any) -> Any:
    q = h.b * s.col + u.abs().mean(-2, keepdim=True)
    return u * q + 0.1 * s.col, {"col": q}


@rule()
def by_matrix(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Reduce in both orders, and further to one number."""
    rows = (u * p).sum(-1, keepdim=True)
    cols = (u * u).sum(-2, keepdim=True)
    one, other = rows.mean(-2, keepdim=True), cols.mean(-1, keepdim=True)
    whole = maximum(rows.sum() + (cols * cols).mean() + one.mean(), 1.0)
    return u / (1 + one.abs() + other) + rows / whole + (p * p).mean() * cols


@rule(slots={"row": "rows", "col": "cols"})
def twice(u: Any, p: Any, s: Any, h: Any) -> Any:
    """Make sums of what sums have made."""
    r = (u * u).mean(-1, keepdim=True)
    u = u / (1 + r)
    q = s.col + (u * u).mean(-2, keepdim=True)
    u = u / (1 + q)
    return u / (1 + u.norm()), {"row": s.row + (u * p).sum(-1, keepdim=True), "col": q}


@rule()
def by_unit(u: Any, p: Any, s: Any, h: Any) -> Any:
    share = unit_sum(u * u) / (1 + unit_sum(p.abs()))
    return u * share / (1 + share.sum())


@rule()
def joint(u: Any, p: Any, s: Any, h: Any) -> Any:
    """A sum over all tensors of sums of rows."""
    r = (u * u).sum(-1, keepdim=True)
    return u / (1 + r / total(r.sum()))


CHAINS: dict[str, list[Any]] = {
    "factored": [scale_by_factored_rms()], "factored, clipped":
    [scale_by_factored_rms(), optim.clip_by_rms(0.5)], "rows": [by_row()], "cols": [by_col()],
    "matrix": [by_matrix()], "twice": [twice(), scale_by_adam()], "unit": [by_unit()],
    "agc": [adaptive_clip(0.1), scale_by_adam()], "agc, whole": [adaptive_clip(unitwise=False)],
    "joint": [joint(), optim.scale_by_momentum()], "unit, factored":
    [adaptive_clip(0.1), scale_by_factored_rms()],
}  # fmt: skip


def run(pieces: list[Any], backend: str, dtype: torch.dtype, **options: Any) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(2)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES]
    optimizer = Optimizer(params, chain(*pieces), lr=0.05, backend=backend, **options)
    for _ in range(3):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(dtype)
        optimizer.step()
    state = [v for p in params for _, v in sorted(optimizer.state[p].items())]
    return [p.detach() for p in params], state, optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CHAINS)
def test_every_backend_agrees(name: str, dtype: torch.dtype) -> None:
    weights, state, _ = run(CHAINS[name], "eager", dtype)
    tolerance = {torch.float64: 1e-10, torch.float32: 2e-4}.get(dtype, 2e-2)
    for backend in ("foreach", "native"):
        mine, kept, optimizer = run(CHAINS[name], backend, dtype)
        torch.testing.assert_close(mine, weights, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(kept, state, rtol=tolerance, atol=tolerance)
        if name != "unit, factored":
            assert {b.run.name for b in optimizer._engine.buckets} == {backend}


def test_telemetry_comes_out_of_the_same_passes() -> None:
    pieces = [scale_by_factored_rms(), optim.clip_by_rms(0.5)]
    first = run(pieces, "eager", torch.float32, telemetry=True)[2].norms()
    second = run(pieces, "native", torch.float32, telemetry=True)[2].norms()
    for name, norms in first.items():
        assert second[name] == pytest.approx(norms, rel=1e-4)


def test_storage_in_half_precision_is_computed_in_fp32() -> None:
    """State in bf16 is not read back within a step: its rounding would be in the update."""
    options = {"state_dtype": torch.bfloat16}
    weights, state, _ = run(CHAINS["factored, clipped"], "eager", torch.float32, **options)
    mine, kept, _ = run(CHAINS["factored, clipped"], "native", torch.float32, **options)
    torch.testing.assert_close(mine, weights, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(kept, state, rtol=1e-2, atol=1e-2)


def test_units_beside_rows_fall_back_where_they_are_not_rows() -> None:
    text = run(CHAINS["unit, factored"], "auto", torch.float32)[2].explain()
    assert "native" in text  # matrices: a unit is a row
    assert "foreach (sums over units beside sums over rows or columns)" in text


def test_other_memory_orders_fall_back_with_a_reason() -> None:
    p = torch.nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last))
    optimizer = optim.Adafactor([p])
    p.grad = torch.randn_like(p)
    optimizer.step()
    assert "another memory order" in optimizer.explain()


def test_the_number_of_threads_changes_nothing() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(CHAINS["factored, clipped"], "native", torch.float32)[0]
        torch.set_num_threads(3)
        many = run(CHAINS["factored, clipped"], "native", torch.float32)[0]
    finally:
        torch.set_num_threads(before)
    for x, y in zip(one, many, strict=True):
        assert torch.equal(x, y)


def test_rows_of_a_vector_are_refused() -> None:
    p = torch.nn.Parameter(torch.ones(4))
    p.grad = torch.ones(4)
    with pytest.raises(ValueError, match=r"shape \(4,\) is not: use where='matrices'"):
        Optimizer([p], chain(scale_by_factored_rms()), lr=0.1).step()


def test_adaptive_clip_bounds_each_unit_by_its_weights() -> None:
    p = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    p.grad = torch.tensor([[30.0, 40.0], [3.0, 4.0]])
    Optimizer([p], chain(adaptive_clip(0.1, eps=0.5)), lr=1.0).step()
    # rows of norm 5 and 0: bounds 0.5 and 0.1 * eps
    expected = torch.tensor([[3.0 - 0.3, 4.0 - 0.4], [-0.03, -0.04]])
    torch.testing.assert_close(p.detach(), expected)


@pytest.mark.parametrize("backend", ["eager", "foreach", "native"])
@pytest.mark.parametrize("piece", [
    adaptive_clip, optim.clip_by_layer_norm, optim.clip_by_value, optim.clip_by_global_norm,
])  # fmt: skip
def test_a_clip_never_lets_what_is_not_finite_through(piece: Any, backend: str) -> None:
    p = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = Optimizer([p], chain(piece()), lr=0.1, backend=backend)
    for bad in (float("inf"), float("nan")):
        p.grad = torch.ones(3, 4)
        p.grad[1, 2] = bad
        optimizer.step()
        assert optimizer.last_skipped
        assert torch.equal(p.detach(), torch.ones(3, 4))
    with pytest.raises(optim.NonFiniteError):
        Optimizer([p], chain(piece(on_nonfinite="error")), lr=0.1, backend=backend).step()


def test_large_finite_values_are_clipped_not_skipped() -> None:
    p = torch.nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([1e30, -1e30])
    Optimizer([p], chain(optim.clip_by_value(0.5)), lr=1.0).step()
    assert p.tolist() == [-0.5, 0.5]


def test_a_sum_that_makes_no_sense_is_refused() -> None:
    @rule()
    def rows_of_rows(u: Any, p: Any, s: Any, h: Any) -> Any:
        return u * u.sum(-1, keepdim=True).sum(-1, keepdim=True)

    p = torch.nn.Parameter(torch.ones(2, 2))
    p.grad = torch.ones(2, 2)
    with pytest.raises(RuleError, match="once each; got dim=-1"):
        Optimizer([p], chain(rows_of_rows()), lr=0.1).step()
