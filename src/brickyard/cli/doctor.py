"""The command that watches a training script."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from brickyard.cli.frame import argument, command
from brickyard.errors import UserError


@command(
    "doctor run",
    argument("--json", metavar="FILE", help="write the report as JSON, too"),
    argument("--html", metavar="FILE", help="write the report as one self-contained page, too"),
    argument("--steps", type=int, metavar="N",
             help="watch the first N optimizer steps and report then; the script runs on to its "
             "end, unwatched"),
    argument("--strict", action="store_true",
             help="exit code 3 when a finding of severity error is reported"),
    argument("script", metavar="train.py", help="the script, run as itself"),
    argument("rest", nargs=argparse.REMAINDER, metavar="ARGS", help="its own arguments"),
)  # fmt: skip
def doctor_run(json: str | None, html: str | None, steps: int | None, strict: bool,
               script: str, rest: Sequence[str]) -> int:  # fmt: skip
    """Watch a training script, unchanged, and report what is wrong with it and where."""
    if steps is not None and steps < 1:
        raise UserError(f"--steps must be 1 or more; got {steps}")
    if not os.path.isfile(script):
        raise UserError(f"there is no script {script!r}; give the path of a Python file")
    for name, path in (("--json", json), ("--html", html)):
        folder = os.path.dirname(os.path.abspath(path)) if path else ""
        if folder and not os.path.isdir(folder):
            raise UserError(f"{name} {path}: the folder {folder} does not exist; make it first")
    from brickyard.doctor.run import run_script

    sys.stdout.flush()
    return run_script(script, list(rest), json=json, html=html, steps=steps, strict=strict)
