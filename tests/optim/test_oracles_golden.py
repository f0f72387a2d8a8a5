"""Ten steps of every optimizer with its defaults are what they were when they were stored."""

from __future__ import annotations

import json

import make_golden
import numpy as np
import pytest
import torch

from brickyard import optim

STORED = json.loads(make_golden.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", STORED)
def test_10_trajectories_stay_those_that_are_stored(name: str) -> None:
    found = np.array(make_golden.trajectory(name))
    np.testing.assert_allclose(found, np.array(STORED[name]), rtol=1e-9, atol=1e-12)
    assert np.abs(np.diff(found, axis=0)).max() > 0


def test_every_optimizer_is_stored() -> None:
    classes = {
        name for name in optim.__all__
        if isinstance(getattr(optim, name), type)
        and issubclass(getattr(optim, name), torch.optim.Optimizer)
    }  # fmt: skip
    assert set(STORED) == classes - {"Optimizer"}
