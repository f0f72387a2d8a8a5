"""The command that times optimizers on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from brickyard.cli.frame import argument, command
from brickyard.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from brickyard.optim.bench import Row

_SAYS = (
    ("step", "median of the rounds"),
    ("AdamW's", "median of its time over native AdamW's in the same round"),
    ("first", "the first step of a process, with kernels on disk; 'nothing cached' builds them"),
    ("state", "bytes per parameter that the optimizer keeps"),
    ("moved", "bytes per parameter that a step reads and writes, and how fast; other backends "
     "than native make more passes, which are not counted"),
)  # fmt: skip


@command(
    "bench optim",
    argument("--shapes", default="resnet50", metavar="NAME",
             help="resnet50 (25.6 M parameters; the default), gpt2 (124 M; needs 6 GB), mlp (10 "
             "thousand), or a file with one shape per line, such as 64x3x7x7"),
    argument("--optimizer", action="append", nargs="+", default=[], metavar="KEY",
             help="which to time, such as adamw lion; all that take no closure's losses if left "
             "out"),
    argument("--backend", action="append", nargs="+", default=[], metavar="NAME",
             help="native, foreach (both are the default), eager, compiled (builds for minutes), "
             "or torch: torch's own class, fused where it can be"),
    argument("--rounds", type=int, default=9, metavar="N",
             help="counted rounds (9; as few as 3 where steps take seconds); in each, all backends "
             "step once, and AdamW beside them"),
    argument("--json", action="store_true", help="print JSON instead, times in seconds"),
)  # fmt: skip
def bench_optim(shapes: str, optimizer: Sequence[Sequence[str]], backend: Sequence[Sequence[str]],
                rounds: int, json: bool) -> None:  # fmt: skip
    """Time optimizers on this machine: a step, the first one, state and bytes moved."""
    if rounds < 1:
        raise UserError(f"--rounds must be 1 or more; got {rounds}")
    # Before torch is imported: idle threads that spin take the cores from those that work.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from brickyard.optim import bench

    chosen = bench.check_backends(list(chain(*backend)))
    keys = bench.keys_of(list(chain(*optimizer)))
    sizes = bench.shapes_of(shapes)
    rows = list(bench.measure(keys, chosen, sizes, rounds, _tell))
    _tell("")
    if json:
        print(bench.as_json(rows, shapes, sizes, rounds))
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(_page(rows, _head(bench.machine(), shapes, sizes, rounds), console.width))


def _tell(text: str) -> None:
    """Show what is going on, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _head(machine: Mapping[str, Any], name: str, shapes: Sequence[tuple[int, ...]],
          rounds: int) -> list[str]:  # fmt: skip
    from math import prod

    total, threads = sum(map(prod, shapes)), machine["threads"]
    return [
        f"{machine['processor']}, {threads} thread{'s' * (threads > 1)}, {machine['system']}",
        f"brickyard {machine['brickyard']}, torch {machine['torch']}, Python {machine['python']}, "
        f"{machine['compiler']}",
        f"{os.path.basename(name)}: {len(shapes)} tensors, {total:,} parameters, "
        f"float32; {rounds} rounds",
    ]


def _page(rows: Sequence[Row], head: Sequence[str], width: int) -> RenderableType:
    """Return the table under its heading, with what the columns mean."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Optimizer", no_wrap=True, vertical="bottom")
    table.add_column("Backend", no_wrap=True, vertical="bottom")
    wide = width >= 110
    for name in ("Step", "AdamW's" if not wide else "Times AdamW's", "First",
                 "nothing cached" if not wide else "First, nothing cached",
                 "State B/param", "Moved B/param", "GB/s"):  # fmt: skip
        table.add_column(name, justify="right", overflow="fold", vertical="bottom")
    before = ""
    for row in rows:
        same, before = row.optimizer == before, row.optimizer
        table.add_row(
            Text(row.optimizer, "" if same else "bold"), row.backend + ("*" if row.why else ""),
            _time(row.step), f"{row.ratio:.2f}", _time(row.first),
            _time(row.cold), f"{row.state:.3g}", _figure(row.moved, ".3g"),
            _figure(None if row.rate is None else row.rate / 1e9, ".1f"),
        )  # fmt: skip
    notes = [Text(f"* {why}", "dim") for why in dict.fromkeys(r.why for r in rows if r.why)]
    says = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0), style="dim")
    for name, text in _SAYS:
        says.add_row(name, text)
    return Group(*map(Text, head), Text(), table, *notes, Text(), says)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} us"
    return (
        f"{seconds * 1e3:.{1 if seconds < 0.1 else 0}f} ms" if seconds < 1 else f"{seconds:.2f} s"
    )


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
