"""Time optimizers on this machine: each beside AdamW, turn by turn, on tensors of given shapes."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from brickyard import compiler
from brickyard.catalog import shelf
from brickyard.errors import UserError, near
from brickyard.optim import backends, engine
from brickyard.optim.backends import native
from brickyard.optim.explain import traffic
from brickyard.version import __version__

Shapes = list[tuple[int, ...]]
#: Backends that can be asked for; ``torch`` is torch's own class, fused where it can be.
BACKENDS = ("native", "foreach", "compiled", "eager", "torch")
#: Seconds after which an optimizer's rounds end, if there were this many.
PATIENCE, LEAST = 15.0, 3
#: What a step of these means depends on a closure, so that there is nothing to compare.
_CLOSURES = ("lbfgs", "cma_es")


def resnet50() -> Shapes:
    """Return the shapes of a ResNet-50's 161 tensors: 25.6 M parameters."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    before = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            shapes += [(width, before, 1, 1), (width,), (width,), (width, width, 3, 3), (width,),
                       (width,), (4 * width, width, 1, 1), (4 * width,), (4 * width,)]  # fmt: skip
            if block == 0:
                shapes += [(4 * width, before, 1, 1), (4 * width,), (4 * width,)]
            before = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def gpt2() -> Shapes:
    """Return the shapes of a small GPT-2's 148 tensors: 124 M parameters."""
    block: Shapes = [(768,), (768,), (768, 2304), (2304,), (768, 768), (768,), (768,), (768,),
                     (768, 3072), (3072,), (3072, 768), (768,)]  # fmt: skip
    return [(50257, 768), (1024, 768), *block * 12, (768,), (768,)]


def mlp() -> Shapes:
    """Return the shapes of a small MLP's 6 tensors: 10 thousand parameters."""
    return [(64, 100), (64,), (48, 64), (48,), (10, 48), (10,)]


SHAPES: dict[str, Callable[[], Shapes]] = {"resnet50": resnet50, "gpt2": gpt2, "mlp": mlp}


def shapes_of(name: str) -> Shapes:
    """Return the shapes that a name or a file stands for.

    Args:
        name: a key of ``SHAPES``, or a file with one shape per line, such as ``64x3x7x7``.

    Raises:
        UserError: no such name or file, or a line that is no shape.
    """
    if name in SHAPES:
        return SHAPES[name]()
    path = Path(name)
    if not path.is_file():
        raise UserError(f"--shapes takes a file or one of {', '.join(SHAPES)}; no file is called "
                        f"{name!r}{near(name, SHAPES)}")  # fmt: skip
    found: Shapes = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {name}: {error}") from None
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", "x").replace(" ", "x").strip("x()[]").split("x")
        words = [w for w in words if w]
        if words and not all(w.isdecimal() and int(w) > 0 for w in words):
            raise UserError(f"{name}, line {number}: a shape is whole numbers above 0 with x "
                            f"between, such as 64x3x7x7; got {line.strip()!r}")  # fmt: skip
        if words:
            found.append(tuple(map(int, words)))
    if not found:
        raise UserError(f"{name} holds no shapes: write one per line, such as 64x3x7x7")
    return found


def parameters(shapes: Shapes) -> list[torch.nn.Parameter]:
    """Return parameters of these shapes, with gradients, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator) * 0.02) for s in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator) * 0.01
    return params


def keys_of(given: Sequence[str]) -> list[str]:
    """Return the keys of the optimizers to time: all, or those given.

    Args:
        given: keys, aliases or class names of optimizers.

    Raises:
        UserError: an unknown optimizer, or one whose step needs a closure's losses.
    """
    cards = {card.key: card for card in shelf("optimizer")}
    if not given:
        return [key for key in cards if key not in _CLOSURES]
    names = {n.lower(): k for k, c in cards.items() for n in (k, c.name, *c.aliases)}
    found = []
    for name in given:
        key = names.get(name.lower())
        if key is None:
            raise UserError(f"no optimizer is called {name!r}{near(name, names)}; all of them: "
                            "brickyard catalog optimizers")  # fmt: skip
        if key in _CLOSURES:
            raise UserError(f"{key} evaluates the loss several times per step, so that its own "
                            "work cannot be timed apart: choose others")  # fmt: skip
        found.append(key)
    return list(dict.fromkeys(found))


class Runner:
    """Take steps of one optimizer on parameters of its own.

    Args:
        key: of the optimizer.
        backend: one of ``BACKENDS``.
        shapes: of the parameters.

    Raises:
        LookupError: torch has no such optimizer for these shapes.
    """

    def __init__(self, key: str, backend: str, shapes: Shapes) -> None:
        self.key, self.backend, self.params = key, backend, parameters(shapes)
        made = _torchs(key, self.params) if backend == "torch" else _ours(key, backend, self.params)
        self.optimizer = made
        self.repeats = 1
        #: Steps after which the pattern of what is done repeats.
        self.period = int(getattr(made, "k", 0) or made.param_groups[0].get("k", 1) or 1)
        closure = key == "nag" and backend != "torch"
        self.arguments: tuple[Any, ...] = (lambda: None,) if closure else ()

    def step(self) -> float:
        """Return the seconds of a step: the mean over its period."""
        count = self.period * self.repeats
        start = time.perf_counter()
        for _ in range(count):
            self.optimizer.step(*self.arguments)
        return (time.perf_counter() - start) / count

    def settle(self) -> None:
        """Repeat short steps within a measurement, so that the clock's grain does not matter."""
        self.step()
        self.repeats = max(1, min(200, int(5e-3 / self.step() / self.period)))

    def first(self) -> float:
        """Return the seconds of one step."""
        start = time.perf_counter()
        self.optimizer.step(*self.arguments)
        return time.perf_counter() - start

    @property
    def state(self) -> float:
        """Return the bytes of state per parameter."""
        kept = [x for row in self.optimizer.state.values() for k, x in row.items() if k != "step"]
        kept += list(getattr(self.optimizer, "slow", {}).values())
        held = sum(x.numel() * x.element_size() for x in kept
                   if isinstance(x, torch.Tensor) and x.ndim)  # fmt: skip
        return held / sum(p.numel() for p in self.params)

    def moved(self) -> float | None:
        """Return the bytes per parameter that a step reads and writes, its period's mean.

        None where the backend is not native on all tensors: others make more passes.
        """
        inner = getattr(self.optimizer, "inner", self.optimizer)
        found = []
        for _ in range(self.period):
            self.optimizer.step(*self.arguments)
            made = getattr(inner, "_engine", None)
            if made is None or any(b.run.name != "native" for b in made.buckets):
                return None
            found.append(traffic(made))
        whole, size = statistics.mean(found), sum(p.numel() for p in self.params)
        if inner is not self.optimizer:  # the slow weights: once per period both read and written
            whole += 4 * 4 * size / self.period
        if self.key == "nag":  # weights kept, moved ahead and put back around the closure
            whole += 7 * 4 * size
        return whole / size


def _ours(key: str, backend: str, params: list[torch.nn.Parameter]) -> Any:
    kinds = {card.key: card.load() for card in shelf("optimizer")}
    if key == "lookahead":
        return kinds["lookahead"](kinds["adamw"](params, backend=backend))
    made: Any = kinds[key](params, backend=backend)
    if key.startswith("sophia"):
        for group in made.param_groups:  # the estimate is the model's work: one for all steps
            group["update_interval"] = 1 << 60
        made.record_hessian([torch.ones_like(p) for p in params])
    return made


def _torchs(key: str, params: list[torch.nn.Parameter]) -> Any:
    name = next(card.name for card in shelf("optimizer") if card.key == key)
    kind = getattr(torch.optim, name, None)
    if kind is None:
        raise LookupError(f"torch has no {name}")
    with suppress(TypeError, RuntimeError):  # no fused form, or none on this device
        return kind(params, fused=True)
    try:
        return kind(params)
    except ValueError as error:  # torch's Muon takes matrices only
        raise LookupError(str(error)) from None


@dataclass(frozen=True)
class Row:
    """Hold what was measured of one optimizer on one backend; times in seconds.

    Args:
        optimizer: its key.
        backend: where its steps ran.
        step: median time of a step.
        ratio: median of its time over native AdamW's in the same round.
        first: of a process's first step, with kernels on disk.
        cold: of the first step with nothing on disk; None where a backend keeps nothing there.
        state: bytes of state per parameter.
        moved: bytes read and written per parameter and step, if they are known.
        rate: bytes moved per second.
        why: why another backend runs than was asked for.
    """

    optimizer: str
    backend: str
    step: float
    ratio: float
    first: float
    cold: float | None
    state: float
    moved: float | None
    rate: float | None
    why: str = ""


def measure(keys: Sequence[str], chosen: Sequence[str], shapes: Shapes, rounds: int,
            tell: Callable[[str], None] = lambda text: None) -> Iterator[Row]:  # fmt: skip
    """Yield one row per optimizer and backend.

    Args:
        keys: of optimizers.
        chosen: backends.
        shapes: of the parameters.
        rounds: in each every runner steps once; fewer than asked for where they take long.
        tell: called with what is measured next.
    """
    tell("adamw, native: the measure of the others")
    base = Runner("adamw", "native", shapes)
    base.settle()
    for key in keys:
        runners, times = [base], list[tuple[float, float | None]]()
        for backend in chosen:
            tell(f"{key}, {backend}")
            with suppress(LookupError):
                runner, took = _begin(key, backend, shapes)
                runners.append(runner)
                times.append(took)
        moved = [runner.moved() for runner in runners[1:]]
        turns = list(_turns(runners, rounds))
        for i, runner in enumerate(runners[1:], 1):
            yield _row(runner, times[i - 1], moved[i - 1], [(turn[i], turn[0]) for turn in turns])


def _turns(runners: Sequence[Runner], rounds: int) -> Iterator[list[float]]:
    """Yield the seconds of each runner's step, round by round; fewer rounds where they are long."""
    start = time.perf_counter()
    for turn in range(rounds):
        if turn >= LEAST and time.perf_counter() - start > PATIENCE:
            return
        yield [runner.step() for runner in runners]


def _begin(key: str, backend: str, shapes: Shapes) -> tuple[Runner, tuple[float, float | None]]:
    """Return a runner that has taken its first step, and the times of first steps: warm, cold."""
    with fresh() as forget:
        cold = Runner(key, backend, shapes).first() if backend == "native" else None
        forget()
        runner = Runner(key, backend, shapes)
        first = runner.first()
        runner.settle()
        return runner, (first, cold)


@contextmanager
def fresh() -> Iterator[Callable[[], None]]:
    """Work in an empty cache folder; yield what forgets all that this process knows of kernels."""

    def forget() -> None:
        engine._PLANS.clear()
        native._KERNELS.clear()
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()

    before = os.environ.get("BRICKYARD_CACHE")
    with tempfile.TemporaryDirectory(prefix="brickyard-bench-") as folder:
        os.environ["BRICKYARD_CACHE"] = folder
        forget()
        try:
            yield forget
        finally:
            if before is None:
                del os.environ["BRICKYARD_CACHE"]
            else:
                os.environ["BRICKYARD_CACHE"] = before


def _row(runner: Runner, times: tuple[float, float | None], moved: float | None,
         turns: Sequence[tuple[float, float]]) -> Row:  # fmt: skip
    step = statistics.median(own for own, _ in turns)
    size = sum(p.numel() for p in runner.params)
    inner = getattr(runner.optimizer, "inner", runner.optimizer)
    runs = [b.run for b in inner._engine.buckets] if hasattr(inner, "_engine") else []
    other = next((run for run in runs if run.name != runner.backend), None)
    return Row(
        runner.key, other.name if other else runner.backend, step,
        statistics.median(own / base for own, base in turns), times[0], times[1], runner.state,
        moved, None if moved is None else moved * size / step, other.why if other else "",
    )  # fmt: skip


def machine() -> dict[str, Any]:
    """Return what figures were measured on: processor, threads and versions."""
    command = compiler.command()
    return {
        "processor": _processor(), "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "compiler": compiler.version(tuple(command)) if command else "none",
        "python": platform.python_version(), "torch": torch.__version__, "brickyard": __version__,
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def as_json(rows: Sequence[Row], name: str, shapes: Shapes, rounds: int) -> str:
    """Return everything that was measured, times in seconds."""
    found: Mapping[str, Any] = {
        "machine": machine(), "shapes": name, "tensors": len(shapes),
        "parameters": sum(map(_numel, shapes)), "rounds": rounds,
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    return json.dumps(found, indent=1)


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def check_backends(given: Sequence[str]) -> list[str]:
    """Return the backends to time.

    Args:
        given: their names; native and foreach when empty.

    Raises:
        UserError: an unknown backend.
    """
    for name in given:
        if name not in BACKENDS:
            raise UserError(f"no backend is called {name!r}{near(name, BACKENDS)}")
    return list(dict.fromkeys(given)) or [n for n in backends.NAMES if n in ("native", "foreach")]
