"""Checkpoints: whole or not there, verified, and the one before when the last is damaged."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from brickyard.errors import RunError
from brickyard.train.checkpoint import Checkpoints


def _state(step):
    return {"step": step, "weights": torch.full((1000,), float(step)), "note": "a"}


def test_round_trip(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"last": _state(1), "best": _state(1)}, 1)
    checkpoints.save({"last": _state(2)}, 2)
    assert checkpoints.load("last")["step"] == 2
    assert checkpoints.load("best")["step"] == 1
    assert checkpoints.load("previous")["step"] == 1
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2
    checkpoints.save({"last": _state(3)}, 3)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ["best-00000001.pt", "best.pt", "last-00000002.pt", "last-00000003.pt",
                     "last.pt", "manifest.json"], "nothing stale stays"  # fmt: skip


def test_the_same_step_twice(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for note in "ab":
        checkpoints.save({"last": {**_state(5), "note": note}}, 5)
    assert checkpoints.load("last")["note"] == "b"
    assert checkpoints.load("previous")["note"] == "a"


@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_damage_is_found_and_named_and_the_previous_one_serves(tmp_path, harm):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"last": _state(1)}, 1)
    checkpoints.save({"last": _state(2)}, 2)
    path = tmp_path / "last-00000002.pt"
    content = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(content[:100])
    elif harm == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(RunError, match=r"last-00000002.pt is (damaged|missing)"):
        checkpoints.load("last")
    state, warning = checkpoints.load_last()
    assert state["step"] == 1
    assert "previous one at step 1" in warning


def test_a_damaged_only_checkpoint_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"last": _state(1)}, 1)
    (tmp_path / "last-00000001.pt").write_bytes(b"")
    with pytest.raises(RunError, match="damaged"):
        checkpoints.load_last()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99, "entries": {}}', '{"format": 1}'])
def test_a_damaged_manifest_is_an_error(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=r"manifest.json"):
        Checkpoints(tmp_path).load("last")


def test_nothing_written_yet(tmp_path):
    with pytest.raises(RunError, match="none was written yet"):
        Checkpoints(tmp_path).load_last()


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    path = tmp_path / "last-00000001.pt"
    torch.save({"x": Evil()}, path)
    import hashlib

    entry = {"file": path.name, "step": 1, "bytes": path.stat().st_size,
             "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}  # fmt: skip
    manifest = {"format": 1, "entries": {"last": entry}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        Checkpoints(tmp_path).load("last")
    assert not (tmp_path / "pwned").exists()


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"last": _state(1), "best": _state(1)}, 1)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left.*already there are intact"):
        checkpoints.save({"last": _state(2)}, 2)
    monkeypatch.undo()
    assert checkpoints.load("last")["step"] == 1
    assert not list(tmp_path.glob(".*tmp"))


WRITER = """
import sys, torch
from pathlib import Path
from brickyard.train.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
for step in range(1, 10**9):
    state = {"step": step, "weights": torch.full((2_000_000,), float(step))}
    checkpoints.save({"last": state, **({"best": state} if step % 3 == 0 else {})}, step)
    print(step, flush=True)
"""


def test_killed_while_writing_the_last_good_one_is_intact(tmp_path):
    """SIGKILL at several moments of a process that does nothing but write checkpoints."""
    for delay in (0.0, 0.011, 0.023, 0.037):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        done = 0
        while done < 3:
            done = int(writer.stdout.readline())
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0].split()
        done = int(rest[-1]) if rest else done
        checkpoints = Checkpoints(tmp_path)
        state = checkpoints.load("last")
        assert state["step"] >= done, "what was reported as written is there"
        assert state["weights"].eq(float(state["step"])).all()
        best = checkpoints.load("best")
        assert best["weights"].eq(float(best["step"])).all()
        checkpoints.save({"last": _state(1)}, 1)
        assert not list(tmp_path.glob(".*tmp")), "the killed writer's leftovers are gone"
