"""What averages, penalties and constraints add to a step of AdamW, turn by turn in one process.

Usage: python benchmarks/regularize_speed.py [--rounds N] [--million N]

The weights are those of a transformer block after the other, 12 tensors each. The bar is the one
of the project: an average inside the optimizer's own pass at 1.35 times the step alone or less.
"""

import argparse

import torch
from timing import interleave, print_machine, ratio
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from brickyard.optim import Optimizer, chain, decay, ema_weights, max_norm, scale_by_adam
from brickyard.regularize import EMA, MaxNorm, elastic_net, l2_penalty

WIDTH = 512


def make(blocks):
    """Return a stack of matrices, biases and scales, with gradients."""
    torch.manual_seed(0)
    layers = []
    for _ in range(blocks):
        layers += [nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH),
                   nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH),
                   nn.Linear(4 * WIDTH, WIDTH)]  # fmt: skip
    model = nn.ModuleList(layers)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return model


def stepper(blocks, *pieces, after=None):
    """Return a function that takes a step, and what comes after it."""
    model = make(blocks)
    optimizer = Optimizer(model, chain(scale_by_adam(), decay(0.01), *pieces), lr=1e-6)
    then = after(model) if after is not None else None

    def step():
        optimizer.step()
        if then is not None:
            then()

    return step


def torch_average(model):
    """Return the update of torch's own average."""
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    return lambda: average.update_parameters(model)


def penalized(make_penalty):
    """Return forward and backward of a penalty alone."""
    return lambda model: lambda: make_penalty(model).backward()


def main():
    """Print the medians of the ratios to the step alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--million", type=int, default=25)
    given = parser.parse_args()
    blocks = max(1, round(given.million * 1e6 / (12 * WIDTH**2)))
    bound = MaxNorm(1e6)
    ways = {
        "step": stepper(blocks),
        "ema_weights in the pass": stepper(blocks, ema_weights(0.999)),
        "EMA beside it": stepper(blocks, after=lambda m: EMA(m).update),
        "torch AveragedModel beside it": stepper(blocks, after=torch_average),
        "max_norm in the pass": stepper(blocks, max_norm(1e6, where="matrices")),
        "MaxNorm beside it": stepper(blocks, after=lambda m: lambda: bound.after_step(m)),
        "l2_penalty, both passes": stepper(blocks, after=penalized(l2_penalty)),
        "elastic_net, both passes": stepper(blocks, after=penalized(elastic_net)),
    }
    seconds = interleave(ways, given.rounds, warmup=3)
    print_machine()
    count = sum(p.numel() for p in make(blocks).parameters())
    print(f"{count / 1e6:.1f} M weights, fp32; ratios to the step alone (medians)")
    for name in ways:
        print(f"{name:32} {1e3 * sorted(seconds[name])[given.rounds // 2]:8.2f} ms "
              f"{ratio(seconds, name, 'step'):6.2f}x")  # fmt: skip


if __name__ == "__main__":
    main()
