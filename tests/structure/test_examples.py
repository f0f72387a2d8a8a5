"""Every example runs, and README says what is true of the repository."""

import re
import sys
from pathlib import Path

import pytest
import warm

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
#: Seeds that a test runs; the results in the files' headers are of three or five.
SEEDS = {"losses_imbalance": 2, "schedules_onecycle": 2}
#: Beginnings of the names of examples that take a number of seeds.
SEEDED = ("losses_", "regularizers_", "schedules_")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_runs(path, tmp_path):
    """Examples end with an error when they miss what they promise."""
    seeds = [str(SEEDS.get(path.stem, 1))] if path.stem.startswith(SEEDED) else []
    done = warm.run([path, *seeds], tmp_path, errors=[FutureWarning])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_readme_is_up_to_date():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import readme
    finally:
        sys.path.pop(0)
    text = readme.README.read_text(encoding="utf-8")
    assert readme.rewrite(text) == text, "run: make catalog"


def test_readme_code_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_recipes_are_right():
    from brickyard.train import load

    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        assert load(path).recipe.name == path.stem
