"""Time and memory of losses beside well-known implementations, forward and backward, on the CPU.

    python benchmarks/losses_speed.py                 # all cases
    python benchmarks/losses_speed.py focal nt_xent   # some
    python benchmarks/losses_speed.py head            # the 50,257-word head (minutes)

Runs of all implementations take turns in one process; a ratio is the median over neighbouring
runs, with the peer's time above ours. Memory is the peak of what torch allocates beyond the inputs.
Peers: pip install monai kornia pytorch-metric-learning
"""

import argparse
import json
import math
import statistics
import tempfile
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import interleave, print_machine, ratio
from torch.profiler import ProfilerActivity, profile

import brickyard.losses as ours

warnings.filterwarnings("ignore")  # of the peers, about themselves


def images():
    x = torch.randn(8, 4, 256, 256, requires_grad=True)
    return x, torch.randint(0, 4, (8, 256, 256))


def focal():
    import kornia.losses
    import monai.losses

    x, y = images()
    monai_focal = monai.losses.FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True)

    def composed():
        p = F.log_softmax(x, 1).gather(1, y.unsqueeze(1)).squeeze(1)
        return (-((1 - p.exp()) ** 2) * p).mean()

    return x, {
        "ours": lambda: ours.focal_loss(x, y),
        "monai": lambda: monai_focal(x, y.unsqueeze(1)),
        "kornia": lambda: kornia.losses.focal_loss(x, y, None, 2.0, "mean"),
        "torch": composed,
    }


def binary_focal():
    import kornia.losses
    import monai.losses

    x, y = images()
    t = F.one_hot(y, 4).movedim(3, 1).float().contiguous()
    monai_focal = monai.losses.FocalLoss(gamma=2.0, alpha=0.25)
    return x, {
        "ours": lambda: ours.binary_focal_loss(x, t),
        "monai": lambda: monai_focal(x, t),
        "kornia": lambda: kornia.losses.binary_focal_loss_with_logits(x, t, 0.25, 2.0, "mean"),
    }


def overlap(name, **options):
    import kornia.losses
    import monai.losses

    x, y = images()
    monai_loss = getattr(monai.losses, f"{name.title()}Loss")(
        softmax=True, to_onehot_y=True, batch=True, **options
    )
    kornia_loss = getattr(kornia.losses, f"{name}_loss")
    mine = getattr(ours, f"{name}_loss")
    given = (options["alpha"], options["beta"]) if options else ()

    def composed():
        p = F.softmax(x, 1)
        t = F.one_hot(y, 4).movedim(3, 1).to(p.dtype)
        hit = (p * t).sum((0, 2, 3))
        a, b = given or (0.5, 0.5)
        fp, fn = p.sum((0, 2, 3)) - hit, t.sum((0, 2, 3)) - hit
        return (1 - hit / (hit + a * fp + b * fn)).mean()

    return x, {
        "ours": lambda: mine(x, y, "multiclass", **options),
        "monai": lambda: monai_loss(x, y.unsqueeze(1)),
        "kornia": lambda: kornia_loss(x, y, *given),
        "torch": composed,
    }


def dice_multilabel():
    import monai.losses

    x, y = images()
    t = F.one_hot(y, 4).movedim(3, 1).float().contiguous()
    monai_loss = monai.losses.DiceLoss(sigmoid=True, batch=True)
    return x, {
        "ours": lambda: ours.dice_loss(x, t, "multilabel"),
        "monai": lambda: monai_loss(x, t),
    }


def lovasz():
    import kornia.losses

    x = torch.randn(2, 4, 128, 128, requires_grad=True)
    y = torch.randint(0, 4, (2, 128, 128))
    return x, {
        "ours": lambda: ours.lovasz_loss(x, y, "multiclass"),
        "kornia": lambda: kornia.losses.lovasz_softmax_loss(x, y),
    }


def embeddings(classes=32):
    return torch.randn(1024, 128, requires_grad=True), torch.randint(0, classes, (1024,))


def batch_hard():
    from pytorch_metric_learning import distances, losses, miners

    z, y = embeddings()
    plain = distances.LpDistance(normalize_embeddings=False)
    loss = losses.TripletMarginLoss(margin=1.0, distance=plain)
    miner = miners.BatchHardMiner(distance=plain)

    def composed():
        d = torch.cdist(z, z)
        same = y.unsqueeze(1) == y
        far = d.masked_fill(~same, -1.0).amax(1)
        near = d.masked_fill(same, math.inf).amin(1)
        return (far - near + 1).clamp_min(0).mean()

    return z, {
        "ours": lambda: ours.batch_triplet_loss(z, y, mining="hard"),
        "metric-learning": lambda: loss(z, y, miner(z, y)),
        "torch": composed,
    }


def all_triplets():
    from pytorch_metric_learning import distances, losses

    z, y = torch.randn(256, 128, requires_grad=True), torch.randint(0, 16, (256,))
    plain = distances.LpDistance(normalize_embeddings=False)
    loss = losses.TripletMarginLoss(margin=1.0, distance=plain)
    return z, {
        "ours": lambda: ours.batch_triplet_loss(z, y, mining="all"),
        "metric-learning": lambda: loss(z, y),
    }


def nt_xent(count=1024):
    from pytorch_metric_learning import losses

    z, partner = torch.randn(count, 128, requires_grad=True), torch.randn(count, 128)
    loss = losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=0.5))

    def composed():
        views = F.normalize(torch.cat([z, partner]))
        scores = (views @ views.T / 0.5).fill_diagonal_(-math.inf)
        return F.cross_entropy(scores, torch.arange(2 * count).roll(count))

    ways = {"ours": lambda: ours.nt_xent_loss(z, partner), "torch": composed}
    if count < 512:  # at 1,024 it asks for 34 GB
        ways["metric-learning"] = lambda: loss(z, partner)
    return z, ways


def sup_con():
    from pytorch_metric_learning import losses

    z, y = embeddings()
    loss = losses.SupConLoss(temperature=0.07)

    def composed():
        views = F.normalize(z)
        own = torch.eye(1024, dtype=torch.bool)
        scores = (views @ views.T / 0.07).masked_fill(own, -math.inf)
        same = (y.unsqueeze(1) == y) & ~own
        logs = F.log_softmax(scores, 1).masked_fill(~same, 0)
        return -(logs.sum(1) / same.sum(1)).mean()

    return z, {
        "ours": lambda: ours.sup_con_loss(z, y),
        "metric-learning": lambda: loss(z, y),
        "torch": composed,
    }


def info_nce():
    z, keys = embeddings()[0], torch.randn(1024, 128)

    def composed():
        scores = F.normalize(z) @ F.normalize(keys).T / 0.07
        return F.cross_entropy(scores, torch.arange(1024))

    return z, {"ours": lambda: ours.info_nce_loss(z, keys), "torch": composed}


def door(name, peer, target):
    """Return what the door costs a loss of torch's."""
    x = torch.randn(256, 1000, requires_grad=True)
    y = target(x)
    return x, {"ours": lambda: getattr(ours, name)(x, y), "torch": lambda: peer(x, y)}


CASES = {
    "focal": focal,
    "binary_focal": binary_focal,
    "dice": lambda: overlap("dice"),
    "tversky": lambda: overlap("tversky", alpha=0.3, beta=0.7),
    "dice_multilabel": dice_multilabel,
    "lovasz": lovasz,
    "batch_hard": batch_hard,
    "all_triplets": all_triplets,
    "nt_xent": nt_xent,
    "nt_xent_256": lambda: nt_xent(256),
    "sup_con": sup_con,
    "info_nce": info_nce,
}
#: Losses that are torch's own behind a door: the ratio says what the door costs.
DOORS = {
    "mse": lambda: door("mse_loss", F.mse_loss, torch.randn_like),
    "huber": lambda: door("huber_loss", F.huber_loss, torch.randn_like),
    "cross_entropy": lambda: door(
        "cross_entropy_loss", F.cross_entropy, lambda x: torch.randint(0, 1000, (256,))
    ),
    "bce": lambda: door(
        "bce_with_logits_loss", F.binary_cross_entropy_with_logits,
        lambda x: torch.randint(0, 2, x.shape).float(),
    ),
}  # fmt: skip


def step(leaves, loss):
    """Return a function that runs one forward and backward pass."""

    def run():
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return run


def peak(run):
    """Return the peak of bytes allocated during ``run``, beyond what was there before."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    sizes = [e for e in events if e.get("name") == "[memory]"]
    total = most = 0
    for event in sorted(sizes, key=lambda e: e["ts"]):
        total += event["args"]["Bytes"]
        most = max(most, total)
    return most


def compare(name, make, rounds):
    """Measure one case, print it, and return the ratio to the best peer."""
    torch.manual_seed(0)
    leaf, ways = make()
    runs = {peer: step([leaf], loss) for peer, loss in ways.items()}
    seconds = interleave(runs, rounds, warmup=3)
    cells = []
    for peer, run in runs.items():
        median = 1e3 * statistics.median(seconds[peer])
        times = "" if peer == "ours" else f", x{ratio(seconds, peer, 'ours'):.2f}"
        cells.append(f"{peer} {median:.2f} ms{times}, {peak(run) / 2**20:.1f} MB")
    best = min(ratio(seconds, peer, "ours") for peer in runs if peer != "ours")
    print(f"{name:16} best peer x{best:.2f} | " + " | ".join(cells), flush=True)
    return best


def head(rounds, tokens=4096, width=512, vocabulary=50_257):
    """Measure the chunked head against the plain one."""
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, requires_grad=True)
    weight = (0.02 * torch.randn(vocabulary, width)).requires_grad_()
    target = torch.randint(0, vocabulary, (tokens,))
    runs = {
        "ours": step(
            [hidden, weight], lambda: ours.linear_cross_entropy_loss(hidden, weight, target)
        ),
        "plain": step([hidden, weight], lambda: F.cross_entropy(hidden @ weight.T, target)),
    }
    seconds = interleave(runs, rounds, warmup=1)
    memory = {name: peak(run) / 2**20 for name, run in runs.items()}
    print(
        f"head {tokens}x{width}x{vocabulary}: ours {statistics.median(seconds['ours']):.2f} s, "
        f"plain {statistics.median(seconds['plain']):.2f} s, ours/plain time "
        f"{ratio(seconds, 'ours', 'plain'):.3f}; peak {memory['ours']:.0f} MB against "
        f"{memory['plain']:.0f} MB: 1/{memory['plain'] / memory['ours']:.1f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"{', '.join([*CASES, *DOORS])} or head")
    parser.add_argument("--rounds", type=int, default=21)
    given = parser.parse_args()
    print_machine()
    found = {
        name: compare(name, make, given.rounds)
        for name, make in CASES.items()
        if not given.cases or name in given.cases
    }
    if found:
        mean = math.exp(statistics.fmean(map(math.log, found.values())))
        print(f"geometric mean x{mean:.2f}, least x{min(found.values()):.2f}")
    for name, make in DOORS.items():
        if not given.cases or name in given.cases:
            compare(f"door of {name}", make, given.rounds)
    if "head" in given.cases:
        head(max(3, given.rounds // 7))


if __name__ == "__main__":
    main()
