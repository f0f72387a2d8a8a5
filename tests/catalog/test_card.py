"""Putting a card on a brick: what is typed, what is derived, what is refused."""

import json
import sys
import types

import pytest
import torch

from brickyard.catalog import Card, brick
from brickyard.catalog import card as cards
from brickyard.catalog.card import LIVE, docstring_block
from brickyard.errors import CatalogError


@pytest.fixture(autouse=True)
def live(monkeypatch):
    """Let tests add cards that are gone afterwards."""
    monkeypatch.setattr(cards, "LIVE", dict(LIVE))
    return cards.LIVE


def written(**more):
    return {
        "summary": "Does it.", "use_when": "a", "avoid_when": "b", "best_for": "c", "paper": "d",
        "tune_first": "e", "cost": "f", "output": "logits", "target": "values", **more,
    }  # fmt: skip


def example(weight: float, gamma: float = 2.0, reduction: str = "mean", device=None):
    """Do something.

    Math:
        a = b
            + c

        d = e

    Args:
        weight: of it.
        gamma: how much.
    """


def test_what_is_typed_and_what_is_derived(live):
    assert brick("loss", "my_loss", aliases=["mine"], **written())(example) is example
    card = live["my_loss"]
    assert (card.kind, card.name, card.origin) == ("loss", "example", "own")
    assert card.aliases == ("mine",)
    assert card.facts == {"output": "logits", "target": "values"}
    assert card.formula == "a = b\n    + c\n\nd = e"
    assert card.doc == "Do something."
    assert card.target == f"{__name__}:example"
    options = {o.name: (o.type, o.default, o.required, o.doc) for o in card.options}
    assert options == {
        "weight": ("float", None, True, "of it."),
        "gamma": ("float", 2.0, False, "how much."),
        "reduction": ("str", "mean", False, ""),
    }
    assert card.load() is example


def test_another_library_s_class_keeps_its_words_to_itself(live):
    brick("activation", "my_gelu", formula="x * Phi(x)", **_no_facts())(torch.nn.GELU)
    card = live["my_gelu"]
    assert (card.origin, card.doc, card.formula) == ("torch", "", "x * Phi(x)")
    assert card.target == f"{__name__}:GELU"  # where our package offers it
    assert {o.name: o.doc for o in card.options} == {"approximate": ""}


def test_the_public_home_of_a_brick(live):
    brick("activation", "here", public="somewhere.nice", **_no_facts())(example)
    assert live["here"].target == "somewhere.nice:example"


def _no_facts():
    return {k: v for k, v in written().items() if k not in ("output", "target")}


def test_injected_parameters_are_no_options(live):
    def make(params, lr: float = 1.0, device=None, dtype=None):
        pass

    brick("optimizer", "my_opt", known_issue="none", **_no_facts())(make)
    assert [o.name for o in live["my_opt"].options] == ["lr"]


def test_an_unknown_field_is_an_error():
    with pytest.raises(CatalogError, match=r"unknown fields \['use_wen'\].*use_when"):
        brick("loss", "my_loss", **written(use_wen="typo"))(example)


def test_a_fact_of_another_kind_is_an_error():
    with pytest.raises(CatalogError, match="known_issue"):
        brick("loss", "my_loss", **written(known_issue="x"))(example)


def test_an_unknown_kind_is_an_error():
    with pytest.raises(CatalogError, match="did you mean 'losses'"):
        brick("lossy", "my_loss", **written())(example)


@pytest.mark.parametrize("key", ["My_Loss", "my-loss", "my loss", "", "mein_löss"])
def test_a_key_that_get_would_not_find_is_an_error(key):
    with pytest.raises(CatalogError, match="lower-case"):
        brick("loss", key, **written())(example)


def test_two_bricks_of_one_key_are_an_error():
    brick("loss", "my_loss", **written())(example)
    brick("loss", "my_loss", **written(summary="Again."))(example)  # a reload is none

    def other():
        pass

    with pytest.raises(CatalogError, match=r"two bricks are called 'my_loss'.*example.*other"):
        brick("loss", "my_loss", **written())(other)


def test_a_card_survives_json(live):
    brick("loss", "my_loss", aliases=("a",), pairs_with=("b",), **written())(example)
    card = live["my_loss"]
    assert Card.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_a_card_of_a_newer_version_can_be_read(live):
    brick("loss", "my_loss", **written())(example)
    assert Card.from_dict({**live["my_loss"].to_dict(), "new_field": 1}) == live["my_loss"]


def test_a_missing_package_is_named_with_its_extra():
    card = Card("x", "data", "a:b", needs=("no_such_package.inner", "torch"), extra="data")
    with pytest.raises(CatalogError, match=r"no_such_package\.inner.*pip install 'brickyard\[data"):
        card.load()


def test_load_follows_dots():
    module = types.ModuleType("outer_module")
    module.Outer = types.SimpleNamespace(make=example)  # pyright: ignore
    sys.modules["outer_module"] = module
    try:
        assert Card("x", "data", "outer_module:Outer.make").load() is example
    finally:
        del sys.modules["outer_module"]


def test_a_block_of_a_docstring():
    doc = "First.\n\nMath:\n    a\n      b\n\n    c\nArgs:\n    x: y\n"
    assert docstring_block(doc, "Math") == "a\n  b\n\nc"
    assert docstring_block(doc, "Args") == "x: y"
    assert docstring_block(doc, "Raises") == ""
    assert docstring_block("", "Math") == ""
