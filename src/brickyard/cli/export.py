"""The command that exports a run's best weights."""

from __future__ import annotations

import sys
from pathlib import Path

from brickyard.cli.frame import argument, command


@command(
    "export",
    argument("run", metavar="RUN", help="the folder of a run"),
    argument("--out", metavar="DIR", help="the folder to make; RUN/export when left out"),
    argument("--format", choices=("all", "safetensors", "pt2"), default="all",
             help="safetensors: the weights, which say what model they are of; pt2: a program of "
             "torch.export that needs torch alone; all (the default): both"),
)  # fmt: skip
def export(run: str, out: str | None, format: str) -> int:
    """Write a run's best weights with a model card, read them back and compare."""
    here = str(Path.cwd())
    if here not in sys.path:  # for `target: my_module:thing`, as in training
        sys.path.insert(0, here)
    from brickyard.train.export import CARD, FORMATS, export_run

    made = export_run(run, out, FORMATS if format == "all" else (format,))
    for text in made.warnings:
        print(f"warning: {text}", file=sys.stderr)
    for name in made.files:
        size = (made.folder / name).stat().st_size
        print(f"{made.folder / name}  {size:,} bytes")
    for text in made.checks:
        print(f"checked {text.replace('`', '')}")
    print(made.folder / CARD)
    return 0
