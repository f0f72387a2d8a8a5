"""Minimal bugs and their fixes, by the check that must tell them apart."""

import math

import torch
from doctor_loops import closed, data, epochs, fit, language, loader, mlp, noise
from torch import nn
from torch.nn import functional as F


def ce(out, y):
    return F.cross_entropy(out, y)


def missing(fixed):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model[2] = nn.Linear(16, 4)
    fit(model, ce, optimizer=None if fixed else optimizer)


def orphan(fixed):
    old, model = mlp(), mlp()
    fit(model, ce, (model if fixed else old).parameters())


def frozen(fixed):
    model = mlp()
    if not fixed:
        model[0].requires_grad_(False)
    fit(model, ce, optimizer=torch.optim.SGD(model[0].parameters(), 0.1))


def unregistered(fixed):
    model = closed()
    if fixed:
        model.more = nn.ModuleList(model.blocks)
    fit(model, ce)


def shared(fixed):
    model = mlp()
    one = torch.optim.SGD(model.parameters(), 0.01)
    two = torch.optim.SGD(model[2].parameters(), 0.01)
    if fixed:
        one = torch.optim.SGD(model[0].parameters(), 0.01)
    fit(model, ce, optimizer=one, calls=(None, lambda _: two.step()))


def tie(fixed):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(8, 4)
            self.head = nn.Linear(4, 8, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.embed(x).mean(1))

    model = Tied()
    if not fixed:
        model.head.weight = nn.Parameter(torch.randn(8, 4))
    x = torch.randint(8, (256, 3))
    fit(model, ce, xy=(x, x[:, 0]))


def symmetric(fixed):
    model = mlp()
    if not fixed:
        nn.init.constant_(model[0].weight, 0.1)
        nn.init.zeros_(model[0].bias)
    nn.init.zeros_(model[2].weight) if fixed else nn.init.constant_(model[2].weight, 0.1)
    fit(model, ce)


def dropout(fixed):
    fit(mlp(8, 16, 4, nn.Dropout(0.3 if fixed else 0.95)), ce)


def momentum(fixed):
    fit(mlp(8, 16, 4, nn.BatchNorm1d(16, momentum=0.1 if fixed else 1e-4)), ce)


def linear_linear(fixed):
    inner = 4 if fixed else 16
    model = nn.Sequential(nn.Linear(8, inner), nn.Linear(inner, 8), nn.ReLU(), nn.Linear(8, 4))
    fit(model, ce)


def idle_bias(fixed):
    fit(nn.Sequential(nn.Linear(8, 16, bias=not fixed), nn.BatchNorm1d(16), nn.Linear(16, 4)), ce)


def decay(fixed):
    model = mlp(8, 16, 4, nn.BatchNorm1d(16))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0 if fixed else 0.1}]
    fit(model, ce, optimizer=torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1))


def rate(fixed):
    model = mlp()
    fit(model, ce, optimizer=torch.optim.Adam(model.parameters(), lr=1e-3 if fixed else 3.0))


def horizon(fixed):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    epochs(model, loader(*data()), 3, optimizer=optimizer, scheduler=scheduler,
           per_step=not fixed)  # fmt: skip


def one_cycle(fixed):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=24)
    epochs(model, loader(*data()), 3, optimizer=optimizer, scheduler=scheduler, per_step=fixed)


def vanished(fixed):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9 if fixed else 0.1)
    epochs(model, loader(*data()), 6, optimizer=optimizer, scheduler=scheduler, per_step=True)


def sorted_labels(fixed):
    x, y = data()
    order = y.argsort()
    epochs(mlp(), loader(x[order], y[order], shuffle=fixed))


def overlap(fixed):
    x, y = data()
    val = loader(x[200:], y[200:], shuffle=False)
    train = loader(x[: 200 if fixed else 230], y[: 200 if fixed else 230])
    epochs(mlp(), train, evaluate=lambda m: [m(a) for a, _ in val])


def duplicates(fixed):
    x, y = data()
    epochs(mlp(), loader(x if fixed else x.repeat(2, 1), y if fixed else y.repeat(2)))


def nan_input(fixed):
    x, y = data()
    if not fixed:
        x[3, 3] = math.nan
    epochs(mlp(), loader(x, y))


def raw(fixed):
    x, y = data()
    x = (x * 40 + 128).clamp(0, 255).round()
    fit(mlp(), ce, lr=1e-4, xy=(x / 255 if fixed else x, y))


def constant(fixed):
    x, y = data()
    fit(mlp(), ce, xy=(x if fixed else torch.full_like(x, 0.5), y))


def labels_from_one(fixed):
    x, y = data(classes=4)
    model = mlp(8, 16, 4 if fixed else 5)
    fit(model, ce, rows=128, xy=(x, y if fixed else y + 1))


def no_distribution(fixed):
    x, y = data()
    target = F.one_hot(y, 4).float()
    if not fixed:
        target[:, 0] = 1.0
    fit(mlp(), ce, xy=(x, target))


def outer(fixed):
    x, y = data()
    target = y.float()

    def loss(out, target):
        return ((out.squeeze(1) if fixed else out) - target).pow(2).mean()

    fit(mlp(8, 16, 1), loss, lr=0.01, xy=(x, target))


def probabilities(fixed):
    fit(mlp(), lambda o, y: F.cross_entropy(o if fixed else o.softmax(1), y))


def twice_softmax(fixed):
    fit(mlp(), lambda o, y: F.nll_loss(F.log_softmax(o if fixed else o.softmax(1), 1), y))


def twice_sigmoid(fixed):
    x, y = data()
    fit(mlp(8, 16, 1), lambda o, t: F.binary_cross_entropy_with_logits(
        o if fixed else o.sigmoid(), t), xy=(x, (y > 1).float()[:, None]))  # fmt: skip


def nll(fixed):
    fit(mlp(), lambda o, y: F.nll_loss(o.log_softmax(1) if fixed else o.softmax(1), y))


def detached(fixed):
    fit(mlp(), lambda o, y: ce(o, y) if fixed else ce(o, y).detach().requires_grad_())


def zero_layer(fixed):
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 16)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(x) + (1.0 if fixed else 0.0) * self.body(x)[:, :4]

    model = Gate()
    fit(model, ce, steps=20)


def mixing(fixed):
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(x * x.softmax(1 if fixed else 0))

    fit(Pool(), ce)


def evaluated(fixed):
    model = mlp(8, 16, 4, nn.Dropout(0.2))
    fit(model, ce)
    model.eval()
    model(data()[0])
    if fixed:
        model.train()
    fit(model, ce)


def noop(fixed):
    model = mlp()

    class Nothing(torch.optim.SGD):
        def step(self, closure=None):
            if fixed:
                super().step(closure)

    fit(model, ce, optimizer=Nothing(model.parameters(), 0.1))


def stale(fixed):
    fit(mlp(), ce, zero=fixed)


def clip_late(fixed):
    model = mlp()

    def clip(_):
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    fit(model, ce, calls=(clip if fixed else None, None if fixed else clip))


def undivided(fixed):
    model, (x, y) = mlp(), data()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(6):
        optimizer.zero_grad()
        for i in range(4):
            loss = ce(model(x[i * 32 : i * 32 + 32]), y[i * 32 : i * 32 + 32])
            (loss / 4 if fixed else loss).backward()
        optimizer.step()


def cleared(fixed):
    model, (x, y) = mlp(), data()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(6):
        for i in range(4):
            if i == 0 or not fixed:
                optimizer.zero_grad()
            (ce(model(x[i * 32 : i * 32 + 32]), y[i * 32 : i * 32 + 32]) / 4).backward()
        optimizer.step()


def root_of_zero(fixed):
    def loss(out, y):
        off = (out - out.detach()).square().sum(1) + (1e-8 if fixed else 0.0)
        return ce(out, y) + off.sqrt().mean()

    fit(mlp(), loss, steps=4)


def wild(fixed):
    fit(mlp(), ce, lr=0.05 if fixed else 3000.0, steps=10)


def dead(fixed):
    model = mlp(8, 16, 4)
    nn.init.constant_(model[0].bias, 0.0 if fixed else -100.0)
    fit(model, ce, steps=300)


def leak(fixed):
    total = torch.zeros(())
    model, (x, y) = mlp(), data()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(50):
        optimizer.zero_grad()
        loss = ce(model(x), y)
        loss.backward()
        optimizer.step()
        total = total + (loss.item() if fixed else loss)


def frozen_norm(fixed):
    model = nn.Sequential(mlp(8, 16, 16, nn.BatchNorm1d(16)), nn.Linear(16, 4))
    model[0].requires_grad_(False)
    if fixed:
        model[0].eval()
    fit(model, ce, model[1].parameters())


def left_behind(fixed):
    model, (x, y) = mlp(), data()
    average = [p.detach().clone() for p in model.parameters()]

    def evaluate(one):
        with torch.no_grad():
            held = [p.clone() for p in one.parameters()]
            for p, a in zip(one.parameters(), average, strict=True):
                a.lerp_(p, 0.1)
                p.copy_(a)
            one.eval()
            one(x)
            if fixed:
                for p, h in zip(one.parameters(), held, strict=True):
                    p.copy_(h)

    epochs(model, loader(x, y), 4, evaluate=evaluate)


def same_order(fixed):
    x, y = data()
    sampler = torch.utils.data.DistributedSampler(x, num_replicas=2, rank=0, shuffle=True)
    batches = loader(x, y, shuffle=None, sampler=sampler)
    model = mlp()
    for epoch in range(3):
        if fixed:
            sampler.set_epoch(epoch)
        epochs(model, batches, 1)


def unlearned(fixed):
    x, _ = data(64)
    y = torch.randint(4, (64,), generator=torch.Generator().manual_seed(2))
    target = x[:, :4].argmax(1) if fixed else y
    model = mlp()
    fit(model, ce, steps=400, rows=64, lr=0.05 if fixed else 1e-7, xy=(x, target))


CASES = {
    "opt-missing-params": missing, "opt-orphan-params": orphan, "opt-frozen-params": frozen,
    "unregistered-modules": unregistered, "param-in-two-optimizers": shared, "tie-broken": tie,
    "symmetric-init": symmetric, "dropout-p": dropout, "bn-config": momentum,
    "linear-linear": linear_linear, "bias-before-bn": idle_bias, "decay-on-norm": decay,
    "lr-static": rate, "scheduler-horizon": horizon, "lr-trace": vanished,
    "train-not-shuffled": sorted_labels, "train-val-overlap": overlap,
    "train-duplicates": duplicates, "input-nonfinite": nan_input, "input-raw-range": raw,
    "input-constant": constant, "target-range": labels_from_one,
    "target-dtype-shape": no_distribution, "loss-broadcast": outer, "probs-into-CE": probabilities,
    "probs-into-BCEWithLogits": twice_sigmoid, "logprob-contract": nll, "loss-detached": detached,
    "grad-zero-layer": zero_layer, "batch-mixing": mixing,
    "causality-leak": lambda fixed: language(fixed, 1),
    "shift-error": lambda fixed: language(True, 1 if fixed else 2),
    "pad-in-loss": lambda fixed: language(True, 1, 2 if fixed else 1),
    "eval-determinism": noise, "mode-wrong": evaluated, "step-noop": noop, "stale-grad": stale,
    "call-order": clip_late, "accum-scale": undivided, "nonfinite": root_of_zero,
    "update-ratio": wild, "dead-units": dead, "graph-leak": leak,
    "frozen-buffers-moved": frozen_norm, "silent-weight-change": left_behind,
    "generalisation": same_order, "not-learning": unlearned,
}  # fmt: skip
MORE = {
    "scheduler-horizon": one_cycle, "call-order": cleared, "probs-into-CE": twice_softmax,
    "shift-error": lambda fixed: language(True, 1 if fixed else 0),
}  # fmt: skip
