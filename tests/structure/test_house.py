"""The house rules: who may import whom, and how large things may be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "brickyard"
MODULES = sorted(p for p in SOURCE.rglob("*.py"))
CODE = MODULES + sorted(
    p for room in ("tests", "examples", "benchmarks") for p in (ROOT / room).rglob("*.py")
)

#: Rooms from the ground up; a room may import those below its own level and itself.
LEVELS = [
    {"errors", "version", "yamls"},
    {"catalog", "runs", "compiler"},
    {"plots", "reading"},
    {"nn", "losses", "schedules", "clip", "regularize", "augment"},
    {"optim", "report", "doctor"},
    {"train"},
    {"cli"},
    {"__main__"},
]


def _room(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _level(room):
    found = [i for i, rooms in enumerate(LEVELS) if room in rooms]
    assert found, f"{room} has no level; decide where it stands and add it to LEVELS"
    return found[0]


def _imports(tree):
    """Yield the imported brickyard modules, lazy ones inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "brickyard":
                yield from (f"brickyard.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_downwards(path):
    if path == SOURCE / "__init__.py":
        pytest.skip("the package itself only names its rooms")
    room = _room(path)
    for module in _imports(ast.parse(path.read_text(encoding="utf-8"))):
        if not module.startswith("brickyard."):
            continue
        other = module.split(".")[1]
        if other == room:
            continue
        assert _level(other) < _level(room), f"{room} must not import {other} ({module})"


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path):
    """A module has 400 lines at the most, a function 60, a signature 10 arguments."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, "split the module"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        doc = ast.get_docstring(node, clean=False)
        lines = node.end_lineno - node.lineno + 1 - (len(doc.splitlines()) if doc else 0)
        assert lines <= 60, f"{node.name} has {lines} lines"
        names = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([a for a in names if a.arg not in ("self", "cls")])
        assert count <= 10, f"{node.name} takes {count} arguments"


def test_no_asserts_for_users():
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        assert not found, f"{path}: lines {found}: raise an error that says what to do"


def test_only_weights_are_unpickled():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"torch\.load\(([^)]*)\)", text):
            assert "weights_only=True" in call, f"{path}: torch.load({call})"
        assert not re.search(r"\bpickle\.loads?\(", text), path
        assert "allow_pickle=True" not in text, path


def test_import_is_light():
    code = "import brickyard, sys; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_catalog_imports_no_torch():
    code = (
        "import sys; from brickyard import catalog; catalog.shelf(); catalog.search('outliers'); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
