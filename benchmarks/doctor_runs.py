"""Run training scripts as processes of their own: as they are, watched, or recorded."""

import json
import os
import runpy
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
BED = ROOT / "tests" / "doctor"
RECORDER = Path(__file__).with_name("doctor_recorder.py")
#: One thread each: many small processes are compared, and sums then have one order.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
#: What nearly every script imports; ``warm`` imports it once and forks.
PRELOADED = (
    "torch", "torch.utils.data", "torch.distributed", "torch.func", "sklearn.datasets",
    "sklearn.model_selection", "sklearn.preprocessing", "sklearn.metrics", "mlxtend.data",
    "gymnasium", "torch._dynamo", "torch.utils.checkpoint", "torch.optim.swa_utils",
    "brickyard.doctor.run",
)  # fmt: skip


@dataclass(frozen=True)
class Script:
    """Name one script and what the doctor should say of it."""

    name: str
    kind: str
    path: Path
    checks: tuple[str, ...] = ()
    exact: bool = False
    level: str = "warning"


@dataclass
class Outcome:
    """Hold how one process ended; ``data`` is the JSON that it wrote, if any."""

    code: int
    final: str
    wall: float
    cpu: float
    megabytes: float
    tail: str = ""
    data: dict = field(default_factory=dict)


def scripts(kinds=("bug", "fix", "healthy"), only=()):
    """Return the scripts of the test bed, filtered by kind and parts of names."""
    expected = tomllib.loads((BED / "cases" / "expected.toml").read_text(encoding="utf-8"))
    found = []
    for name, case in sorted(expected.items()):
        facts = tuple(case["checks"]), case["exact"], case.get("level", "warning")
        found += [
            Script(name, kind, BED / "cases" / name / f"{kind}.py", *facts)
            for kind in ("bug", "fix")
        ]
    found += [Script(p.stem, "healthy", p) for p in sorted((BED / "healthy").glob("*.py"))]
    picked = [s for s in found if s.kind in kinds]
    return [s for s in picked if not only or any(part in s.name for part in only)]


def command(way, script, out):
    """Return the arguments to Python for one way to run a script."""
    if way == "plain":
        return [str(script.path)]
    if way == "doctor":
        return ["-m", "brickyard", "doctor", "run", "--json", str(out), str(script.path)]
    return [str(RECORDER), str(out), str(script.path)]


def _become(arguments):
    """Run Python's arguments in this (forked) process, as the interpreter would."""
    code = 0
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, os.path.dirname(arguments[0]))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _start(arguments, folder, warm):
    sys.stdout.flush()
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
    pid = os.fork()
    if pid:
        os.close(log)
        return pid
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    if warm:
        _become(arguments)
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, **ONE_THREAD})


def preload():
    """Import what scripts need, once, so that forked processes start at once."""
    import importlib

    os.environ.update(ONE_THREAD)
    for name in PRELOADED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def _outcome(status, usage, start, folder):
    lines = (folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
    final = next((line for line in reversed(lines) if line.startswith("final ")), "")
    report = folder / "out.json"
    data = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    return Outcome(
        os.waitstatus_to_exitcode(status), final, time.perf_counter() - start,
        usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, "\n".join(lines[-12:]), data,
    )  # fmt: skip


def run_all(tasks, jobs, warm, limit=900):
    """Yield ``(script, way, outcome)`` of every ``(script, way)``, as they end.

    Args:
        tasks: pairs of a script and one of plain, doctor, record.
        jobs: how many processes at once.
        warm: fork from this process, which has imported torch, instead of starting Python anew.
        limit: seconds after which a process is ended.
    """
    if warm:
        preload()
    waiting, running = list(tasks), {}
    with tempfile.TemporaryDirectory() as scratch:
        while waiting or running:
            while waiting and len(running) < jobs:
                script, way = waiting.pop(0)
                folder = Path(scratch) / f"{script.name}-{script.kind}-{way}"
                folder.mkdir()
                pid = _start(command(way, script, folder / "out.json"), folder, warm)
                running[pid] = script, way, time.perf_counter(), folder
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid in running:
                script, way, start, folder = running.pop(pid)
                yield script, way, _outcome(status, usage, start, folder)
                continue
            for pid, (_, _, start, _) in running.items():
                if time.perf_counter() - start > limit:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
