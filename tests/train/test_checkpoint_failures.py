"""Checkpoints that cannot be written: at any operation, at any byte, what was there is intact."""

import os
import re
import resource
import signal
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.errors import RunError
from brickyard.train.checkpoint import Checkpoints, Retention, Scored


def _state(step, size=1000):
    return {"step": step, "weights": torch.full((size,), float(step)), "note": "a"}


def _scored(step, value, size=10):
    return Scored(step, "accuracy", value, {"step": step, "model": torch.full((size,), value)})


def _files(folder):
    return sorted(p.name for p in folder.iterdir())


_PLACES = ("write", "fsync", "replace", "mkstemp", "chmod")


class _Failing:
    """Raise an error at the n-th operation on files, and count them."""

    def __init__(self, monkeypatch, at, error):
        self.at, self.error, self.count, self.where = at, error, 0, ""
        import brickyard.train.checkpoint as module

        self._wrap(monkeypatch, os, "fsync")
        self._wrap(monkeypatch, os, "replace")
        self._wrap(monkeypatch, os, "chmod")
        self._wrap(monkeypatch, tempfile, "mkstemp")
        self._wrap(monkeypatch, module._Hashing, "write", "write")

    def _wrap(self, monkeypatch, owner, name, label=""):
        plain = getattr(owner, name)

        def failing(*args, **options):
            self.count += 1
            if self.count == self.at:
                self.where = label or name
                if label == "write":
                    args[0].error = OSError(*self.error)
                raise OSError(*self.error)
            return plain(*args, **options)

        monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("error", [(28, "No space left on device"), (30, "Read-only file system"),
                                   (5, "Input/output error")])  # fmt: skip
def test_a_failure_at_any_operation_leaves_what_was_there(tmp_path, monkeypatch, error):
    retention = Retention(last=2, best=2, mode="max")
    checkpoints = Checkpoints(tmp_path, retention)
    checkpoints.save({"last": _state(1)}, 1, best=[_scored(1, 0.5)])
    before = {name: (tmp_path / name).read_bytes() for name in _files(tmp_path)}
    seen, at = set(), 0
    while True:
        at += 1
        with monkeypatch.context() as patch:
            failing = _Failing(patch, at, error)
            told = ""
            try:
                kept = Checkpoints(tmp_path, retention)
                kept.save({"last": _state(2)}, 2, best=[_scored(2, 0.9)])
            except RunError as problem:
                told = str(problem)
        if told:
            assert re.search(f"{error[1]}.*already there are intact", told)
        seen.add(failing.where)
        if not failing.where:
            break
        if checkpoints.entries()["last"].step == 1:
            now = {name: (tmp_path / name).read_bytes() for name in _files(tmp_path)}
            assert now == before, f"operation {at}, {failing.where}"
        assert not [p for p in tmp_path.glob(".*tmp") if "link" not in p.name]
        assert Checkpoints(tmp_path).load_last()[1] == ""
        assert Checkpoints(tmp_path).load_best()[1] == ""
    assert set(_PLACES) < seen, "each kind of operation failed once"
    assert checkpoints.load_last()[0]["step"] == 2
    assert checkpoints.load("best")["step"] == 2


@pytest.fixture(scope="module")
def whole_size(tmp_path_factory):
    folder = tmp_path_factory.mktemp("size")
    Checkpoints(folder).save({"last": _state(2, 5000)}, 2)
    return (folder / "step-00000002.pt").stat().st_size


@given(share=st.floats(0, 0.999))
@settings(max_examples=40)
def test_a_disk_full_at_any_byte_leaves_what_was_there(whole_size, share):
    """The system itself refuses to write past a byte, with the error that it has for that."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Checkpoints(folder).save({"last": _state(1, 5000)}, 1)
        before = {name: (folder / name).read_bytes() for name in _files(folder)}
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * whole_size), hard))
        try:
            with pytest.raises(RunError, match=r"File too large.*already there are intact"):
                Checkpoints(folder).save({"last": _state(2, 5000)}, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert {name: (folder / name).read_bytes() for name in _files(folder)} == before
        assert Checkpoints(folder).load_last()[0]["step"] == 1
        Checkpoints(folder).save({"last": _state(2, 5000)}, 2)
        assert Checkpoints(folder).load_last()[0]["step"] == 2, "and it goes on when there is room"


@pytest.fixture
def as_nobody():
    """Give up root's right to write anywhere, which file modes do not bind."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


def test_a_folder_that_becomes_read_only(as_nobody):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        Checkpoints(folder).save({"last": _state(1)}, 1)
        before = _files(folder)
        folder.chmod(0o555)
        try:
            with pytest.raises(RunError, match=r"cannot write .*Permission denied.*are intact"):
                Checkpoints(folder).save({"last": _state(2)}, 2)
            assert _files(folder) == before
            assert Checkpoints(folder).load_last()[0]["step"] == 1
        finally:
            folder.chmod(0o755)


def test_a_folder_that_is_gone_or_is_a_file(tmp_path):
    for folder in (tmp_path / "gone", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match=r"cannot write a checkpoint into"):
            Checkpoints(folder).save({"last": _state(2)}, 2)
