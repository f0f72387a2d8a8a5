"""Settings for all tests."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # several workers share the cores, and so do children
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("house", deadline=None)  # tests never depend on time
hypothesis.settings.load_profile("house")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_start():
    torch.manual_seed(0)
