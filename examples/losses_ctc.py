"""CTC reads strips of digits without being told where each digit stands.

Two to six digits of 8x8 pixels stand in a strip, with gaps of 0 to 3 columns. Three
convolutions read the columns; CTC needs the digits in order and nothing about their places. Strips
of the test are made of digits, and of handwriting, that training never saw.

`python examples/losses_ctc.py` (torch 2.13.0, CPU, 1 thread):

    seed 0  label error rate 0.054  strips without an error 0.802
    seed 1  label error rate 0.052  strips without an error 0.804
    seed 2  label error rate 0.052  strips without an error 0.808

A number behind the command runs fewer seeds.
"""

import sys

import numpy as np
import torch

from brickyard import clip, losses, optim, schedules
from brickyard.train.data import digits

torch.set_num_threads(1)
SEEDS = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
STEPS, BATCH, WIDTH = 400, 32, 66


def strips(split, count, generator):
    """Return strips (N, 8, WIDTH), their lengths, the digits (N, 6), padded, and their number."""
    many = torch.randint(2, 7, (count,), generator=generator)
    rows = torch.randint(0, len(split.x), (count, 6), generator=generator)
    gaps = torch.randint(0, 4, (count, 6), generator=generator)
    there = torch.arange(6) < many.unsqueeze(1)
    ends = (gaps + 8).cumsum(1)
    columns = (ends - 8).unsqueeze(2) + torch.arange(8)  # (N, 6, 8): where each digit's stand
    pixels = split.x[rows].view(count, 6, 8, 8) * there.view(count, 6, 1, 1)
    images = torch.zeros(count, WIDTH, 8)
    images.scatter_(1, columns.view(count, 48, 1).expand(-1, -1, 8),
                    pixels.transpose(2, 3).reshape(count, 48, 8))  # fmt: skip
    images = images.transpose(1, 2) + 0.1 * torch.randn(count, 8, WIDTH, generator=generator)
    return images, ends.gather(1, many.unsqueeze(1) - 1).squeeze(1), split.y[rows], many


class Reader(torch.nn.Module):
    """Return log-probabilities (T, N, 11): of the blank and the ten digits, every other column."""

    def __init__(self, width=64):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv1d(8, width, 5, stride=2, padding=2), torch.nn.ReLU(),
            torch.nn.Conv1d(width, width, 5, padding=2), torch.nn.ReLU(),
            torch.nn.Conv1d(width, 11, 3, padding=1),
        )  # fmt: skip

    def forward(self, images):
        return self.layers(images).permute(2, 0, 1).log_softmax(2)


def decode(log_probs, lengths):
    """Return the best path of each strip: repeats merged, blanks left out."""
    best = log_probs.argmax(2).T
    return [
        [c - 1 for c in torch.unique_consecutive(row[:n]).tolist() if c]
        for row, n in zip(best, lengths, strict=True)
    ]


def distance(a, b):
    """Return how many insertions, deletions and replacements lead from a to b."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        last, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            last, row[j + 1] = row[j + 1], min(row[j] + 1, row[j + 1] + 1, last + (x != y))
    return row[-1]


def fit(seed):
    """Train on fresh strips; return errors per digit, and the share of strips read without any."""
    torch.manual_seed(seed)
    data, generator = digits(val=0.2, seed=seed), torch.Generator().manual_seed(seed)
    model, ctc = Reader(), losses.CTCLoss(blank=0)
    optimizer = optim.AdamW(model, lr=6e-3, weight_decay=1e-2)
    scheduler = (schedules.warmup("5%") >> schedules.cosine()).bind(optimizer, total=STEPS)
    for _ in range(STEPS):
        images, lengths, targets, many = strips(data.train, BATCH, generator)
        optimizer.zero_grad()
        ctc(model(images), targets + 1, (lengths + 1) // 2, many).backward()
        clip.clip_by_global_norm(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    images, lengths, targets, many = strips(data.val, 500, torch.Generator().manual_seed(100))
    with torch.inference_mode():
        read = decode(model(images), (lengths + 1) // 2)
    wanted = [row[:n].tolist() for row, n in zip(targets, many, strict=True)]
    errors = [distance(a, b) for a, b in zip(read, wanted, strict=True)]
    return sum(errors) / many.sum().item(), np.mean([e == 0 for e in errors])


rows = [fit(seed) for seed in SEEDS]
for seed, (rate, right) in zip(SEEDS, rows, strict=True):
    print(f"seed {seed}  label error rate {rate:.3f}  strips without an error {right:.3f}")
if np.mean(rows, 0)[0] > 0.1:
    raise SystemExit("the label error rate should fall below 10 %")
