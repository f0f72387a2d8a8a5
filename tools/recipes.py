"""Train every recipe and compare what it reaches with what tools/expected.yaml states.

    python tools/recipes.py                 # all of them, two at a time with one thread each
    python tools/recipes.py casp-mlp        # some
    python tools/recipes.py --jobs 1        # one after the other

Fails when a stated metric is missed, when a recipe states none, or when one cannot be run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
EXPECTED = ROOT / "tools" / "expected.yaml"


def stated() -> dict[str, dict[str, float]]:
    """Return the metrics that recipes must reach, by recipe."""
    return yaml.safe_load(EXPECTED.read_text(encoding="utf-8"))


def holds(value: float, bounds: dict[str, float]) -> bool:
    """Say whether a value keeps its bounds; NaN keeps none."""
    return bounds.get("at_least", value) <= value <= bounds.get("at_most", value)


def train(name: str, out: Path) -> dict:
    """Train a recipe in a process of its own; return its summary and what it took."""
    command = [sys.executable, "-m", "brickyard", "train", str(RECIPES / f"{name}.yaml"),
               "--out", str(out / name)]  # fmt: skip
    log = out / f"{name}.log"
    start = time.time()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    taken = {"cpu": used.ru_utime + used.ru_stime, "wall": time.time() - start}
    if process.returncode:
        tail = log.read_text(encoding="utf-8").strip().splitlines()[-3:]
        return {**taken, "error": " / ".join(tail) or f"exit code {process.returncode}"}
    return {**taken, "summary": json.loads((out / name / "summary.json").read_text())}


def judge(name: str, done: dict, wanted: dict) -> tuple[list[str], bool]:
    """Return the rows of a recipe in the table, and whether it keeps what it states."""
    took = f"{done['cpu']:7.0f} {done['wall']:7.0f}"
    if "error" in done:
        return [f"{name:22} {done['error'][:200]}  {took}"], False
    found = done["summary"].get("best", {}).get("val", {})
    rows, fine = [], bool(wanted)
    for metric, bounds in wanted.items():
        value = found.get(metric, float("nan"))
        good = holds(value, bounds)
        fine &= good
        words = " ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in bounds.items())
        mark = "" if good else "MISSED"
        rows.append(f"{name:22} {metric:24} {words:16} {value:9.4f}  {took}  {mark}")
        name, took = "", " " * 15
    return rows or [f"{name:22} states no metric in tools/expected.yaml"], fine


def main() -> int:
    """Run what was asked for, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="recipes without .yaml; all when left out")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time, a thread each")
    parser.add_argument("--out", type=Path, help="where runs are kept; thrown away when left out")
    asked = parser.parse_args()
    wanted = stated()
    known = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    if unknown := sorted({*asked.names, *wanted} - set(known)):
        parser.error(f"no recipe is called {', '.join(unknown)}; there is {', '.join(known)}")
    if asked.jobs > 1:
        os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    start, fine = time.time(), True
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(asked.jobs) as pool:
        out = asked.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        names = asked.names or known
        runs = {name: pool.submit(train, name, out) for name in names}
        print(
            f"{'recipe':22} {'metric':24} {'stated':16} {'reached':>9}  {'CPU s':>7} {'wall s':>7}"
        )
        for name, run in runs.items():
            rows, good = judge(name, run.result(), wanted.get(name, {}))
            fine &= good
            print("\n".join(rows), flush=True)
    print(f"{len(names)} recipes in {(time.time() - start) / 60:.1f} minutes")
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
