"""Checkpoints: whole or not there, verified, as many as asked for, and another one when damaged."""

import hashlib
import json
import math
import os
import tempfile
import time
from pathlib import Path

import pytest
import torch
import warm
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


def _harm(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "foreign":
        torch.save({"step": 999, "weights": torch.ones(3)}, path)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


HARMS = ["cut", "flip", "foreign", "empty", "gone"]


def test_round_trip(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"last": _state(1)}, 1, best=[_scored(1, 0.5)])
    checkpoints.save({"last": _state(2)}, 2)
    assert checkpoints.load("last")["step"] == 2
    assert checkpoints.load("best")["step"] == 1
    assert checkpoints.load("previous")["step"] == 1
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2
    checkpoints.save({"last": _state(3)}, 3)
    assert _files(tmp_path) == [
        "best-00000001.pt", "best.pt", "last.pt", "manifest.json", "step-00000002.pt",
        "step-00000003.pt",
    ], "nothing stale stays"  # fmt: skip


def test_the_same_step_twice(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"last": _state(4)}, 4)
    for note in "ab":
        checkpoints.save({"last": {**_state(5), "note": note}}, 5)
    assert checkpoints.load("last")["note"] == "b"
    assert checkpoints.load("previous")["step"] == 4, "two of one step are of no use"


def test_last_best_and_every_stay_as_many_as_asked_for(tmp_path):
    kept = Checkpoints(tmp_path, Retention(last=3, best=2, every=4, mode="max"))
    values = {2: 0.5, 3: 0.9, 5: 0.7, 6: math.nan, 8: 0.7, 9: 0.8}
    for step in range(1, 11):
        best = [_scored(step, values[step])] if step in values else []
        kept.save({"last": _state(step)}, step, best=best, milestone=step % 4 == 0)
    entries = kept.entries()
    assert {role: e.step for role, e in entries.items()} == {
        "last": 10, "previous": 9, "previous-2": 8, "step-4": 4, "step-8": 8,
        "best": 3, "best-2": 9,
    }  # fmt: skip
    assert entries["previous-2"].file == entries["step-8"].file, "one file has both roles"
    assert (entries["best"].metric, entries["best"].value) == ("accuracy", 0.9)
    assert kept.load("best-2")["model"][0] == pytest.approx(0.8)
    named = {e.file for e in entries.values()}
    assert set(_files(tmp_path)) == named | {"last.pt", "best.pt", "manifest.json"}


@given(
    best=st.integers(1, 4), mode=st.sampled_from(["min", "max"]),
    values=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), min_size=1, max_size=8),
    together=st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=25)
def test_the_best_are_the_best(best, mode, values, together):
    """However many evaluations lie between two checkpoints; ties go to the earlier one."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Checkpoints(Path(folder), Retention(best=best, mode=mode))
        many = [_scored(step, value, 1) for step, value in enumerate(values)]
        for i in range(0, len(many), together):
            kept.save({}, 0, best=kept.among_best(many[i : i + together]))
        sign = 1 if mode == "min" else -1
        numbers = [i for i, value in enumerate(values) if not math.isnan(value)]
        order = sorted(numbers, key=lambda i: (sign * values[i], i))
        order += [i for i in range(len(values)) if i not in numbers]
        roles = ["best", "best-2", "best-3", "best-4"]
        entries = kept.entries()
        assert [entries[r].step for r in roles if r in entries] == order[:best]


def test_files_of_others_are_left_alone(tmp_path):
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"x")
    (tmp_path / ".notes.tmp").write_bytes(b"x")
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save({"last": _state(step)}, step)
    assert mine.exists()
    assert (tmp_path / ".notes.tmp").exists()


@pytest.mark.parametrize("harm", HARMS)
def test_damage_is_found_and_named_and_the_previous_one_serves(tmp_path, harm):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"last": _state(1)}, 1)
    checkpoints.save({"last": _state(2)}, 2)
    _harm(tmp_path / "step-00000002.pt", harm)
    with pytest.raises(RunError, match=r"step-00000002.pt is (damaged|missing)"):
        checkpoints.load("last")
    state, warning = checkpoints.load_last()
    assert state["step"] == 1
    assert "step-00000002.pt is" in warning
    assert "taken instead: step-00000001.pt, of step 1" in warning
    checkpoints.save({"last": _state(3)}, 3)
    assert checkpoints.load("previous")["step"] == 1, "the damaged one takes nobody's place"


@pytest.mark.parametrize("harm", HARMS)
def test_milestones_serve_when_the_last_ones_are_damaged(tmp_path, harm):
    checkpoints = Checkpoints(tmp_path, Retention(last=2, every=2))
    for step in range(1, 6):
        checkpoints.save({"last": _state(step)}, step, milestone=step % 2 == 0)
    for step in (5, 4):
        _harm(tmp_path / f"step-{step:08d}.pt", harm)
    state, warning = Checkpoints(tmp_path).load_last()
    assert state["step"] == 2
    assert all(f"step-{step:08d}.pt" in warning for step in (5, 4, 2))


@pytest.mark.parametrize("harm", HARMS)
def test_the_second_best_serves_when_the_best_is_damaged(tmp_path, harm):
    checkpoints = Checkpoints(tmp_path, Retention(best=2, mode="max"))
    checkpoints.save({}, 3, best=[_scored(1, 0.5), _scored(2, 0.9), _scored(3, 0.7)])
    assert checkpoints.load_best()[1] == ""
    _harm(tmp_path / "best-00000002.pt", harm)
    state, warning = checkpoints.load_best()
    assert state["step"] == 3
    assert "best-00000002.pt is" in warning
    checkpoints.save({}, 4, best=[_scored(4, 0.6)])
    assert [checkpoints.load(role)["step"] for role in ("best", "best-2")] == [3, 4]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_only_checkpoint_is_an_error(tmp_path, harm):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"last": _state(1)}, 1)
    _harm(tmp_path / "step-00000001.pt", harm)
    with pytest.raises(RunError, match=r"(damaged|missing).*no other can be read"):
        checkpoints.load_last()


@pytest.mark.parametrize(
    "text", ["{", "", "[]", '{"format": 1}', '{"format": 1, "entries": {"last": 3}}', "\x00" * 80,
             '{"format": 1, "entries": {"last": {"file": "../x.pt", "step": 1, "sha256": "", '
             '"bytes": 0}}}', None],
)  # fmt: skip
def test_without_a_manifest_the_files_speak_for_themselves(tmp_path, text):
    kept = Checkpoints(tmp_path, Retention(last=3, best=2, mode="max"))
    values = {1: 0.9, 2: 0.5, 3: 0.7}
    for step, value in values.items():
        kept.save({"last": _state(step)}, step, best=[_scored(step, value)])
    before = kept.entries()
    manifest = tmp_path / "manifest.json"
    manifest.write_text(text) if text is not None else manifest.unlink()
    fresh = Checkpoints(tmp_path, Retention(last=3, best=2, mode="max"))
    state, warning = fresh.load_last()
    assert state["step"] == 3
    assert "manifest.json" in warning
    assert "read from the files themselves" in warning
    assert fresh.load_best()[0]["step"] == 1
    fresh.save({}, 3)
    assert fresh.entries() == before, "the next save writes the manifest anew"
    _harm(tmp_path / "step-00000003.pt", "flip")
    manifest.unlink()
    state, warning = Checkpoints(tmp_path).load_last()
    assert state["step"] == 2
    assert "without step-00000003.pt, which cannot be read" in warning


def test_a_manifest_of_a_newer_version_is_not_touched(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format": 99, "entries": {}}')
    with pytest.raises(RunError, match="has format 99, and this version reads 1"):
        Checkpoints(tmp_path).load_last()
    with pytest.raises(RunError, match="has format 99"):
        Checkpoints(tmp_path).save({"last": _state(1)}, 1)
    assert _files(tmp_path) == ["manifest.json"]


def test_nothing_written_yet(tmp_path):
    with pytest.raises(RunError, match="none was written yet"):
        Checkpoints(tmp_path).load_last()
    with pytest.raises(RunError, match="none was written yet"):
        Checkpoints(tmp_path).load("best")


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    path = tmp_path / "step-00000001.pt"
    torch.save({"x": Evil()}, path)
    entry = {"file": path.name, "step": 1, "bytes": path.stat().st_size,
             "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}  # fmt: skip
    manifest = {"format": 1, "entries": {"last": entry}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"is no checkpoint: .*nothing in it was run"):
        Checkpoints(tmp_path).load("last")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(RunError, match="cannot be read"):
        Checkpoints(tmp_path).load_last()
    assert not (tmp_path / "pwned").exists()


WRITER = """
import sys, torch
from pathlib import Path
from brickyard.train.checkpoint import Checkpoints, Retention, Scored
checkpoints = Checkpoints(Path(sys.argv[1]), Retention(last=3, best=2, every=4, mode="max"))
for step in range(1, 10**9):
    weights = torch.full((500_000,), float(step))
    best = [Scored(step, "accuracy", step, {"step": step, "weights": weights})]
    checkpoints.save({"last": {"step": step, "weights": weights}}, step, best if step % 3 else [],
                     milestone=step % 4 == 0 and step < 20)
    print(step, flush=True)
"""


def test_killed_while_writing_every_named_file_is_whole(tmp_path, tmp_path_factory):
    """SIGKILL at several moments of a process that does nothing but write checkpoints."""
    said = tmp_path_factory.mktemp("writer") / "said"
    for delay in (0.0, 0.007, 0.013, 0.023):
        writer = warm.start(["-c", WRITER, tmp_path], out=str(said))
        while not said.exists() or said.read_bytes().count(b"\n") < 6:
            assert writer.is_alive()
            time.sleep(0.001)
        time.sleep(delay)
        writer.kill()
        writer.join()
        done = int(said.read_text().rpartition("\n")[0].split()[-1])
        said.unlink()
        checkpoints = Checkpoints(tmp_path, Retention(last=3, best=2, every=4, mode="max"))
        assert checkpoints.load("last")["step"] >= done, "what was reported as written is there"
        entries = checkpoints.entries()
        assert {"last", "previous", "previous-2", "step-4", "best", "best-2"} <= set(entries)
        for role in entries:
            state = checkpoints.load(role)
            assert state["weights"].eq(float(state["step"])).all()
        checkpoints.save({"last": _state(10**6)}, 10**6)
        named = {entry.file for entry in checkpoints.entries().values()}
        assert {n for n in _files(tmp_path) if not (tmp_path / n).is_symlink()} == {
            *named, "manifest.json",
        }, "the killed writer's leftovers are gone"  # fmt: skip
        for path in tmp_path.iterdir():
            path.unlink()
