"""Each check speaks on a minimal bug and is silent on its fix."""

import pytest
import torch
from doctor_bugs import CASES, MORE

from brickyard.doctor import watch
from brickyard.doctor.checks import CHECKS


def names(function, fixed):
    torch.manual_seed(0)
    with watch() as doctor:
        function(fixed)
    report = doctor.report()
    assert not report.problems
    return [f.check for f in report.findings], report


@pytest.mark.parametrize("check", CASES)
def test_speaks_on_the_bug(check):
    found, report = names(CASES[check], False)
    assert check in found, report


@pytest.mark.parametrize("check", CASES)
def test_silent_on_the_fix(check):
    found, report = names(CASES[check], True)
    assert check not in found, report


@pytest.mark.parametrize("check", MORE)
def test_other_forms(check):
    assert check in names(MORE[check], False)[0]
    assert check not in names(MORE[check], True)[0]


def test_sixty_checks_with_whole_cards():
    assert {c.number for c in CHECKS.values()} == set(range(1, 61))
    for one in CHECKS.values():
        for text in (one.sees, one.why, one.try_, one.allows, one.source):
            assert text.strip(), one.name
        assert 0 < one.weight <= 1
