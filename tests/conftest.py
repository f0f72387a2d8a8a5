"""Settings for all tests."""

import os

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("house", deadline=None)  # tests never depend on time
hypothesis.settings.load_profile("house")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # several workers share the cores
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # of processes that tests start


@pytest.fixture(autouse=True)
def _same_start():
    torch.manual_seed(0)
