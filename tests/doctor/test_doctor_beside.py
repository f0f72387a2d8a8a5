"""What else is on torch's stacks, or goes wrong, stays as it is: modes, threads, failed steps."""

from threading import Event, Thread

import pytest
import torch
from doctor_loops import data, fit, mlp
from torch import nn, overrides
from torch.nn import functional as F

from brickyard.doctor import watch


class Counts(overrides.TorchFunctionMode):
    """Count the calls inside a block."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def one_step(model, optimizer, x, y):
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def loud(doctor):
    report = doctor.report()
    assert report.problems == []
    return [f.check for f in report.findings if f.severity != "info"]


def test_a_mode_of_the_users_acts_in_its_blocks_and_nowhere_else():
    def counted():
        torch.manual_seed(0)
        model, (x, y), mode = mlp(), data(), Counts()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(30):
            with mode:
                one_step(model, optimizer, x[:16], y[:16])
            before = mode.calls
            x.sum()
            assert mode.calls == before
        return list(model.parameters())

    weights = counted()
    with watch() as doctor:
        watched = counted()
        assert not any(isinstance(m, Counts) for m in overrides._get_current_function_mode_stack())
    assert (loud(doctor), doctor.report().steps) == ([], 30)
    assert all(map(torch.equal, weights, watched))
    assert overrides._len_torch_function_stack() == 0


def test_the_default_device_can_be_set_and_blocks_have_their_own():
    model, (x, y) = mlp(), data()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    try:
        with watch():
            torch.set_default_device("meta")
            for i in range(12):
                with torch.device("cpu"):
                    one_step(model, optimizer, x[:16], y[:16])
                assert torch.ones(1).is_meta
                if i % 3 == 0:
                    torch.set_default_device("meta")
        assert torch.ones(1).is_meta
    finally:
        torch.set_default_device(None)
    assert overrides._len_torch_function_stack() == 0


@pytest.mark.parametrize("count", [1, 2])
def test_of_threads_the_first_that_trains_is_followed(count):
    def trained():
        torch.manual_seed(0)
        models, (x, y) = [mlp() for _ in range(count)], data()

        begun = Event()  # so that there is a first one: who comes at once may lose a step

        def work(model):
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            if model is not models[0]:
                begun.wait(60)
            for _ in range(25):
                one_step(model, optimizer, x[:16], y[:16])
                begun.set()

        threads = [Thread(target=work, args=(m,)) for m in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fit(mlp(), F.cross_entropy, steps=3)  # that thread is gone: this one is followed
        return [p for m in models for p in m.parameters()]

    alone = trained()
    with watch() as doctor:
        watched = trained()
    assert all(map(torch.equal, alone, watched))
    assert loud(doctor) == []
    assert 27 <= doctor.report().steps <= 25 * count + 3  # one step tells a new turn from a pair
    assert overrides._len_torch_function_stack() == 0


class Fails(torch.optim.SGD):
    """Fail at some steps, as one without memory does; call the parent's step at the others."""

    at = ()
    steps = 0

    def step(self, closure=None):
        self.steps += 1
        if self.steps in self.at:
            raise torch.OutOfMemoryError("no memory")
        return super().step(closure)


def run_with_failures(optimizer, model, steps):
    x, y = data()
    for _ in range(steps):
        try:
            one_step(model, optimizer, x[:16], y[:16])
        except torch.OutOfMemoryError:
            continue


def test_steps_that_fail_and_are_caught_are_no_order_of_calls():
    with watch() as doctor:
        model = mlp(8, 16, 4, nn.Dropout(0.1))
        optimizer = Fails(model.parameters(), 0.1)
        optimizer.at = (1, 2, 3, 5, 6, 9)
        run_with_failures(optimizer, model, 30)
    assert loud(doctor) == []
    assert doctor.report().steps == 24


def test_another_optimizer_goes_on_where_one_failed():
    with watch() as doctor:
        first, model = mlp(), mlp()
        failed = Fails(first.parameters(), 0.1)
        failed.at = (3, 4)
        run_with_failures(failed, first, 4)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        x, y = data()
        for _ in range(20):
            F.cross_entropy(model(x[:16]), y[:16]).backward()  # nothing zeroes the gradients
            optimizer.step()
    assert loud(doctor)[:1] == ["stale-grad"]
    assert doctor.report().steps == 21  # one step tells a new turn from a pair


def test_a_step_that_calls_its_parents_is_one():
    with watch() as doctor:
        x, y = data()
        for kind in (torch.optim.SGD, Fails):  # once SGD was made, its own step calls the hooks
            model = mlp()
            optimizer = kind(model.parameters(), 0.1)
            for _ in range(10):
                one_step(model, optimizer, x[:16], y[:16])
    assert [o.steps for o in doctor.watcher.seen.optimizers] == [10, 10]
    assert loud(doctor) == []


def test_fast_paths_of_transformers_stay_fast():
    """A frozen encoder in evaluation mode takes its fused path in training steps, too."""
    kinds = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
    before = [kind.forward for kind in kinds]

    def scores(watched):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
        encoder.requires_grad_(False)
        head = nn.Linear(16, 4)
        optimizer = torch.optim.SGD(head.parameters(), 0.1)
        x, y = torch.randn(60, 5, 16), torch.arange(60) % 4
        found = []
        for i in range(12):
            features = encoder(x[i : i + 40])
            found.append(features.clone())
            one_step(head, optimizer, features.mean(1), y[i : i + 40])
            with torch.no_grad():
                found.append(encoder(x))
            if watched and i == 0:
                assert [kind.forward for kind in kinds] != before
        return found

    plain = scores(False)
    with watch():
        seen = scores(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    assert [kind.forward for kind in kinds] == before


def test_devices_not_in_use_yet_keep_the_seed_that_they_will_get(monkeypatch):
    queued = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", queued.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", queued.append)
    model, (x, y) = mlp(), data()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    torch.manual_seed(7)
    with watch() as doctor:
        for i in range(8):
            one_step(model, optimizer, x[i * 8 : i * 8 + 8], y[i * 8 : i * 8 + 8])
    assert (queued, loud(doctor)) == ([7], [])
