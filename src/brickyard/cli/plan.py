"""The command that says whether a recipe fits into memory."""

from __future__ import annotations

from brickyard.cli.frame import argument, command
from brickyard.cli.train import OVERRIDES, RECIPE, prepare


@command(
    "plan", RECIPE, OVERRIDES,
    argument("--gpus", type=int, default=1, metavar="N", help="how many devices (1)"),
    argument("--memory", default="80GB", metavar="SIZE", help="of each device (80GB)"),
    argument("--json", action="store_true", help="print JSON instead, in bytes"),
)  # fmt: skip
def plan(recipe: str, overrides: list[str], gpus: int, memory: str, json: bool) -> int:
    """Work out what memory a recipe needs on each device, and what fits."""
    prepare()
    from brickyard.train import load
    from brickyard.train.planning import parse_bytes, table
    from brickyard.train.planning import plan as work_out

    size = parse_bytes(memory)
    found = work_out(load(recipe, overrides), gpus, size)
    if json:
        from dataclasses import asdict
        from json import dumps

        totals = [row.total for row in found.rows]
        print(dumps({**asdict(found), "totals": totals, "advice": found.advice()}, indent=1))
    else:
        print(table(found))
    return 0 if any(row.total <= size for row in found.rows) else 1
