"""Progress: loss, rate, throughput and time left on a terminal; whole lines in a file."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from brickyard.train.progress import ProgressLines


def loop_at(step):
    return SimpleNamespace(state=SimpleNamespace(step=step), training={}, epochs=lambda: step / 50,
                           parts=SimpleNamespace(total=100, epoch_steps=50))  # fmt: skip


def shown(width, terminal, monkeypatch):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("brickyard.train.progress.monotonic", lambda: next(clock))
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, highlight=False)
    progress = ProgressLines(console, batch_size=8)
    progress.start(100)
    progress.logged(loop_at(40), {"loss": 1.25, "lr": 3e-4})
    progress.evaluated(loop_at(50), {"loss": 1.5, "accuracy": 0.5}, True)
    progress.stop()
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_terminal_shows_loss_rate_throughput_and_time_left(width, monkeypatch):
    text = shown(width, True, monkeypatch)
    for part in ("40/100", "loss 1.25", "lr 3.0e-04", "/s", ":"):
        assert part in text


def test_a_file_gets_a_line_for_each_evaluation(monkeypatch):
    text = shown(60, False, monkeypatch)
    assert len(text.splitlines()) == 1, "no bar, and no line torn in two"
    assert text.startswith("epoch 1/2  train loss 1.2500  val loss 1.5000  val accuracy 0.5000")
    assert text.endswith("samples/s  *\n")
