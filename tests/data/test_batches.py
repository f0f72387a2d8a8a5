"""Batches: every epoch is complete, any point resumes bit for bit, validation is left alone."""

import multiprocessing
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from brickyard.errors import DataError
from brickyard.train.data import Split, batches, batching, epoch_order, mix_seed
from brickyard.train.data.batching import LoaderBatches, TensorBatches


class Noisy(Dataset):
    """Pairs with random noise from all three generators, as augmentation in a dataset draws it."""

    def __init__(self, n=23, noise=True):
        self.n, self.noise = n, noise

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        x = torch.full((2,), float(i))
        if self.noise:
            x = x + torch.rand(2) + float(np.random.rand()) + random.random()
        return x, torch.tensor(i)


def _tensors(n=23):
    return Split(torch.arange(2.0 * n).reshape(n, 2), torch.arange(n))


def _jitter(x, y, generator):
    return x + torch.rand(x.shape, generator=generator), y


def _equal(a, b):
    return len(a) == len(b) and all(
        torch.equal(p, q)
        for one, two in zip(a, b, strict=True)
        for p, q in zip(one, two, strict=True)
    )


def _make(kind, **options):
    if kind == "loader":
        return LoaderBatches(Split(dataset=Noisy()), 4, **{"shuffle": True, "seed": 1, **options})
    made = TensorBatches(_tensors(), 4, **{"shuffle": True, "seed": 1, **options})
    made._at_once = kind == "small"
    return made


KINDS = ["small", "large", "loader"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transform", [None, _jitter])
def test_an_epoch_resumes_anywhere(kind, transform):
    made = _make(kind, transform=transform)
    whole = list(made.epoch(2))
    assert len(whole) == len(made) == 6
    assert sorted(torch.cat([y for _, y in whole]).tolist()) == list(range(23))
    for start in range(len(made) + 1):
        torch.manual_seed(start)  # the state of the run's own generator plays no part
        np.random.seed(start)
        assert _equal(list(_make(kind, transform=transform).epoch(2, start=start)), whole[start:])


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_and_seeds_differ(kind):
    made = _make(kind)
    orders = [torch.cat([y for _, y in made.epoch(e)]).tolist() for e in (0, 1, 0)]
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    assert torch.cat([y for _, y in _make(kind, seed=2).epoch(0)]).tolist() != orders[0]


@pytest.mark.parametrize("kind", KINDS)
def test_without_shuffling_the_order_stays(kind):
    made = _make(kind, shuffle=False)
    for epoch in (0, 1):
        assert torch.cat([y for _, y in made.epoch(epoch)]).tolist() == list(range(23))
    assert next(made.epoch(0, start=2))[1].tolist() == [8, 9, 10, 11]


@pytest.mark.parametrize("kind", KINDS)
def test_drop_last(kind):
    made = _make(kind, drop_last=True)
    assert [len(y) for _, y in made.epoch(0)] == [4] * 5 == [4] * len(made)
    assert [len(y) for _, y in _make(kind).epoch(0)] == [4] * 5 + [3]
    assert _equal(list(made.epoch(0, start=3)), list(made.epoch(0))[3:])


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), size=st.integers(1, 45), drop=st.booleans(), shuffle=st.booleans())
def test_all_kinds_agree(n, size, drop, shuffle):
    """Permuted at once, gathered one by one or read by a loader: the same batches."""
    options = {"shuffle": shuffle, "seed": 3, "drop_last": drop}
    if drop and n < size:
        with pytest.raises(DataError, match="drop_last leaves no batch"):
            TensorBatches(_tensors(n), size, **options)
        return
    split = Split(torch.arange(float(n))[:, None].repeat(1, 2), torch.arange(n))
    small, large = TensorBatches(split, size, **options), TensorBatches(split, size, **options)
    large._at_once = False
    loader = LoaderBatches(Split(dataset=Noisy(n, noise=False)), size, **options)
    assert _equal(list(small.epoch(1)), list(large.epoch(1)))
    assert _equal(list(small.epoch(1)), list(loader.epoch(1)))
    assert len(small) == len(loader) == len(list(small.epoch(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_transform_is_applied_and_seeded(kind):
    plain, changed = list(_make(kind).epoch(0)), list(_make(kind, transform=_jitter).epoch(0))
    noise = [c - p for (p, _), (c, _) in zip(plain, changed, strict=True)]
    assert all((n > 0).any() for n in noise)
    assert not torch.allclose(noise[0], noise[1])
    again = list(_make(kind, transform=_jitter).epoch(1))
    assert not torch.equal(again[0][0] - next(_make(kind).epoch(1))[0], noise[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_transform_never_touches_validation(kind):
    with pytest.raises(DataError, match="validation samples are measured as they are"):
        _make(kind, shuffle=False, transform=_jitter)


def test_a_transform_in_place_leaves_the_samples_alone():
    split = _tensors()
    before = split.x.clone()

    def double(x, y, generator):
        return x.mul_(2), y

    for at_once in (True, False):
        made = TensorBatches(split, 4, shuffle=True, seed=0, transform=double)
        made._at_once = at_once
        list(made.epoch(0))
        assert torch.equal(split.x, before)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
    expected = list(_make("loader").epoch(0))
    made = _make("loader", workers=workers)
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert _equal(list(made.epoch(0)), expected)
    half = made.epoch(1)
    next(half)  # an epoch that is given up
    assert _equal(list(made.epoch(0, start=2)), expected[2:])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    others = len(multiprocessing.active_children())
    made.close()
    assert len(multiprocessing.active_children()) == others - workers
    assert _equal(list(made.epoch(0)), expected)  # new workers
    made.close()
    made.close()
    assert len(multiprocessing.active_children()) == others - workers


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_reported_whole(workers):
    class Bad(Noisy):
        def __getitem__(self, i):
            raise DataError(f"sample {i} is bad")

    made = LoaderBatches(Split(dataset=Bad()), 4, shuffle=False, seed=0, workers=workers)
    with pytest.raises(DataError, match=r"^sample 0 is bad$"):
        list(made.epoch(0))


def test_bfloat16_is_gathered_too():
    split = Split(torch.arange(6.0)[:, None].bfloat16(), torch.arange(6))
    (x, y), *_ = TensorBatches(split, 6, shuffle=True, seed=0).epoch(0)
    assert x[:, 0].tolist() == y.tolist()


def test_the_factory_picks():
    memory, dataset = _tensors(), Split(dataset=Noisy())
    options = {"shuffle": True, "seed": 0}
    assert isinstance(batches(memory, 4, **options), TensorBatches)
    made = batches(dataset, 4, drop_last=True, transform=_jitter, workers=1, **options)
    assert isinstance(made, LoaderBatches)
    assert made._loader._kept.num_workers == 1
    assert made.transform is _jitter
    assert len(made) == 5
    with pytest.raises(DataError, match="workers=2 has no effect"):
        batches(memory, 4, workers=2, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_refusals(kind):
    with pytest.raises(ValueError, match=r"start must be 0 to 6.*got 7"):
        _make(kind).epoch(0, start=7)
    with pytest.raises(ValueError, match="got -1"):
        _make(kind).epoch(0, start=-1)
    for made in (
        lambda: TensorBatches(_tensors(), 0, shuffle=False, seed=0),
        lambda: LoaderBatches(Split(dataset=Noisy()), 0, shuffle=False, seed=0),
    ):
        with pytest.raises(DataError, match="batch_size must be 1 at least; got 0"):
            made()
    with pytest.raises(DataError, match="workers must be 0"):
        LoaderBatches(Split(dataset=Noisy()), 4, shuffle=False, seed=0, workers=-1)
    with pytest.raises(DataError, match="use LoaderBatches"):
        TensorBatches(Split(dataset=Noisy()), 4, shuffle=False, seed=0)
    with pytest.raises(DataError, match="use TensorBatches"):
        LoaderBatches(_tensors(), 4, shuffle=False, seed=0)


def test_large_splits_are_not_copied(monkeypatch):
    monkeypatch.setattr(batching, "_PERMUTE_BYTES", 10)
    assert not TensorBatches(_tensors(), 4, shuffle=True, seed=0)._at_once


def test_mix_seed():
    # splitmix64 of the seeds 0 and then the result xor 0, halved: from the reference algorithm.
    def splitmix64(state):
        z = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    assert splitmix64(0) == 0xE220A8397B1DCDAF  # published first output for seed 0
    assert mix_seed(0) == 0xE220A8397B1DCDAF >> 1
    assert mix_seed(5, 9) == splitmix64(splitmix64(5) ^ 9) >> 1
    seeds = {mix_seed(s, e, b) for s in range(10) for e in range(10) for b in range(10)}
    assert len(seeds) == 1000
    assert mix_seed(-1) >= 0


def test_orders_are_permutations():
    orders = {tuple(epoch_order(5, 0, e).tolist()) for e in range(50)}
    assert len(orders) > 25
    assert all(sorted(o) == list(range(5)) for o in orders)
