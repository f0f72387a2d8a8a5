"""Compare what ``brickyard plan`` predicts with what a process really takes at its peak.

Each case is predicted in one process and trained for some steps in another, whose resident memory
is read from the system: its peak, less what it held before the model was built. Memory that is let
go of goes back to the system at once (MALLOC_MMAP_THRESHOLD_=65536): otherwise glibc keeps blocks
for later, and a peak tells of its habits too. With --keep, it may.

    python benchmarks/plan_memory.py [--keep]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

RECIPES = Path(__file__).parents[1] / "recipes"
CASES = {
    "wide mlp, AdamW": ("digits-mlp.yaml", ["model.hidden=3000", "model.depth=4"]),
    "wide mlp, SGD": (
        "digits-mlp.yaml", ["model.hidden=3000", "model.depth=4", "optimizer.name=sgd"],
    ),
    "wide mlp, batch 512": (
        "digits-mlp.yaml", ["model.hidden=2000", "model.depth=4", "batch_size=512"],
    ),
    "cnn, batch 512": ("mnist5k-cnn.yaml", ["batch_size=512", "model.width=32"]),
    "cnn, batch 1024": ("mnist5k-cnn.yaml", ["batch_size=1024"]),
}  # fmt: skip


def resident(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def recipe_of(case: str):
    from brickyard.train import load

    name, overrides = CASES[case]
    return load(RECIPES / name, overrides)


def predict(case: str) -> float:
    from brickyard.train.planning import plan

    return plan(recipe_of(case), 1, 1 << 40).rows[0].total


def measure(case: str) -> float:
    from brickyard.train.loop import Loop, State
    from brickyard.train.recipe import resolve
    from brickyard.train.setup import build_data, build_setup

    resolved = recipe_of(case)
    # A small run first: what libraries allocate once is no part of the plan.
    tiny = resolve({**resolved.recipe.to_dict(), "batch_size": 8})
    model = {**tiny.recipe.model.to_dict()}
    model |= {"hidden": 8} if "hidden" in model else {"width": 8}
    run(build_setup(resolve({**tiny.recipe.to_dict(), "model": model})), Loop, State)
    build_data(resolved)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = resident("VmRSS")
    run(build_setup(replace(resolved)), Loop, State)
    return resident("VmHWM") - before


def run(setup, loop, state) -> None:
    setup.parts.evaluator, setup.parts.total = None, 4
    loop(setup.parts, state=state()).run()


def child(what: str, case: str) -> float:
    environment = dict(os.environ)
    if "--keep" not in sys.argv:
        environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
    done = subprocess.run(
        [sys.executable, __file__, what, case], capture_output=True, text=True, check=True,
        env=environment,
    )  # fmt: skip
    return float(done.stdout.splitlines()[-1])


def main() -> int:
    if len(sys.argv) == 3:
        print({"predict": predict, "measure": measure}[sys.argv[1]](sys.argv[2]))
        return 0
    worst, rows = 0.0, {}
    for case in CASES:
        predicted, measured = child("predict", case), child("measure", case)
        ratio = predicted / measured
        worst = max(worst, abs(ratio - 1))
        rows[case] = ratio
        print(f"{case:22} predicted {predicted / 2**20:7.1f} MB  measured "
              f"{measured / 2**20:7.1f} MB  ratio {ratio:.3f}")  # fmt: skip
    print(json.dumps({"worst": round(worst, 4), "wanted": 0.15}))
    return 0 if worst <= 0.15 else 1


if __name__ == "__main__":
    sys.exit(main())
