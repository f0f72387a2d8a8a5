"""The doctor on ordinary scripts: it names the bug, and is silent on fixes and healthy runs.

A sample runs here through the command line; ``BRICKYARD_DOCTOR_SUITE=all`` runs every script
(a quarter of an hour), and ``python benchmarks/doctor_suite.py`` prints the whole table.
"""

import ast
import json
import os
import tomllib
from pathlib import Path

import pytest
import warm

HERE = Path(__file__).parent
CASES = HERE / "cases"
EXPECTED = tomllib.loads((CASES / "expected.toml").read_text(encoding="utf-8"))
HEALTHY = sorted((HERE / "healthy").glob("*.py"))
ALL = os.environ.get("BRICKYARD_DOCTOR_SUITE") == "all"
#: Cheap ones, of different kinds: a contract, an order, a dependence, an idiom each.
PAIRS = sorted(EXPECTED) if ALL else ["01_softmax_before_ce", "05_zero_grad_missing"]
QUIET = HEALTHY if ALL else [p for p in HEALTHY if p.stem in ("accumulation_sum", "manual_sgd")]


def _run(arguments, folder):
    done = warm.run(arguments, folder, limit=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [line for line in done.stdout.splitlines() if line.startswith("final ")]


def _watched(script, folder):
    report = folder / "report.json"
    final = _run(["-m", "brickyard", "doctor", "run", "--json", report, script], folder)
    return json.loads(report.read_text(encoding="utf-8")), final


def _loud(report):
    return [f["check"] for f in report["findings"] if f["severity"] in ("error", "warning")]


@pytest.mark.parametrize("name", PAIRS)
def test_bug_is_named_and_its_fix_is_not(name, tmp_path):
    expected = EXPECTED[name]
    report, _ = _watched(CASES / name / "bug.py", tmp_path)
    if expected.get("level") == "info":
        assert set(expected["checks"]) & {f["check"] for f in report["findings"]}
    else:
        assert _loud(report)[:1], "the doctor said nothing"
        if expected["exact"]:
            assert _loud(report)[0] in expected["checks"]
    fixed, _ = _watched(CASES / name / "fix.py", tmp_path)
    assert _loud(fixed) == []


@pytest.mark.parametrize("path", QUIET, ids=lambda p: p.stem)
def test_healthy_run_is_left_alone(path, tmp_path):
    report, watched = _watched(path, tmp_path)
    assert _loud(report) == []
    assert watched == _run([path], tmp_path), "watching changed the run"
    assert len(watched) == 1


def test_every_case_is_a_pair_that_differs_in_the_fix_alone():
    names = sorted(p.name for p in CASES.iterdir() if p.is_dir())
    assert names == sorted(EXPECTED)
    assert len(names) == 39
    for name in names:
        bug = (CASES / name / "bug.py").read_text(encoding="utf-8").splitlines()
        fix = (CASES / name / "fix.py").read_text(encoding="utf-8").splitlines()
        assert bug != fix
        assert len(set(bug) ^ set(fix)) <= 6, name


def test_scripts_are_ordinary():
    """They know nothing of the doctor, and end with the line that runs are compared by."""
    scripts = [*CASES.glob("*/*.py"), *HEALTHY]
    assert len(HEALTHY) >= 60
    for path in scripts:
        text = path.read_text(encoding="utf-8")
        assert "brickyard" not in text, path
        assert '"final"' in text, path
        words = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        assert not {w for w in words if "bug" in w.lower()}, path


def test_expected_checks_have_cards():
    from brickyard.doctor.checks import CHECKS

    for name, case in EXPECTED.items():
        assert set(case["checks"]) <= set(CHECKS), name
