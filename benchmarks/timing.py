"""Measure several ways of doing the same, turn by turn, so that drift of the machine cancels."""

import platform
import statistics
import sys
import time

import torch


def interleave(ways, rounds, warmup=1):
    """Run each way ``rounds`` times in turn; return the seconds of every run by name.

    Args:
        ways: functions by name; each returns nothing, or the seconds it took by its own count.
        rounds: counted runs of each.
        warmup: runs of each that are not counted.
    """
    seconds = {name: [] for name in ways}
    for turn in range(warmup + rounds):
        # in both directions, so that nobody always follows the one that fills the caches
        for name, way in list(ways.items())[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            own = way()
            took = time.perf_counter() - start if own is None else own
            if turn >= warmup:
                seconds[name].append(took)
    return seconds


def ratio(seconds, name, base):
    """Return the median of the ratios of runs that stood next to each other."""
    pairs = zip(seconds[name], seconds[base], strict=True)
    return statistics.median(a / b for a, b in pairs)


def print_machine():
    """Print what the figures were measured on."""
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}, {sys.platform}"
    )
