"""What the trainer's loop costs beyond the same loop by hand, on recipes/digits-mlp.yaml.

Both do the same work in one process, turn by turn: the same model, batches, optimizer, schedule,
clipping at 1.0, a training loss, an evaluation with accuracy after every epoch, and a copy of the
best weights. The hand loop is plain torch. The trainer also writes metrics.jsonl, counts time by
phase, and listens for signals.

    python benchmarks/loop_overhead.py [--rounds 15] [--epochs 20]
"""

import argparse
import copy
import math
import statistics
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import interleave, print_machine, ratio

from brickyard.runs import RunFolder
from brickyard.train import load
from brickyard.train.loop import State
from brickyard.train.progress import ProgressLines
from brickyard.train.session import Session
from brickyard.train.setup import build_setup

RECIPE = Path(__file__).parents[1] / "recipes" / "digits-mlp.yaml"


class Silent(ProgressLines):
    """Show nothing, as the hand loop does."""

    def evaluated(self, loop, values, best):
        """Print nothing."""


def by_hand(setup, recipe):
    """Train as a careful user of plain torch would."""
    parts, data = setup.parts, setup.data
    model, optimizer, n = parts.model, parts.optimizer, recipe.batch_size
    x, y, vx, vy = data.train.x, data.train.y, data.val.x, data.val.y
    generator = torch.Generator().manual_seed(recipe.seed)
    params = list(model.parameters())
    smoothing = recipe.loss.options["label_smoothing"]
    peak, total = optimizer.param_groups[0]["initial_lr"], parts.total
    rise = round(0.05 * total)
    best, best_weights, step = -1.0, None, 0
    while step < total:
        model.train()
        order = torch.randperm(len(x), generator=generator)
        sx, sy = x[order], y[order]
        running = 0.0
        for i in range(0, len(x), n):
            t = (step - rise) / (total - rise)
            lr = peak * (step / rise if step < rise else 0.5 * (1 + math.cos(math.pi * t)))
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.zero_grad()
            loss = F.cross_entropy(model(sx[i : i + n]), sy[i : i + n], label_smoothing=smoothing)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            running += loss.detach()
            step += 1
            if step == total:
                break
        model.eval()
        with torch.inference_mode():
            output = model(vx)
            F.cross_entropy(output, vy, label_smoothing=smoothing).item()
            accuracy = (output.argmax(1) == vy).float().mean().item()
        if accuracy > best:
            best, best_weights = accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)


def main():
    """Print the seconds of both and their ratio."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--epochs", type=int, default=20)
    options = arguments.parse_args()
    resolved = load(RECIPE, [f"budget={options.epochs}ep", "threads=1"])
    recipe = resolved.recipe
    folder = Path(tempfile.mkdtemp())
    count = iter(range(10**6))

    def trained(loop):
        setup = build_setup(resolved)  # not counted: both need it
        if loop == "hand":
            return _seconds(lambda: by_hand(setup, recipe))
        run = RunFolder.create("run", folder / str(next(count)))
        session = Session(setup, run, State(), 0.0, Silent())
        return _seconds(session.fit)

    ways = {name: (lambda name=name: trained(name)) for name in ("hand", "trainer")}
    seconds = interleave(ways, options.rounds, warmup=2)
    print_machine()
    for name, many in seconds.items():
        median = statistics.median(many)
        step = median / (options.epochs * 23) * 1e6
        print(f"{name:8} median {median * 1e3:8.1f} ms, {step:6.1f} us a step")
    print(f"trainer / hand: {ratio(seconds, 'trainer', 'hand'):.3f}")


def _seconds(work):
    import time

    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
