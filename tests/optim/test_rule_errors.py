"""What a rule may not do is refused when it is traced, with the operation and the user's line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from brickyard.optim import Optimizer, chain, decay, rule
from brickyard.optim.maths import guard, per_matrix, total, unit_sum
from brickyard.optim.trace import RuleError


def unknown(u: Any, p: Any, s: Any, h: Any) -> Any:
    return torch.fft.fft(u)  # here


def near_miss(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u.rsqrtt()  # here


def in_place(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u.mul_(2)  # here


def branch(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u if h.t > 3 else -u  # here


def loop(u: Any, p: Any, s: Any, h: Any) -> Any:
    return sum(row for row in u)  # here


def odd_sum(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u - u.mean(0)  # here


def other_norm(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u / u.norm(p=1)  # here


def a_list(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u * [1.0, 2.0]  # here


def attribute(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u * u.shape[0]  # here


def arguments(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u.sqrt(1, 2, 3)  # here


def unreduced(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u / total(u * u)  # here


def late_guard(u: Any, p: Any, s: Any, h: Any) -> Any:
    guard(u.norm() > 0, "")  # here
    return u


def small_matrix(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u * per_matrix(torch.linalg.inv, u.norm())  # here


def small_unit(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u * unit_sum(u.sum())  # here


def host_sum(u: Any, p: Any, s: Any, h: Any) -> Any:
    return u * h.lr.sum()  # here


@pytest.mark.parametrize(("function", "message"), [
    (unknown, "no backend can run 'fft_fft'"), (near_miss, "did you mean 'rsqrt'"),
    (in_place, "changes nothing in place: use mul instead of mul_"),
    (branch, "cannot branch .* use when"), (loop, "cannot iterate"),
    (odd_sum, "dim=-1 or dim=-2 with keepdim=True"), (other_norm, "only the 2-norm"),
    (a_list, "works on tensors and numbers, not on"), (attribute, r"cannot read \.shape"),
    (arguments, "does not take these arguments"), (unreduced, "reduce first"),
    (late_guard, r"guard\(\) needs a condition"), (small_matrix, r"per_matrix\(\) needs a whole"),
    (small_unit, r"unit_sum\(\) needs a whole"), (host_sum, "number on the host cannot be reduced"),
])  # fmt: skip
def test_the_message_names_the_operation_and_the_line(
    function: Callable[..., Any], message: str
) -> None:
    w = torch.nn.Parameter(torch.ones(2, 2))
    w.grad = torch.ones(2, 2)
    with pytest.raises(RuleError, match=message) as caught:
        Optimizer([w], chain(rule()(function)()), lr=0.1).step()
    lines, start = inspect.getsourcelines(function)
    place = next(i for i, line in enumerate(lines) if line.rstrip().endswith("# here"))
    assert f"{__file__}:{start + place}: {lines[place].strip()}" in str(caught.value)
    assert torch.equal(w, torch.ones(2, 2))


def test_names_that_a_rule_does_not_have_are_listed() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2)

    @rule(slots={"mean": "zeros"}, hyper={"factor": 2.0})
    def scaled(u: Any, p: Any, s: Any, h: Any) -> Any:
        return u * h.facter, {"mean": u}

    with pytest.raises(AttributeError, match="hyperparameters of scaled has no 'facter'; did you"):
        Optimizer([w], chain(scaled()), lr=0.1).step()

    @rule(slots={"mean": "zeros"})
    def lost(u: Any, p: Any, s: Any, h: Any) -> Any:
        return u + s.maen, {"mean": u}

    with pytest.raises(AttributeError, match="state of lost has no 'maen'; did you mean 'mean'"):
        Optimizer([w], chain(lost()), lr=0.1).step()

    @rule()
    def keeps(u: Any, p: Any, s: Any, h: Any) -> Any:
        return u, {"kept": u}

    with pytest.raises(TypeError, match=r"keeps returned unknown slots \['kept'\]"):
        Optimizer([w], chain(keeps()), lr=0.1).step()

    @rule()
    def wrong(u: Any, p: Any, s: Any, h: Any) -> Any:
        return u, u

    with pytest.raises(TypeError, match="wrong must return update or"):
        Optimizer([w], chain(wrong()), lr=0.1).step()


@pytest.mark.parametrize(("call", "message"), [
    (lambda: rule(role="middle"), "role must be one of"),
    (lambda: rule(slots={"m": "random"}), "starts as one of"),
    (lambda: decay(0.1, 0.2), "decay takes 1 hyperparameters"),
    (lambda: decay(weight_deca=0.1), "did you mean 'weight_decay'"),
    (lambda: decay(0.1, weight_decay=0.1), "got 'weight_decay' twice"),
    (lambda: decay(math.nan), "weight_decay must be 0 or more"),
    (lambda: chain(3), "a chain is made of pieces"),
])  # fmt: skip
def test_declarations_are_checked(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
