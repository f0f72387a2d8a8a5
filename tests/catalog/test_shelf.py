"""Finding and building bricks, and what the check reports."""

import json
import string
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.catalog import KINDS, build, check, find_kind, get, guide, shelf
from brickyard.catalog.card import Card
from brickyard.catalog.options import Option
from brickyard.errors import CatalogError, UserError, near

module = sys.modules["brickyard.catalog.shelf"]


def fake(gamma: float, delta: float = 1.0, *, mode: str = "a"):
    """Build a fake."""
    return (gamma, delta, mode)


def card(key, kind="loss", **more):
    fields = {
        "summary": "s", "use_when": "s", "avoid_when": "s", "best_for": "s", "paper": "s",
        "tune_first": "s", "cost": "s", "formula": "s", "origin": "torch", "source": "brickyard/x",
        "facts": dict.fromkeys(KINDS[kind].facts, "s"),
    }  # fmt: skip
    return Card(key, kind, **{"target": f"{__name__}:fake", **fields, **more})


@pytest.fixture
def store(monkeypatch, tmp_path):
    """Return a function that makes a catalog of the given cards the only one."""

    def put(*cards, live=()):
        path = tmp_path / "catalog.json"
        path.write_text(json.dumps({"cards": [c.to_dict() for c in cards]}))
        monkeypatch.setattr(module, "CATALOG", path)
        monkeypatch.setattr(module, "LIVE", {c.key: c for c in live})
        module._stored.cache_clear()
        return path

    yield put
    module._stored.cache_clear()


# --- Names ----------------------------------------------------------------------------------------


def test_a_brick_is_found_by_key_alias_and_class_name(store):
    store(card("smooth_l1", aliases=("huber_like",)), card("other", target="m:SmoothL1Loss"))
    for name in ("smooth_l1", "Smooth L1", " SMOOTH-L1 ", "huber-like"):
        assert get(name).key == "smooth_l1"
    assert get("SmoothL1Loss").key == "other"


def test_a_key_goes_before_an_alias_and_an_alias_before_a_class_name(store):
    store(card("a", target="m:Focal"), card("b", aliases=("focal",)), card("focal"))
    assert get("focal").key == "focal"
    store(card("a", target="m:Focal"), card("b", aliases=("focal",)))
    assert get("focal").key == "b"
    store(card("a", target="m:Focal"))
    assert get("FOCAL").key == "a"


def test_a_kind_narrows_the_search(store):
    store(card("mse", "metric"), card("mse2", "loss", aliases=("mse",)))
    assert get("mse", "losses").key == "mse2"
    assert get("mse", "metric").key == "mse"


def test_an_unknown_name_gives_near_ones(store):
    store(card("adam"), card("adamw"), card("lion", aliases=("evolved_sign",)))
    with pytest.raises(CatalogError, match="no brick is called 'adamz'; did you mean 'adam'"):
        get("adamz")
    with pytest.raises(CatalogError, match="did you mean 'evolved_sign'"):
        get("evolved_sing")
    with pytest.raises(CatalogError, match="no loss is called 'qqqq'; allowed: adam, adamw"):
        get("qqqq", "loss")


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_a_name_or_a_clear_error(name):
    try:
        found = get(name)
    except CatalogError as error:
        found = str(error)
    assert isinstance(found, Card) or found.startswith(f"no brick is called {name!r}")


@settings(deadline=None)
@given(st.text(string.ascii_lowercase + "_", max_size=8), st.lists(st.text(max_size=6)))
def test_near_names_are_known_ones(name, known):
    hint = near(name, known)
    assert hint == "" or hint.startswith("; ")
    if not known:
        assert hint == "; nothing is accepted here"


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_kind_is_found_by_singular_plural_and_title(kind):
    for name in (kind.name, kind.category, kind.title, kind.title.upper(), f" {kind.category} "):
        assert find_kind(name) is kind


def test_the_names_of_kinds_do_not_collide():
    names = [n for k in KINDS.values() for n in {k.name, k.category}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("name", "hint"), [("optimisers", "optimizers"), ("schedulers", "sched")])
def test_an_unknown_category_gives_near_ones(name, hint):
    with pytest.raises(CatalogError, match=f"did you mean '{hint}"):
        shelf(name)
    with pytest.raises(CatalogError, match="allowed: activations, normalization"):
        shelf("zzz")


# --- The shelf ------------------------------------------------------------------------------------


def test_a_user_s_own_brick_is_on_the_shelf(store):
    own = card("mine", source="my_project/losses")
    store(card("focal"), live=[own])
    assert [c.key for c in shelf()] == ["focal", "mine"]
    assert get("mine") is own


def test_a_user_s_brick_with_our_key_is_an_error(store):
    own = card("focal", source="my_project/losses", target="my_project:Focal")
    store(card("focal"), live=[own])
    with pytest.raises(CatalogError, match=r"two bricks are called 'focal'.*my_project:Focal"):
        shelf()


def test_a_damaged_catalog_is_a_clear_error(store):
    for text in ("", "{", "[]", '{"cards": [{"kind": "loss"}]}', '{"cards": [{"nothing": 1}]}'):
        store().write_text(text)
        with pytest.raises(CatalogError, match=r"damaged.*python -m brickyard\.catalog"):
            shelf()


def test_without_a_catalog_there_are_the_imported_bricks(store):
    store(live=[card("mine")]).unlink()
    assert [c.key for c in shelf()] == ["mine"]


# --- Building -------------------------------------------------------------------------------------

OPTIONS = (
    Option("gamma", "float", None, True),
    Option("delta", "float", 1.0),
    Option("mode", "str", "a"),
)


def test_building_passes_injected_values_and_options(store):
    store(card("fake", options=OPTIONS))
    assert build("losses", "Fake", 2.0, mode="b") == (2.0, 1.0, "b")
    assert build("loss", "fake", gamma=2.0, delta=3.0) == (2.0, 3.0, "a")


@pytest.mark.parametrize(
    ("injected", "options", "says"),
    [
        ((1.0,), {"delt": 1}, "'fake' has no option 'delt'; did you mean 'delta'"),
        ((), {}, "cannot build 'fake': missing a required argument: 'gamma'"),
        ((1, 2, 3), {}, "cannot build 'fake': too many positional arguments"),
        ((1.0,), {"gamma": 1.0}, "cannot build 'fake': multiple values for argument 'gamma'"),
    ],
)
def test_a_call_that_cannot_work_is_a_clear_error(store, injected, options, says):
    store(card("fake", options=OPTIONS))
    with pytest.raises(CatalogError, match=says):
        build("loss", "fake", *injected, **options)


def test_a_brick_s_own_errors_pass_through(store, monkeypatch):
    def broken(gamma: float = 1.0):
        raise ValueError("gamma must be positive")

    monkeypatch.setattr(sys.modules[__name__], "fake", broken)
    store(card("fake", options=OPTIONS[:1]))
    with pytest.raises(ValueError, match="must be positive") as caught:
        build("loss", "fake")
    assert not isinstance(caught.value, UserError)


def test_a_brick_of_another_kind_is_not_built(store):
    store(card("fake"))
    with pytest.raises(CatalogError, match="no optimizer is called 'fake'"):
        build("optimizer", "fake")


# --- The check ------------------------------------------------------------------------------------


def wrongs(monkeypatch, store, *cards):
    """Return what the check says of these cards, if they were all of the code's."""
    rows = [{**c.to_dict(), "derived": {}} for c in cards]
    text = json.dumps({"cards": rows}, indent=1, ensure_ascii=False) + "\n"
    monkeypatch.setattr(module, "live_cards", lambda package="brickyard": list(cards))
    monkeypatch.setattr(module, "derive", lambda card: {})
    store().write_text(text)
    return [line for line in check() if "guides/" not in line]


def test_cards_in_order_give_no_complaint(monkeypatch, store):
    a = card("a", aliases=("x",), pairs_with=("b",))
    assert wrongs(monkeypatch, store, a, card("b")) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use_when": " "}, "a: use_when is empty"),
        ({"facts": {"output": "logits"}}, "a: target is empty (every loss states it)"),
        ({"summary": "s" * 121}, "a: summary has 121 characters; 120 at the most"),
        ({"formula": ""}, "a: no Math: block in the docstring, and no formula"),
        ({"needs": ("pandas",)}, "a: needs packages but names no extra"),
        ({"pairs_with": ("nobody",)}, "a: pairs_with names 'nobody', which is no key"),
        ({"pairs_with": ("other_alias",)}, "a: pairs_with names 'other_alias', which is no key"),
        ({"aliases": ("other",)}, "other: the name 'other' belongs to a too"),
        ({"aliases": ("other_alias",)}, "other: the name 'other_alias' belongs to a too"),
        ({"aliases": ("a",)}, "a: the name 'a' belongs to a too"),
    ],
)
def test_a_fault_is_reported(monkeypatch, store, change, says):
    others = card("other", aliases=("other_alias",))
    assert wrongs(monkeypatch, store, replace(card("a"), **change), others) == [says]


def test_our_own_bricks_need_whole_docstrings(monkeypatch, store):
    own = card("a", origin="own", options=(Option("gamma"),))
    assert wrongs(monkeypatch, store, own) == [
        "a: the docstring has no Example: section",
        "a: the docstring has no Reference: section",
        "a: option 'gamma' is not described under Args:",
    ]


def test_a_stale_or_missing_catalog_is_reported(monkeypatch, store):
    assert wrongs(monkeypatch, store, card("a")) == []
    module.CATALOG.write_text(module.CATALOG.read_text().replace('"a"', '"b"'))
    assert check()[-1] == "catalog.json is stale; run: python -m brickyard.catalog"
    module.CATALOG.unlink()
    assert check()[-1] == "catalog.json is stale; run: python -m brickyard.catalog"


def test_a_category_without_a_guide_is_reported(monkeypatch, store, tmp_path):
    monkeypatch.setattr(module, "GUIDES", tmp_path)
    monkeypatch.setattr(module, "live_cards", lambda package="brickyard": [card("a")])
    store()
    assert "guides/losses.md is missing" in check()
    with pytest.raises(CatalogError, match="losses has no guide yet"):
        guide("loss")
    (tmp_path / "losses.md").write_text("# Losses\n")
    assert guide("loss") == "# Losses\n"
    assert "guides/losses.md is missing" not in check()


# --- The package ----------------------------------------------------------------------------------


def test_the_catalog_needs_no_torch():
    code = (
        "import sys, brickyard.catalog as c; c.shelf(); print({'torch', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_whole_catalog_is_in_order():
    assert check() == []
