"""Kill training at many moments, resume it each time, and compare with a run never stopped.

Every run is a process of its own that gets SIGKILL in a step, in an evaluation, while it writes a
checkpoint or while it closes the run folder; `resume` then goes on in a new process, which is
killed in turn. At the end the weights, the optimizer's state, random numbers, best weights, metrics
and predictions must equal those of the uninterrupted run bit for bit. A kill is aimed: a seed draws
the phase and the operation in it, and what is counted is the phase in which the process died.

    python benchmarks/kill_resume.py [--kills 30] [--only plain fp16 ...] [--seed 0] [--budget 4ep]

Exit code 1 when anything differs. CPU, one thread.
"""

import argparse
import functools
import importlib
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))  # for the data set's target

import numpy as np
import torch
from torch.utils.data import Dataset

from brickyard.runs import METRICS, RunFolder
from brickyard.train import resume, train
from brickyard.train.checkpoint import Checkpoints, _Hashing
from brickyard.train.evaluate import Evaluator
from brickyard.train.loop import Loop
from brickyard.train.session import Session

PHASES = ("step", "evaluation", "checkpoint", "closing")
#: Up to how many operations of its phase after the start a kill is aimed.
REACH = {"step": 60, "evaluation": 14, "checkpoint": 90, "closing": 12}


class Noisy(Dataset):
    """Digits with noise that workers draw, so that resumed workers must draw the same."""

    def __init__(self, first, last):
        from sklearn.datasets import load_digits

        found = load_digits()
        self.x = (found.data[first:last] / 16).astype(np.float32)
        self.y = found.target[first:last]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = 0.05 * torch.randn(64) + 0.05 * random.random() + 0.05 * float(np.random.rand())
        return torch.from_numpy(self.x[index]) + noise, int(self.y[index])


def noisy():
    """Return training and validation digits, to be read by workers."""
    return Noisy(0, 600), Noisy(600, 800)


BASE = {
    "name": "kill",
    "data": {"name": "digits", "val": 0.3},
    "model": {"name": "mlp", "hidden": [24], "dropout": {"name": "dropout", "p": 0.1}},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.05},
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "schedule": [{"name": "warmup", "steps": "10%"}, "cosine"],
    "clipping": {"name": "clip_by_global_norm", "max_norm": 1.0},
    "metrics": ["accuracy"],
    "budget": "8ep",
    "evaluate_every": 9,
    "checkpoint_every": 7,
    "keep": {"last": 2, "best": 2, "every": 25},
    "log_every": 4,
    "eval_batch_size": 128,
    "threads": 1,
}
STOPPING = {"name": "early_stopping", "patience": 3, "min_delta": 0.02}
PLATEAU = [
    {"name": "warmup", "steps": 5},
    {"name": "reduce_on_plateau", "patience": 1, "factor": 0.5, "threshold": 0.01},
]
WORKERS = {"data": {"target": "kill_resume:noisy"}, "workers": 2, "batch_size": 32, "budget": "5ep"}
CONFIGS = {
    "plain": {},
    "accumulation": {"accumulate": 3, "budget": "14ep"},
    "fp16": {"precision": "fp16"},
    "ema": {"regularizers": [{"name": "ema", "decay": 0.9}]},
    "mixup": {"augmentation": ["mixup"]},
    "workers": WORKERS,
    "plateau": {"schedule": PLATEAU},
    "stopping": {"regularizers": [STOPPING], "budget": "40ep"},
    "together": {
        **WORKERS, "budget": "8ep", "accumulate": 2, "augmentation": ["mixup"],
        "schedule": PLATEAU, "regularizers": [{"name": "ema", "decay": 0.9}],
    },
}  # fmt: skip


class Board:
    """Share a few numbers with a process that may die at any moment."""

    def __init__(self):
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self.phase, self.arrived = "", False

    @property
    def phase(self):
        number = self._page[0]
        return PHASES[number - 1] if number else ""

    @phase.setter
    def phase(self, name):
        self._page[0] = PHASES.index(name) + 1 if name else 0

    @property
    def arrived(self):
        return bool(self._page[1])

    @arrived.setter
    def arrived(self, value):
        self._page[1] = int(value)


class Aim:
    """Note where training is, and tell the parent once it is where the kill is aimed.

    Args:
        board: what both processes see.
        phase: to be killed in.
        count: operations of that phase to let through.
        wait: stand still there, so that the kill hits exactly this operation.
    """

    def __init__(self, board, phase, count, wait):
        self.board, self.phase, self.left, self.wait = board, phase, count, wait

    def point(self):
        """Count an operation of the present phase."""
        if self.board.phase != self.phase:
            return
        self.left -= 1
        if self.left == 0:
            self.board.arrived = True
            if self.wait:
                time.sleep(60)

    def around(self, owner, name, phase):
        """Set the phase while a method runs."""
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def noted(*args, **options):
            before, self.board.phase = self.board.phase, phase
            self.point()
            try:
                return plain(*args, **options)
            finally:
                self.point()
                self.board.phase = before

        setattr(owner, name, noted)

    def at(self, owner, name):
        """Count every call of a function, in whatever phase."""
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def noted(*args, **options):
            self.point()
            result = plain(*args, **options)
            self.point()
            return result

        setattr(owner, name, noted)

    def install(self):
        """Wrap what training calls; in the process that is to be killed only."""
        self.around(Loop, "run", "step")
        self.around(Evaluator, "run", "evaluation")
        self.around(Checkpoints, "save", "checkpoint")
        self.around(Session, "_finish", "closing")
        for name in ("_gradients", "_clip", "_after_step"):
            self.at(Loop, name)
        self.at(torch.nn.Linear, "forward")
        for name in ("fsync", "replace", "unlink"):
            self.at(os, name)
        self.at(_Hashing, "write")


def warm():
    """Import here what every process would import anew; nothing is computed, so forks are safe."""
    ours = [f"brickyard.{name}" for name in ("report", "optim", "augment", "regularize")]
    for name in ("torch._dynamo", "torchmetrics", "sklearn.datasets", "jinja2", *ours):
        importlib.import_module(name)


def spawn(log, work):
    """Run ``work`` in a process of its own and return its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def finish(process, what, log):
    """Wait for a process; its failure is ours."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code:
        raise SystemExit(f"{what} ended with {code}:\n{log.read_text()}")


def advance(recipe, path):
    """Train, or go on where the last process was killed."""
    if (path / "recipe.yaml").exists():
        if RunFolder(path).summary().get("exit_reason", "") not in ("budget", "early_stop"):
            resume(path)
        return
    shutil.rmtree(path, ignore_errors=True)  # killed before there was a run
    train(recipe, out=path)


def kill_once(recipe, path, draw, board, log, phase):
    """Start or resume a run and kill it; return the phase that it died in, '' if it finished."""
    count, wait = draw.randint(1, REACH[phase]), draw.random() < 0.5
    board.phase, board.arrived = "", False

    def work():
        Aim(board, phase, count, wait).install()
        advance(recipe, path)

    process = spawn(log, work)
    while not board.arrived:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code:
                raise SystemExit(f"a run ended with {code}:\n{log.read_text()}")
            return ""
        time.sleep(0.0002)
    if not wait:
        time.sleep(draw.random() * 0.004)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return board.phase or "start"


def differences(one, other, where=""):
    """Yield the places where two checkpoints differ in a single bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        if not (same and one.numpy().tobytes() == other.numpy().tobytes()):
            yield where
    elif isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}, key=str):
            if key == "seconds":  # what the clock said
                continue
            if key not in one or key not in other:
                yield f"{where}.{key}"
            else:
                yield from differences(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            yield f"{where} (length)"
        for i, pair in enumerate(zip(one, other, strict=False)):
            yield from differences(*pair, f"{where}.{i}")
    elif repr(one) != repr(other):
        yield where


def compare(one, other):
    """Return where two run folders differ; metrics are compared as bytes."""
    found = []
    if (one / METRICS).read_bytes() != (other / METRICS).read_bytes():
        found.append(METRICS)
    a, b = Checkpoints(one / "checkpoints"), Checkpoints(other / "checkpoints")
    roles = {role: (e.step, e.value) for role, e in a.entries().items()}
    if roles != {role: (e.step, e.value) for role, e in b.entries().items()}:
        found.append("manifest")
    for role in roles.keys() & b.entries().keys():
        found += differences(a.load(role), b.load(role), role)
    first, second = RunFolder(one), RunFolder(other)
    for key in ("final", "best", "steps", "exit_reason", "skipped_steps"):
        found += differences(first.summary()[key], second.summary()[key], f"summary.{key}")
    x, y = first.evaluation(), second.evaluation()
    found += [f"evaluation.{k}" for k in x if x[k].tobytes() != y[k].tobytes()]
    return found


def torture(name, kills, seed, folder, budget=None):
    """Kill one configuration many times; return its row of the table and what differed."""
    recipe = {**BASE, **CONFIGS[name]}
    recipe["budget"] = budget or recipe["budget"]
    log, whole = folder / f"{name}.log", folder / f"{name}-whole"
    start = time.perf_counter()
    finish(spawn(log, lambda: train(recipe, out=whole)), "the uninterrupted run", log)
    draw, board = random.Random(f"{seed} {name}"), Board()
    died, runs, bad = Counter(), 0, []
    while sum(died.values()) < kills:
        path, runs = folder / f"{name}-{runs}", runs + 1
        while sum(died.values()) < kills:
            rare = min(PHASES, key=lambda p: (died[p], draw.random()))
            phase = kill_once(recipe, path, draw, board, log, rare)
            if not phase:
                break
            died[phase] += 1
        finish(spawn(log, lambda path=path: advance(recipe, path)), "a resumed run", log)
        bad += [f"{name}, run {runs}: {place}" for place in compare(whole, path)]
        shutil.rmtree(path)
    shutil.rmtree(whole)
    hit = "  ".join(f"{died[phase]:10d}" for phase in PHASES)
    missed = [phase for phase in PHASES if kills >= 2 * len(PHASES) and not died[phase]]
    bad += [f"{name}: no kill hit the phase {phase}" for phase in missed]
    result = "differs" if bad else "identical"
    seconds = time.perf_counter() - start
    return f"{name:14}{sum(died.values()):6d}  {hit}  {runs:5d}  {seconds:6.1f} s  {result}", bad


def main():
    """Print a row for each configuration; exit with 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="for each configuration")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CONFIGS,
        default=list(CONFIGS),
        metavar="NAME",
        help=f"some of: {', '.join(CONFIGS)}",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", help="of every run, instead of its configuration's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warm()
    bad = []
    print(
        f"{'':14}{'kills':>6}  {'  '.join(f'{phase:>10}' for phase in PHASES)}   runs", flush=True
    )
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            row, found = torture(name, options.kills, options.seed, Path(folder), options.budget)
        print(row, flush=True)
        bad += found
    for line in bad:
        print(f"DIFFERENT {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
