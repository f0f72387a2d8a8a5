"""The command that watches a training script."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from brickyard.cli.frame import argument, command
from brickyard.cli.train import OVERRIDES, RECIPE, prepare
from brickyard.errors import UserError, near

if TYPE_CHECKING:
    from brickyard.doctor.checks import Check


@command(
    "doctor run",
    argument("--json", metavar="FILE", help="write the report as JSON, too"),
    argument("--html", metavar="FILE", help="write the report as one self-contained page, too"),
    argument("--steps", type=int, metavar="N",
             help="watch the first N optimizer steps and report then; the script runs on to its "
             "end, unwatched"),
    argument("--strict", action="store_true",
             help="exit code 3 when a finding of severity error is reported"),
    argument("--ignore", action="append", default=[], metavar="CHECK",
             help="leave out what this check finds; may be given again"),
    argument("-m", dest="module", action="store_true",
             help="what follows is the name of a module, as for python -m"),
    argument("script", metavar="train.py", help="the script, run as itself"),
    argument("rest", nargs=argparse.REMAINDER, metavar="ARGS", help="its own arguments"),
)  # fmt: skip
def doctor_run(
    json: str | None, html: str | None, steps: int | None, strict: bool, ignore: Sequence[str],
    module: bool, script: str, rest: Sequence[str],
) -> int:  # fmt: skip
    """Watch a training script, unchanged, and report what is wrong with it and where."""
    if steps is not None and steps < 1:
        raise UserError(f"--steps must be 1 or more; got {steps}")
    _there(script, module)
    for name, path in (("--json", json), ("--html", html)):
        folder = os.path.dirname(os.path.abspath(path)) if path else ""
        if folder and not os.path.isdir(folder):
            raise UserError(f"{name} {path}: the folder {folder} does not exist; make it first")
    if ignore:
        known = _checks()
        for name in ignore:
            if name not in known:
                raise UserError(f"--ignore: there is no check {name!r}{near(name, known)} All: "
                                "brickyard doctor checks")  # fmt: skip
    from brickyard.doctor.run import run_script

    sys.stdout.flush()
    return run_script(script, list(rest), json=json, html=html, steps=steps, strict=strict,
                      module=module, ignore=ignore)  # fmt: skip


def _there(script: str, module: bool) -> None:
    """Tell at once when there is nothing to run."""
    if module:
        top = script.partition(".")[0]
        near = (os.path.exists(os.path.join(os.getcwd(), top + end)) for end in ("", ".py"))
        if not top.isidentifier() or (find_spec(top) is None and not any(near)):
            raise UserError(f"there is no module {script!r} that can be run, as for python -m")
    elif os.path.isdir(script):
        raise UserError(f"{script!r} is a folder; give the path of a Python file")
    elif not os.path.isfile(script):
        dotted = script.replace(".", "").isidentifier() and not script.endswith(".py")
        other = f", or -m {script} for a module" if dotted else ""
        raise UserError(f"there is no script {script!r}; give the path of a Python file{other}")


def _checks() -> dict[str, Check]:
    from brickyard.doctor.checks import CHECKS

    return dict(sorted(CHECKS.items(), key=lambda one: one[1].number))


@command("doctor checks", argument("name", nargs="?", help="of one check; a list if left out"))
def doctor_checks(name: str | None) -> None:
    """List what the doctor looks for, or show one check: signal, reason, cure, exceptions."""
    from brickyard.doctor.terminal import wrapped

    known = _checks()
    if name is None:
        for one in known.values():
            print(*wrapped(f"{one.severity:8}{one.name}: {one.sees}", "", " " * 8), sep="\n")
        return
    if name not in known:
        raise UserError(f"there is no check {name!r}{near(name, known)}")
    one = known[name]
    print(f"{one.name} ({one.severity}, number {one.number})")
    for title, said in (
        ("sees", one.sees), ("why", one.why), ("try", one.try_), ("allows", one.allows),
        ("source", one.source),
    ):  # fmt: skip
        print(*wrapped(said, f"  {title:8}"), sep="\n")


@command(
    "doctor preflight", RECIPE, OVERRIDES,
    argument("--samples", type=int, default=32, metavar="N", help="of the one batch (32)"),
    argument("--steps", type=int, default=200, metavar="N", help="of training on it (200)"),
    argument("--seconds", type=float, default=20.0, metavar="S",
             help="that one training on it may take at the most (20)"),
    argument("--json", action="store_true", help="print JSON instead"),
)  # fmt: skip
def doctor_preflight(
    recipe: str, overrides: list[str], samples: int, steps: int, seconds: float, json: bool
) -> int:
    """Ask a recipe's model, loss and first batch whether training can work, before it starts."""
    if samples < 2 or steps < 1:
        raise UserError(f"--samples must be 2 or more and --steps 1; got {samples} and {steps}")
    if not seconds > 0:
        raise UserError(f"--seconds must be positive; got {seconds:g}")
    prepare()
    from brickyard.train import load
    from brickyard.train.looking import ladder

    found = ladder(load(recipe, overrides), samples, steps, seconds)
    if json:
        from json import dumps

        print(dumps(found.to_dict(), indent=1))
    else:
        print(found)
    return 0 if found.holds else 1
