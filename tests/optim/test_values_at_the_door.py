"""Bad values are refused where they are given: every optimizer of the shelf, every option, every
group. A new optimizer is tested by being on the shelf."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch

from brickyard import optim
from brickyard.catalog import shelf
from brickyard.optim import Optimizer, chain, decay, rule, scale_by_adam

CLASSES = {card.key: card.load() for card in shelf("optimizer")}
#: Where -1 is allowed: a value that is not.
OUTSIDE = {"beta2_decay": 0.5, "ns_coefficients": math.nan}
#: Bounds that may be infinite, which switches them off.
UNBOUNDED = {"d", "threshold", "beta2_decay"}


def options(kind: type) -> dict[str, Any]:
    """Return the options of a class that are numbers or truth values."""
    places = inspect.signature(kind).parameters.values()
    found = {p.name: p.default for p in places if isinstance(p.default, int | float | tuple)}
    return found | ({"sigma": 1.0} if kind is optim.CMAES else {})


CASES = [(key, name, default) for key, kind in CLASSES.items()
         for name, default in options(kind).items()]  # fmt: skip
NUMBERS = [case for case in CASES if not isinstance(case[2], bool)]


def build(key: str, group: dict[str, Any] | None = None, **given: Any) -> Any:
    w = torch.nn.Parameter(torch.ones(2, 2))
    kind: Any = CLASSES[key]
    if key == "lookahead":
        return kind(optim.SGD([w], lr=0.1), **given)
    if key == "cma_es":
        return kind([w], **{"sigma": 1.0, **given})
    return kind([w] if group is None else [{"params": [w], **group}], **given)


def in_place(default: Any, bad: Any, place: int = -1) -> Any:
    """Return a bad value in the shape of the option."""
    if not isinstance(default, tuple):
        return bad
    return (*default[:place], bad, *default[place % len(default) + 1 :])


def refuses(message: str, key: str, name: str, value: Any) -> None:
    """Assert that constructor and group refuse a value, with its name and the value."""
    word = "beta" if name == "betas" and not isinstance(value, str | float) else name
    with pytest.raises((ValueError, TypeError), match=word) as caught:
        build(key, **{name: value})
    shown = value if not isinstance(value, tuple) else next(
        (v for v in value if repr(v) in str(caught.value)), value)  # fmt: skip
    assert repr(shown) in str(caught.value), message
    if key not in ("lookahead", "cma_es"):
        with pytest.raises((ValueError, TypeError), match=word):
            build(key, {name: value})


@pytest.mark.parametrize(("key", "name", "default"), NUMBERS, ids=lambda v: str(v))
def test_numbers_out_of_range_are_refused(key: str, name: str, default: Any) -> None:
    below = OUTSIDE.get(name, -1 if isinstance(default, int) else -1.0)
    for bad in (below, math.nan, *(() if name in UNBOUNDED else (math.inf,))):
        refuses("a value out of range", key, name, in_place(default, bad))
    if isinstance(default, tuple):
        refuses("the first entry", key, name, in_place(default, below, 0))
        refuses("too few", key, name, default[:1])
    if name == "betas":
        refuses("a memory of 1", key, name, in_place(default, 1.0))
    if isinstance(default, int):
        refuses("less than one", key, name, 0)
        refuses("not whole", key, name, 2.5)


@pytest.mark.parametrize(("key", "name", "default"), CASES, ids=lambda v: str(v))
def test_values_of_another_kind_are_refused(key: str, name: str, default: Any) -> None:
    bads = ["0.1", [], *([1.0, None] if isinstance(default, bool) else [True])]
    for bad in bads:
        refuses("another kind", key, name, bad if bad == [] else in_place(default, bad))


@pytest.mark.parametrize("key", CLASSES)
def test_a_misspelt_option_is_refused(key: str) -> None:
    with pytest.raises(TypeError, match="lrr"):
        build(key, lrr=0.1)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("SGD", {"nesterov": True}, "nesterov needs momentum above 0"),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "no dampening"),
    ("SGD", {"velocity": "classic", "dampening": 0.1}, "no dampening"),
    ("SGD", {"velocity": "newton"}, "'torch' or 'classic'"),
    ("Muon", {"adjust_lr_fn": "twice"}, "'match_rms_adamw'"),
    ("Yogi", {"form": "book"}, "'paper' or 'code'"),
    ("AdaBound", {"form": "code", "lr": 0.0}, "first lr"),
    ("RMSprop", {"alpha": 1.0}, "below 1"), ("Adadelta", {"rho": 1.5}, "from 0 to 1"),
    ("Muon", {"momentum": 1.0}, "below 1"), ("AdamW", {"betas": 0.9}, "2 numbers"),
    ("LBFGS", {"line_search_fn": "armijo"}, "line_search_fn"),
    ("LBFGS", {"lr": lambda k: 0.1}, "no schedule"),
    ("AdamW", {"lr": torch.ones(2)}, r"one number; got a tensor of shape \(2,\)"),
    ("AdamW", {"lr": torch.ones((), requires_grad=True)}, "must not require a gradient"),
    ("AdamW", {"state_dtype": torch.int8}, "floating"), ("AdamW", {"telemetry": 1}, "True or"),
    ("AdamW", {"lr": lambda k: -0.1}, "lr must be 0 or more"),
    ("AdamW", {"foreach": True}, "backend"),
])  # fmt: skip
def test_contradictions_are_refused_in_constructor_and_group(
    name: str, options: dict[str, Any], message: str
) -> None:
    kind: Any = getattr(optim, name)
    w = torch.nn.Parameter(torch.ones(2, 2))
    with pytest.raises((ValueError, TypeError), match=message):
        kind([w], **options)
    if not {"foreach", "state_dtype", "telemetry"} & set(options):
        other = kind([w])
        group = {"params": [torch.nn.Parameter(torch.ones(2, 2))], **options}
        with pytest.raises((ValueError, TypeError), match=message):
            other.add_param_group(group)
        assert len(other.param_groups) == 1


def test_torch_has_the_same_opinion_where_it_has_the_class() -> None:
    """Whatever torch refuses, we refuse; the positive numbers that we alone refuse cannot train."""
    beyond = set()
    for key, name, default in NUMBERS:
        theirs: Any = getattr(torch.optim, CLASSES[key].__name__, None)
        if theirs is None or name not in inspect.signature(theirs).parameters:
            continue
        for bad in (-1.0, math.nan, 1.0, 2.0):
            value = in_place(default, bad)
            w = [torch.nn.Parameter(torch.ones(2, 2))]
            seen = []
            for kind in (theirs, CLASSES[key]):
                try:
                    kind(w, **{name: value})
                    seen.append("takes")
                except (ValueError, TypeError):
                    seen.append("refuses")
            assert seen != ["refuses", "takes"], (key, name, value)
            if seen == ["takes", "refuses"] and bad > 0 and not isinstance(default, int):
                beyond.add((CLASSES[key].__name__, name, bad))
    assert beyond == {("RMSprop", "alpha", 1.0), ("RMSprop", "alpha", 2.0),
                      ("SGD", "dampening", 2.0), ("Muon", "momentum", 1.0),
                      ("Muon", "momentum", 2.0)}  # fmt: skip


def test_rules_check_their_values_too() -> None:
    with pytest.raises(ValueError, match=r"weight_decay must be 0 or more and finite; got -0\.1"):
        decay(-0.1)
    with pytest.raises(TypeError, match="weight_decay of decay must be a number"):
        decay("0.1")
    with pytest.raises(ValueError, match="every must be a whole number, 1 or more; got 0"):
        decay(0.1, every=0)
    with pytest.raises(ValueError, match=r"beta2 must be at least 0 and below 1; got 1\.0"):
        Optimizer([torch.nn.Parameter(torch.ones(2))], chain(scale_by_adam()), lr=0.1, beta2=1.0)

    @rule(hyper={"push": -1.0})
    def pushed(u: Any, p: Any, s: Any, h: Any) -> Any:
        return u * h.push

    w = torch.nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2)
    Optimizer([w], chain(pushed(-2.0)), lr=0.5).step()  # a user's own rule has its own ranges
    assert w.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("lr", [torch.tensor(0.1), torch.tensor([0.1]), np.float32(0.1),
                                np.float64(0.1), lambda k: torch.tensor(0.1)])  # fmt: skip
def test_rates_may_be_tensors_and_numpys_numbers(lr: Any) -> None:
    w, v = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer, reference = optim.AdamW([w], lr=lr), optim.AdamW([v], lr=0.1)
    for _ in range(2):
        w.grad = v.grad = torch.ones(3)
        optimizer.step()
        reference.step()
    torch.testing.assert_close(w, v)
    if isinstance(lr, torch.Tensor):
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["lr"] is lr  # torch's schedulers fill it in place
        assert float(lr) == pytest.approx(0.05)


def test_a_wrong_value_put_into_a_group_later_is_named() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    w.grad = torch.ones(3)
    optimizer = optim.AdamW([w])
    optimizer.param_groups[0]["betas"] = (0.9, "0.99")
    with pytest.raises(TypeError, match=r"beta2 must be a number.*'0\.99'"):
        optimizer.step()
    optimizer.param_groups[0].update(betas=(0.9, 0.99), lr="fast")
    with pytest.raises(TypeError, match="lr must be a number"):
        optimizer.step()
    assert torch.equal(w, torch.ones(3))
