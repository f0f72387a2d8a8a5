"""Commands that train: train, resume, report, and recipe check and show."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from brickyard.cli.frame import argument, command
from brickyard.errors import UserError

RECIPE = argument("recipe", metavar="RECIPE", help="a YAML file, such as recipes/digits-mlp.yaml")
OVERRIDES = argument(
    "overrides", metavar="PATH=VALUE", nargs="*", default=[],
    help="replace a value of the recipe: optimizer.lr=1e-3 budget=5ep schedule.0.steps=3%%",
)  # fmt: skip


def prepare() -> None:
    """Settle what must be settled before torch is imported.

    GNU OpenMP's threads spin for milliseconds when they have nothing to do, which on a machine
    that others use too takes the core from the thread that has; a short spin costs nothing.
    And `target: my_module:thing` finds modules of the working directory, as with python -m.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


@command(
    "train", RECIPE, OVERRIDES,
    argument("--out", metavar="DIR", help="the run folder; runs/NAME/TIME when left out"),
    argument("--profile", type=int, default=0, metavar="N",
             help="record N steps: a Chrome trace in the run folder, and what took the time"),
)  # fmt: skip
def train(recipe: str, overrides: list[str], out: str | None, profile: int) -> int:
    """Train a recipe into a run folder and print the path of its report."""
    prepare()
    from brickyard.train import load, train

    return _close(train(load(recipe, overrides), out=out, profile=profile))


@command("resume", argument("run", metavar="RUN", help="the folder of a run that was stopped"))
def resume(run: str) -> int:
    """Go on with a run that was stopped or killed, exactly where it was."""
    prepare()
    from brickyard.train import resume

    return _close(resume(run))


def _close(result: Any) -> int:
    if "best" not in result.summary:  # one of several processes; the first one tells
        return 130 if result.summary["exit_reason"] == "interrupted" else 0
    summary, best = result.summary, result.summary["best"]
    if best:
        shown = "  ".join(f"{name} {value:.4f}" for name, value in best["val"].items())
        print(f"best validation (epoch {best['epoch']:.4g}): {shown}")
    if summary["exit_reason"] == "interrupted":
        print(f"stopped at step {summary['steps']}; go on with: brickyard resume {result.run.path}")
    if told := _verdict(result.run.path):
        print(told)
    print(result.run.report)
    return 130 if summary["exit_reason"] == "interrupted" else 0


def _verdict(run: Path) -> str:
    """Return what the page says first: the verdict, and the cheapest thing to try next."""
    from brickyard.report.facts import Facts
    from brickyard.report.verdict import judge

    try:
        said = judge(Facts.read(run))
    except Exception:  # words must never cost a finished run; the page names the fault
        return ""
    then = f"\nnext: {said.advice}" if said.advice else ""
    return f"{said.label.lower()}: {said.sentence}{then}"


@command(
    "report",
    argument("runs", metavar="RUN", nargs="+", help="run folders; several are compared on a page"),
    argument("--out", metavar="FILE", help="where to write the comparison"),
)  # fmt: skip
def report(runs: list[str], out: str | None) -> int:
    """Write the page of a run anew, or one page that compares several runs."""
    from brickyard.report import write_comparison, write_report

    if len(runs) == 1:
        if out is not None:
            raise UserError("--out is for comparisons: a run's page is RUN/report.html")
        print(write_report(runs[0]))
    else:
        print(write_comparison(runs, None if out is None else Path(out)))
    return 0


@command("recipe check", RECIPE, OVERRIDES)
def check(recipe: str, overrides: list[str]) -> int:
    """Say whether a recipe is right; every mistake with its place, and nothing is trained."""
    prepare()
    from brickyard.train import load
    from brickyard.train.fit import in_words
    from brickyard.train.setup import build_setup

    resolved = load(recipe, overrides)
    setup = build_setup(resolved)
    for found in setup.findings:
        print(f"warning: {in_words(found)}")
    count = sum(p.numel() for p in setup.parts.model.parameters())
    print(
        f"{recipe} is right: {resolved.recipe.model.label} with {count:,} parameters on "
        f"{setup.data.name} ({len(setup.data.train):,} training, {len(setup.data.val):,} "
        f"validation samples), {setup.parts.total:,} steps"
    )
    return 0


@command("recipe show", RECIPE, OVERRIDES)
def show(recipe: str, overrides: list[str]) -> int:
    """Print a recipe with all defaults filled in and where each value comes from."""
    prepare()
    from rich.console import Console
    from rich.table import Table

    from brickyard.train import load

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("field", "value", "from"):
        table.add_column(heading, overflow="fold")
    for path, value, origin in load(recipe, overrides).rows():
        style = "dim" if origin.startswith("default") else ""
        shown = "null" if value is None else str(value)
        table.add_row(path, shown or "''", origin, style=style)
    Console(highlight=False).print(table)
    return 0


@command(
    "lr-range", RECIPE, OVERRIDES,
    argument("--low", type=float, default=1e-7, metavar="RATE", help="first rate (1e-7)"),
    argument("--high", type=float, default=10.0, metavar="RATE", help="last rate (10)"),
    argument("--steps", type=int, default=100, metavar="N", help="how many rates (100)"),
    argument("--linear", action="store_true", help="equal differences, not equal factors"),
    argument("--plot", nargs="?", const="", metavar="FILE",
             help="loss by rate: here, or as FILE.svg or FILE.png"),
    argument("--json", action="store_true", help="print JSON instead"),
)  # fmt: skip
def lr_range(recipe: str, overrides: list[str], low: float, high: float, steps: int,
             linear: bool, plot: str | None, json: bool) -> int:  # fmt: skip
    """Train a recipe for some steps with growing rates, and say which rates look good."""
    if json and plot == "":
        raise UserError("--json prints no picture; give --plot a file")
    if plot and Path(plot).suffix.lower() not in (".svg", ".png"):
        raise UserError(f"a picture is a file .svg or .png; got {plot!r}")
    prepare()
    from brickyard.train import load
    from brickyard.train.lr_range import lr_range_of

    try:
        found = lr_range_of(load(recipe, overrides), low, high, steps,
                            "linear" if linear else "exponential")  # fmt: skip
    except ValueError as error:
        raise UserError(str(error)) from error
    file = found.plot(plot) if plot else None
    if json:
        from json import dumps

        print(dumps(found.to_dict(), indent=1))
        return 0
    if plot == "":
        from brickyard.cli.catalog import show_figure

        show_figure(found.figure())
    print(found.table())
    if file is not None:
        print(file)
    return 0
