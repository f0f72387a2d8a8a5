"""Reading: ahead, in workers that may die, and samples that cannot be read."""

import multiprocessing
import os
import pickle
import threading
import time

import pytest
import torch
import warm
from torch.utils.data import Dataset

from brickyard.errors import DataError
from brickyard.train.data import LoaderBatches, Split, TensorBatches, batches, batching, loading
from brickyard.train.data.ahead import ahead, spare_core
from brickyard.train.data.reading import explaining_deaths


class Numbers(Dataset):
    """Give (i, i) for 12 samples; do something else for some."""

    def __init__(self, bad=(), how=None):
        self.bad, self.how = bad, how

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i in self.bad:
            self.how(i)
        return torch.tensor([float(i)]), i


def unreadable(i):
    raise OSError(f"file {i}.png is cut off\nat byte 17")


def loader(dataset, workers=0, **options):
    return LoaderBatches(
        Split(dataset=dataset), 4, shuffle=False, seed=0, workers=workers, **options
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_named(workers):
    made = loader(Numbers([6], unreadable), workers)
    epoch = made.epoch(0)
    assert next(epoch)[1].tolist() == [0, 1, 2, 3]
    with pytest.raises(
        DataError,
        match=r"sample 6 cannot be read \(OSError: file 6.png is cut off\); .* on_error: skip",
    ) as caught:
        next(epoch)
    assert "test_reading.py" in caught.value.__notes__[0], "where in the dataset"


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_that_cannot_be_read_are_skipped_and_counted(workers):
    made = loader(Numbers([1, 6, 7], unreadable), workers, on_error="skip")
    for _ in range(2):
        assert [y.tolist() for _, y in made.epoch(0)] == [[0, 2, 3], [4, 5], [8, 9, 10, 11]]
    assert len(made.unreadable) == 3, "different samples, however often they are met"
    assert made.unreadable.found["val 6"] == "OSError: file 6.png is cut off"
    assert made.unreadable.sentence() == (
        "3 samples could not be read and were skipped; the first: val 1 "
        "(OSError: file 1.png is cut off)"
    )


def test_a_batch_without_any_readable_sample_is_an_error():
    made = loader(Numbers([4, 5, 6, 7], unreadable), on_error="skip")
    with pytest.raises(DataError, match="no sample of batch 1 of epoch 3 can be read"):
        list(made.epoch(3))
    with pytest.raises(DataError, match="on_error must be one of stop, skip; got 'ignore'"):
        loader(Numbers(), on_error="ignore")


DEATH = """
import os, signal, sys, torch
from brickyard.errors import DataError
from brickyard.train.data import LoaderBatches, Split
from brickyard.train.data.reading import explaining_deaths

class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 12
    def __getitem__(self, i):
        if i == 9:
            {how}
        return torch.tensor([float(i)]), i

if __name__ == "__main__":
    made = LoaderBatches(Split(dataset=Numbers()), 4, shuffle=False, seed=0, workers=1)
    try:
        with explaining_deaths():  # torch may raise it anywhere, by a signal
            list(made.epoch(5))
    except DataError as error:
        print(error, flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("how", "what", "remedy"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed (SIGKILL)", "lower workers"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)", "native library"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "asked to end from outside (SIGTERM)", "ask the"),
        ("os._exit(3)", "ended itself (exit code 3)", "leaves the process"),
    ],
)
def test_the_death_of_a_worker_is_told(tmp_path, how, what, remedy):
    script = tmp_path / "death.py"
    script.write_text(DEATH.format(how=how))
    done = warm.run([script])
    assert done.returncode == 0, done.stderr
    told = done.stdout.replace("crashed (Segmentation fault)", "crashed (SIGSEGV)")
    assert what in told
    assert remedy in told
    assert "workers: 0" in told


class Ended:
    def __init__(self, code):
        self.exitcode = code

    def join(self, timeout):
        assert timeout > 0


@pytest.mark.parametrize(
    ("message", "code", "what"),
    [
        ("(pid(s) 7) exited unexpectedly", -9, "worker process 7, which reads data, was killed"),
        ("(pid(s) 7) exited unexpectedly", -11, r"crashed \(SIGSEGV\) in the middle"),
        ("(pid(s) 7) exited unexpectedly", 3, r"ended itself \(exit code 3\)"),
        ("(pid(s) 7) exited unexpectedly", None, "ended without an answer"),
        ("(pid 7) exited unexpectedly with exit code 3. Details", None, r"\(exit code 3\)"),
        ("(pid 7) is killed by signal: Killed. ", None, "was killed"),
        ("(pid 7) is killed by signal: Aborted. ", None, r"crashed \(Aborted\)"),
        ("(pid 7) is killed by signal: Bus error. It is possible", None, "--shm-size"),
    ],
)  # fmt: skip
def test_every_way_to_die_has_its_words(message, code, what):
    error = RuntimeError(f"DataLoader worker {message}")
    with pytest.raises(DataError, match=what) as caught:  # noqa: SIM117
        with explaining_deaths("in the middle", {7: Ended(code)}):
            raise error
    assert caught.value.__cause__ is error


def test_what_a_dead_worker_had_sent_cannot_be_fetched():
    for workers, kind in (({7: Ended(-9)}, DataError), ({7: Ended(None)}, ConnectionResetError)):
        with pytest.raises(kind), explaining_deaths(workers=workers):
            raise ConnectionResetError


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="something else"), explaining_deaths():
        raise RuntimeError("something else")


def test_options_reach_the_loader(monkeypatch):
    given = {}
    monkeypatch.setattr(loading, "DataLoader", lambda *_, **options: given.update(options))
    split = Split(dataset=Numbers())
    for workers, prefetch, pin in ((2, 5, True), (2, 0, False), (0, 5, False)):
        batches(split, 4, shuffle=True, seed=0, workers=workers, prefetch=prefetch, pin=pin)
        wanted = max(1, prefetch) if workers else None
        assert given["prefetch_factor"] == wanted
        assert given["pin_memory"] == pin


class Noise:
    """Add numbers of the generator, and remember which thread did."""

    def __init__(self, own_numbers):
        self.own_numbers, self.threads = own_numbers, set()

    def __call__(self, x, y, generator):
        self.threads.add(threading.current_thread().name)
        return x + torch.rand(x.shape, generator=generator), y


@pytest.mark.parametrize("kind", ["memory", "workers", "here"])
@pytest.mark.parametrize("core", [True, False])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_thread_transforms_ahead_where_that_is_safe(monkeypatch, kind, core, own, prefetch):
    monkeypatch.setattr(batching, "spare_core", lambda accelerator: core)

    def made(transform, prefetch):
        options = {"shuffle": True, "seed": 3, "transform": transform, "prefetch": prefetch}
        if kind == "memory":
            split = Split(torch.arange(12.0)[:, None], torch.arange(12))
            return TensorBatches(split, 4, **options)
        return LoaderBatches(Split(dataset=Numbers()), 4, workers=int(kind == "workers"), **options)

    plain, tried = Noise(False), Noise(own)
    wanted = [(x.tolist(), y.tolist()) for x, y in made(plain, 0).epoch(2, start=1)]
    found = [(x.tolist(), y.tolist()) for x, y in made(tried, prefetch).epoch(2, start=1)]
    assert found == wanted
    ahead_of = core and own and prefetch > 0 and kind != "here"
    assert tried.threads == {"brickyard-ahead" if ahead_of else "MainThread"}
    with pytest.raises(DataError, match="prefetch must be 0 at least; got -1"):
        made(None, -1) if kind != "here" else TensorBatches(
            Split(torch.zeros(2, 1), torch.zeros(2)), 1, shuffle=True, seed=0, prefetch=-1
        )


def test_the_thread_stays_within_its_depth_and_ends_with_who_asks():
    asked = []

    def source():
        for i in range(100):
            asked.append(i)
            yield i

    items = ahead(source(), 3)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(asked) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(asked) == 5, "one taken, three waiting, one in hand"
    items.close()
    assert "brickyard-ahead" not in {t.name for t in threading.enumerate()}


def test_an_error_in_the_thread_is_raised_in_its_place():
    def source():
        yield 1
        raise ValueError("here")

    items = ahead(source(), 2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="here"):
        next(items)


def test_a_core_is_spare_when_torch_leaves_one(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    for threads, accelerator, wanted in ((1, False, True), (2, False, False), (2, True, True)):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        assert spare_core(accelerator) == wanted


def test_the_error_survives_the_way_from_a_worker():
    error = batching.Reader(Numbers([0], unreadable), 0)[(0, 0, [0])]
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.__notes__ == error.__notes__


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("thread", [True, False])
def test_an_epoch_may_begin_while_another_is_under_way(monkeypatch, workers, thread):
    """As it does when statistics are measured in mid-epoch, over the training batches."""
    monkeypatch.setattr(batching, "spare_core", lambda accelerator: thread)
    others = len(multiprocessing.active_children())
    split = Split(dataset=Numbers())
    options = {"shuffle": True, "seed": 3, "transform": Noise(True), "workers": workers}

    def rows(pairs):
        return [(x.tolist(), y.tolist()) for x, y in pairs]

    wanted = [rows(LoaderBatches(split, 2, **{**options, "workers": 0}).epoch(i)) for i in range(3)]
    made = LoaderBatches(split, 2, **options)
    for number in (0, 1):
        outer = made.epoch(number)
        begun = rows([next(outer), next(outer)])
        assert rows(made.epoch(2)) == wanted[2]
        inner = made.epoch(2, start=3)
        assert rows([next(inner)]) == wanted[2][3:4]
        assert begun + rows(outer) == wanted[number]
        assert rows(inner) == wanted[2][4:]
        assert len(multiprocessing.active_children()) == others + workers
    given_up = made.epoch(0)
    next(given_up)
    made.close()
    assert len(multiprocessing.active_children()) == others
    assert rows(made.epoch(1)) == wanted[1]
    del given_up
    assert rows(made.epoch(2)) == wanted[2]
    assert len(multiprocessing.active_children()) == others + workers
    made.close()


class Forked(torch.utils.data.Dataset):
    """Tell whether the process that reads was forked by the main thread."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.tensor([float(threading.current_thread().name == "MainThread")]), i


def test_workers_are_forked_by_who_asks_and_not_by_the_thread(monkeypatch):
    """In a fork of another thread, a process group that the main thread keeps hangs or crashes."""
    monkeypatch.setattr(batching, "spare_core", lambda accelerator: True)
    transform = Noise(True)
    monkeypatch.setattr(Noise, "__call__", lambda self, x, y, generator: (
        self.threads.add(threading.current_thread().name) or x, y))  # fmt: skip
    split = Split(dataset=Forked())
    made = LoaderBatches(split, 4, shuffle=True, seed=0, workers=2, transform=transform)
    given_up = made.epoch(0)
    next(given_up)
    for epoch in (0, 1):
        assert [x.min().item() for x, _ in made.epoch(epoch)] == [1.0, 1.0]
    assert transform.threads == {"brickyard-ahead"}
    made.close()
