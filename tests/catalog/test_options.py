"""Types as text: read from signatures, and values checked against them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.catalog.options import Option, coerce, describe, simplify, takes_any

if TYPE_CHECKING:
    from nowhere import Nothing  # pyright: ignore[reportMissingImports]

T = TypeVar("T")


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "int"),
        (float, "float"),
        (None, "None"),
        (tuple[None, int], "tuple[None, int]"),
        (type(None), "None"),
        (Any, "Any"),
        (T, "Any"),
        (int | None, "int | None"),
        (float | int | None, "float | int | None"),
        (Literal["a", "b"], "'a' | 'b'"),
        (Literal["a"] | None, "'a' | None"),
        (Literal["mean | sum", 3, -1, True, None], "'mean | sum' | 3 | -1 | True | None"),
        (tuple[float, float], "tuple[float, float]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (tuple[float | None, Literal["x, y"]], "tuple[float | None, 'x, y']"),
        (list[int | str] | None, "list[int | str] | None"),
        (Sequence[int], "list[int]"),
        (Iterable[str], "list[str]"),
        (list, "list"),
        (Mapping[str, float], "dict"),
        (dict, "dict"),
        (float | torch.Tensor, "float"),
        (torch.Tensor, "Any"),
        (str | torch.Tensor, "Any"),
        (Callable[[int], int], "Any"),
    ],
)
def test_a_hint_as_text(hint, text):
    assert simplify(hint) == text


@pytest.mark.parametrize(
    ("default", "text"),
    [(1, "number"), (0.5, "number"), (True, "bool"), ("a", "str"), (None, "Any")],
)
def test_a_missing_hint_is_read_from_the_default(default, text):
    assert simplify(inspect.Parameter.empty, default, required=False) == text


SAME = [
    (1, "int"),
    (True, "bool"),
    ("a", "str"),
    (None, "None"),
    (None, "float | None"),
    (3, "int | float"),
    (2.5, "int | float"),
    (3, "float | int"),
    (True, "bool | float"),
    ("mean", "'mean' | 'sum'"),
    ("a | b", "'a | b' | 'c'"),
    (-1, "-1 | 1"),
    (True, "True | 'auto'"),
    (False, "'auto' | False"),
    (0.25, "number"),
    (7, "number"),
    ({"a": 1}, "dict"),
    (object, "Any"),
    ([1, "a"], "list"),
]


@pytest.mark.parametrize(("value", "kind"), SAME)
def test_a_value_of_the_type_passes_unchanged(value, kind):
    found = coerce(value, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("value", "kind", "becomes"),
    [
        (1, "float", 1.0),
        (2.0, "int", 2),
        ([0.9, 1], "tuple[float, float]", (0.9, 1.0)),
        ([1, 2, 3], "tuple[int, ...]", (1, 2, 3)),
        ((1, 2), "list[float]", [1.0, 2.0]),
        ([], "tuple[int, ...]", ()),
        ([[1, 2], None], "list[tuple[int, int] | None]", [(1, 2), None]),
        ([1, "x, y"], "tuple[float | None, 'x, y']", (1.0, "x, y")),
    ],
)
def test_a_value_becomes_what_the_brick_wants(value, kind, becomes):
    found = coerce(value, kind)
    assert found == becomes
    assert repr(found) == repr(becomes)  # 1.0 is not 1, a tuple is not a list


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "float"),
        (True, "int"),
        (False, "number"),
        (1, "bool"),
        (0, "True | False"),
        (1.5, "int"),
        (math.nan, "int"),
        (math.inf, "int"),
        ("1", "int"),
        ("0.1", "float"),
        (1, "str"),
        ("meen", "'mean' | 'sum'"),
        (1.0, "1 | 2"),
        (True, "1 | 2"),
        ("ab", "list[str]"),
        ("ab", "tuple[str, str]"),
        ([1], "tuple[int, int]"),
        ([1, 2, 3], "tuple[int, int]"),
        ([1, 2.5], "tuple[int, ...]"),
        (None, "int"),
        (None, "str | float"),
        ([], "dict"),
        (10**400, "float"),
        ({1, 2}, "list"),
    ],
)
def test_a_value_of_another_type_is_an_error(value, kind):
    with pytest.raises(TypeError):
        coerce(value, kind)


# Hints, each with a strategy for its values.
HINTS = st.recursive(
    st.sampled_from(
        [
            (int, st.integers()),
            (float, st.floats(allow_nan=False)),
            (bool, st.booleans()),
            (str, st.text(max_size=5)),
            (None, st.none()),
            (Literal["a", "b | c", "d, e"], st.sampled_from(["a", "b | c", "d, e"])),
            (Literal[1, True], st.sampled_from([1, True])),
        ]
    ),
    lambda inner: (
        st.tuples(inner, inner).map(
            lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))
        )
        | inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3)))
        | inner.map(lambda one: (tuple[one[0], ...], st.lists(one[1], max_size=3).map(tuple)))
        | inner.map(lambda one: (one[0] | None if one[0] else int | None, st.none() | one[1]))
    ),
    max_leaves=4,
)


@settings(deadline=None)
@given(HINTS.flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1])))
def test_whatever_a_hint_allows_passes_unchanged(pair):
    hint, value = pair
    assert repr(coerce(value, simplify(hint))) == repr(value)


@settings(deadline=None)
@given(st.integers())
def test_whole_numbers_keep_their_digits(value):
    assert coerce(value, "int") == value
    assert coerce(value, "int | None") == value


# --- Signatures -----------------------------------------------------------------------------------


class Brick:
    """Do something.

    Args:
        size: first line,
            and a second: with a colon.
        mode (str): how.
        **rest: others.

    Raises:
        ValueError: never.
    """

    def __init__(
        self, size: int, mode: Literal["a", "b"] = "a", *, betas: tuple[float, float] = (0.9, 0.99),
        odd: Nothing | None = None, device=None, _hidden: int = 0, **rest: int,
    ):  # fmt: skip
        pass


def test_options_are_read_from_a_signature():
    size, mode, betas, odd = describe(Brick, {"device"})
    assert size == Option("size", "int", None, True, "first line, and a second: with a colon.")
    assert mode == Option("mode", "'a' | 'b'", "a", False, "how.")
    assert betas == Option("betas", "tuple[float, float]", [0.9, 0.99], False, "")
    assert odd == Option("odd", "Any", None, False, "")  # a name for type checkers only


def test_injected_names_are_no_options():
    assert "size" not in {option.name for option in describe(Brick, {"size"})}


def test_an_object_without_a_signature_has_no_options():
    assert describe(type) == ()


@pytest.mark.parametrize(("target", "any_"), [(Brick, True), (describe, False)])
def test_takes_any(target, any_):
    assert takes_any(target) is any_


def test_defaults_are_plain_data():
    def f(a=math.inf, b=(1, [2.5, None]), c=len, d=torch.float32, e=Brick):
        pass

    found = [option.default for option in describe(f)]
    assert found == ["inf", [1, [2.5, None]], "len", "torch.float32", "Brick"]


def test_torch_classes_can_be_described():
    options = {option.name: option for option in describe(torch.optim.AdamW, {"params"})}
    assert options["lr"].type == "float"
    assert options["betas"].type == "tuple[float, float]"
    assert options["fused"].type == "bool | None"
