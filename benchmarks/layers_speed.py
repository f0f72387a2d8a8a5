"""Time of our layers beside the best composition of torch's operations, forward and backward.

    python benchmarks/layers_speed.py                # all layers
    python benchmarks/layers_speed.py frn maxout     # some

Each layer runs in turn with one or more compositions that compute the same (it is checked before
anything is measured); the ratio is the median over neighbouring runs of our time by that of the
fastest composition, so that below 1 is faster. The aim is 1.2 at the most.
"""

import argparse
import statistics
import sys
from functools import partial

import torch
import torch.nn.functional as F
from timing import interleave, print_machine, ratio

from brickyard import nn

LIMIT = 1.2


def weights(*shape):
    return torch.nn.Parameter(torch.randn(*shape) / shape[-1] ** 0.5)


def maxout():
    x, layer = torch.randn(512, 256, requires_grad=True), nn.Maxout(256, 256, 2)
    w, b = layer.linear.weight, layer.linear.bias
    return x, layer, {
        "two products": lambda x: torch.maximum(F.linear(x, w[:256], b[:256]),
                                                F.linear(x, w[256:], b[256:])),
        "chunk": lambda x: torch.maximum(*F.linear(x, w, b).chunk(2, -1)),
        "amax": lambda x: F.linear(x, w, b).unflatten(-1, (2, 256)).amax(-2),
    }  # fmt: skip


def tlu():
    x, layer = images(), nn.TLU(64)
    tau = layer.tau.view(-1, 1, 1)
    return x, layer, {
        "max": lambda x: torch.max(x, tau), "relu": lambda x: torch.relu(x - tau) + tau,
        "where": lambda x: torch.where(x > tau, x, tau),
    }  # fmt: skip


def squared_relu():
    x = torch.randn(512, 1024, requires_grad=True)
    return x, nn.SquaredReLU(), {
        "square": lambda x: torch.relu(x).square(), "pow": lambda x: torch.relu(x) ** 2,
        "product": lambda x: x * torch.relu(x),
    }  # fmt: skip


def gated(kind, curve):
    x, layer = torch.randn(512, 192, requires_grad=True), kind(192)
    w, out, h = layer.w_in.weight, layer.w_out.weight, layer.hidden

    def one(x):
        gate, value = F.linear(x, w).chunk(2, -1)
        return F.linear(curve(gate) * value, out)

    two = lambda x: F.linear(curve(F.linear(x, w[:h])) * F.linear(x, w[h:]), out)  # noqa: E731
    return x, layer, {"one product": one, "two products": two}


def images(channels_last=False, n=64, c=64, side=16):
    x = torch.randn(n, c, side, side)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    return x.requires_grad_()


def frn(channels_last=False):
    x, layer = images(channels_last), nn.FRN(64)
    g, b = layer.weight.view(-1, 1, 1), layer.bias.view(-1, 1, 1)

    def square(x):
        return x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + 1e-6) * g + b

    def norm(x):
        nu2 = torch.linalg.vector_norm(x, 2, (2, 3), keepdim=True).square() / 256
        return torch.addcmul(b, x, g * torch.rsqrt(nu2 + 1e-6))

    return x, layer, {"mean of squares": square, "vector_norm": norm}


def ghost(channels_last=False, flat=False):
    if flat:
        x, layer, count = (
            torch.randn(512, 256, requires_grad=True),
            nn.GhostBatchNorm1d(256, 32),
            16,
        )
    else:
        x, layer, count = images(channels_last, n=128), nn.GhostBatchNorm2d(64, 32), 4
    w, b, means, vars_ = layer.weight, layer.bias, layer.running_mean, layer.running_var
    channels = x.shape[1]

    def update(mean, var):  # the running statistics are part of the work
        with torch.no_grad():
            means.lerp_(mean.view(count, -1).mean(0), 0.1)
            vars_.lerp_(var.view(count, -1).mean(0), 0.1)

    def loop(x):
        mean, var = torch.zeros(count, channels), torch.zeros(count, channels)
        parts = [
            F.batch_norm(p, m, v, w, b, True, 1.0)
            for p, m, v in zip(x.unflatten(0, (-1, count)).unbind(1), mean, var, strict=True)
        ]
        update(mean, var)
        return torch.stack(parts, 1).flatten(0, 1)  # fmt: skip

    def pairs(x):
        mean, var = torch.zeros(count * channels), torch.zeros(count * channels)
        y = x.reshape(-1, count * channels, *x.shape[2:])
        y = F.batch_norm(y, mean, var, w.repeat(count), b.repeat(count), True, 1.0)
        update(mean, var)
        return y.view(x.shape)

    return x, layer, {"loop and stack": loop, "pairs as channels": pairs}


def drop_connect():
    x, layer = (
        torch.randn(512, 512, requires_grad=True),
        nn.DropConnect(torch.nn.Linear(512, 512), 0.3),
    )
    w, b = layer.linear.weight, layer.linear.bias
    return x, layer, {
        "dropout": lambda x: F.linear(x, F.dropout(w, 0.3), b),
        "rand": lambda x: F.linear(x, w * (torch.rand_like(w) > 0.3) / 0.7, b),
    }  # fmt: skip


def drop_path():
    x = images()
    return x, nn.DropPath(0.3), {
        "bernoulli": lambda x: x * x.new_empty(64, 1, 1, 1).bernoulli_(0.7).div_(0.7),
        "dropout": lambda x: x * F.dropout(x.new_ones(64, 1, 1, 1), 0.3),
    }  # fmt: skip


def variational_dropout():
    x = torch.randn(50, 64, 128, requires_grad=True)
    return x, nn.VariationalDropout(0.3), {
        "bernoulli": lambda x: x * x.new_empty(1, 64, 128).bernoulli_(0.7).div_(0.7),
        "dropout": lambda x: x * F.dropout(x.new_ones(1, 64, 128), 0.3),
    }  # fmt: skip


def layer_scale():
    x, layer = torch.randn(512, 512, requires_grad=True), nn.LayerScale(512)
    return x, layer, {"product": lambda x: x * layer.gamma}


def residual_scale():
    x, layer = torch.randn(512, 512, requires_grad=True), nn.ResidualScale(0.5)
    return x, layer, {"product": lambda x: x * layer.alpha}


def zoneout():
    x, cell = torch.randn(64, 128, requires_grad=True), torch.nn.LSTMCell(128, 128)
    layer, h, c = nn.Zoneout(cell, 0.1, 0.3), torch.randn(64, 128), torch.randn(64, 128)

    def composed(x):
        a, b = cell(x, (h, c))
        a = torch.where(torch.rand_like(a) < 0.1, h, a)
        return a + torch.where(torch.rand_like(b) < 0.3, c, b)

    return x, lambda x: sum(layer(x, (h, c))), {"cell and where": composed}


def zoneout_lstm():
    x, layer = torch.randn(30, 32, 128, requires_grad=True), nn.ZoneoutLSTM(128, 128, p_hidden=0.1)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell = torch.nn.LSTMCell(128, 128)
    for name in names:
        setattr(cell, name, getattr(layer, f"{name}_l0"))

    def composed(x):
        h = c = x.new_zeros(32, 128)
        outputs = []
        for step in x:
            new, c = cell(step, (h, c))
            h = torch.where(torch.rand_like(new) < 0.1, h, new)
            outputs.append(h)
        return torch.stack(outputs)

    return x, lambda x: layer(x)[0], {"cells and where": composed}


CASES = {
    "maxout": maxout, "tlu": tlu, "squared_relu": squared_relu,
    "swiglu": partial(gated, nn.SwiGLU, F.silu), "geglu": partial(gated, nn.GeGLU, F.gelu),
    "frn": frn, "frn, channels last": partial(frn, True), "ghost_batch_norm": ghost,
    "ghost_batch_norm, channels last": partial(ghost, True),
    "ghost_batch_norm, flat": partial(ghost, flat=True), "drop_connect": drop_connect,
    "drop_path": drop_path, "variational_dropout": variational_dropout,
    "layer_scale": layer_scale, "residual_scale": residual_scale, "zoneout": zoneout,
    "zoneout_lstm": zoneout_lstm,
}  # fmt: skip
#: Draws of these fall differently in the compositions, so that values cannot be compared.
RANDOM = {"drop_connect", "drop_path", "variational_dropout", "zoneout", "zoneout_lstm"}


def run(way, x, g):
    x.grad = None
    way(x).backward(g)


def measure(name, rounds):
    torch.manual_seed(0)
    x, layer, peers = CASES[name]()
    with torch.no_grad():
        y = layer(x)
        if name not in RANDOM:
            for peer in peers.values():
                torch.testing.assert_close(peer(x), y, rtol=1e-4, atol=1e-4)
    g = torch.randn_like(y)
    ways = {key: partial(run, way, x, g) for key, way in {"ours": layer, **peers}.items()}
    seconds = interleave(ways, rounds, warmup=5)
    best = min(peers, key=lambda key: statistics.median(seconds[key]))
    times = ratio(seconds, "ours", best)
    took = statistics.median(seconds["ours"]) * 1e3
    print(f"{name:32} {took:8.2f} ms   {times:5.2f} x {best}", flush=True)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layers", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=41)
    given = parser.parse_args()
    names = [n for n in CASES if not given.layers or n.split(",")[0] in given.layers]
    print_machine()
    slow = [name for name in names if measure(name, given.rounds) > LIMIT]
    if slow:
        sys.exit(f"above {LIMIT} times the best composition: {', '.join(slow)}")


if __name__ == "__main__":
    main()
