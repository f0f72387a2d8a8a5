"""Checks 20, 42, 56: workers that draw alike, answers at the wrong offset, replicas apart."""

import numpy as np
import torch
from doctor_loops import Tokens, data, fit, mlp
from doctor_seen import line, watched
from torch import nn
from torch.nn import functional as F

from brickyard.doctor import thresholds as T
from brickyard.doctor import watch


def ce(out, y):
    return F.cross_entropy(out, y)


# -- 20 worker-rng-duplication -------------------------------------------------------------------
class Noisy(torch.utils.data.Dataset):
    def __init__(self, stored):
        self.rng = np.random.default_rng(0) if stored else None

    def __len__(self):
        return 32

    def __getitem__(self, i):
        noise = self.rng.normal(size=8) if self.rng else np.random.default_rng(i).normal(size=8)
        return torch.tensor(noise, dtype=torch.float32), i % 4


def seed_worker(_):
    info = torch.utils.data.get_worker_info()
    info.dataset.rng = np.random.default_rng(info.seed)


def workers(stored, init=None):
    batches = torch.utils.data.DataLoader(Noisy(stored), 8, num_workers=2, worker_init_fn=init)
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.01)
    for x, y in batches:
        made.zero_grad()
        ce(model(x), y).backward()
        made.step()


def test_workers_that_draw_alike():
    (said,) = watched("worker-rng-duplication", workers, True)
    assert said.severity == "error"
    assert said.evidence.startswith("In 2 workers the generator dataset.rng was in the same state")
    assert line(said) == "for x, y in batches:"
    assert watched("worker-rng-duplication", workers, True, seed_worker) == []
    assert watched("worker-rng-duplication", workers, False) == []


# -- 42 shift-error: by answers ------------------------------------------------------------------
def spoken(target_at, slow=False, steps=224, custom=True):
    """Train a causal model whose loss the doctor does not know, on cycles of words."""
    g = torch.Generator().manual_seed(1)
    start, pace = torch.randint(11, (64, 1), generator=g), 3 if slow else 1
    x = 1 + (start + torch.arange(14) // pace) % 11
    y = x[:, target_at : target_at + 10].clone()

    def loss(out, target):
        if not custom:
            return F.cross_entropy(out.flatten(0, 1), target.flatten())
        return -out.log_softmax(2).gather(2, target[..., None]).mean()

    fit(Tokens(True), loss, rows=16, steps=steps, lr=2.0, xy=(x[:, :10], y))


def test_answers_that_repeat_the_wrong_token(monkeypatch):
    monkeypatch.setattr(T, "ALWAYS_LOOKS", 1000)  # however busy the machine is
    (said,) = watched("shift-error", spoken, 2)
    assert said.severity == "warning"
    assert "the one after it at 100%" in said.evidence
    assert "shifted twice" in said.evidence
    (said,) = watched("shift-error", spoken, 0)
    assert "it learned to copy" in said.evidence
    assert "the present token at 100% of positions" in said.evidence
    assert watched("shift-error", spoken, 1) == []
    assert watched("shift-error", spoken, 1, slow=True) == []  # mostly the present token is right
    assert watched("shift-error", spoken, 2, steps=20) == []  # not trained yet


# -- 56 replica-divergence -----------------------------------------------------------------------
def rank(number, store, bypass):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=number, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(mlp())
    called = model.module if bypass else model
    x, y = data(seed=number)
    made = torch.optim.SGD(model.parameters(), 0.1)
    for i in range(4):
        made.zero_grad()
        ce(called(x[32 * i : 32 * i + 32]), y[32 * i : 32 * i + 32]).backward()
        made.step()
    torch.distributed.destroy_process_group()


def test_replicas_that_come_apart(tmp_path):
    def train(bypass):
        store = tmp_path / str(bypass)
        torch.multiprocessing.start_processes(
            rank, (str(store), bypass), nprocs=2, start_method="fork"
        )

    with watch() as doctor:
        train(True)
    (said,) = [f for f in doctor.report().findings if f.check == "replica-divergence"]
    assert said.severity == "error"
    assert said.evidence.startswith("After step 1, 4 of 4 sampled parameters differ between the 2 ")
    with watch() as doctor:
        train(False)
    assert [f for f in doctor.report().findings if f.check == "replica-divergence"] == []
