"""Every recipe states a metric that it must reach, in its head and for the script that checks."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
STATED = yaml.safe_load((ROOT / "tools" / "expected.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_must_reach(path):
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    measured = {"loss", *(m if isinstance(m, str) else m["name"] for m in recipe["metrics"])}
    wanted = STATED[path.stem]
    assert wanted
    for metric, bounds in wanted.items():
        assert metric in measured
        assert set(bounds) < {"at_least", "at_most"}
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines[:4] if line.startswith("# ")]
    assert any("Must reach" in line or "Must read" in line for line in head)


def test_no_bound_is_for_a_recipe_that_is_gone():
    assert set(STATED) <= {path.stem for path in RECIPES}
