"""Read whole batches of a dataset, in workers or here, and say what went wrong when it does."""

from __future__ import annotations

import random
import re
import signal
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from brickyard.errors import DataError, UserError

#: What becomes of a sample that cannot be read.
POLICIES = ("stop", "skip")

_MASK = (1 << 64) - 1


def mix_seed(*numbers: int) -> int:
    """Return a seed that depends on all numbers and their order (63 bits, splitmix64).

    Math:
        h <- splitmix64(h xor n) for every n, h = 0 at the start; the seed is h >> 1

    Args:
        numbers: such as the run's seed, the epoch and the batch.

    Example:
        >>> mix_seed(0, 1) != mix_seed(1, 0)
        True

    Reference:
        Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, fig. 19
        (mix64variant13).
    """
    h = 0
    for number in numbers:
        h = ((h ^ (number & _MASK)) + 0x9E3779B97F4A7C15) & _MASK
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK
        h ^= h >> 31
    return h >> 1


class Unreadable:
    """Keep which samples could not be read, and why.

    Args:
        found: reasons by split and sample, such as ``{"train 17": "OSError: ..."}``.
    """

    def __init__(self, found: Mapping[str, str] | None = None):
        self.found = dict(found or {})

    def add(self, split: str, samples: Mapping[int, str]) -> None:
        """Note samples of a split."""
        self.found |= {f"{split} {i}": why for i, why in samples.items()}

    def __len__(self) -> int:
        """Return how many different samples there are."""
        return len(self.found)

    def sentence(self) -> str:
        """Return what to tell; empty when all samples could be read."""
        if not self.found:
            return ""
        first, why = next(iter(self.found.items()))
        many = f"{len(self)} samples" if len(self) > 1 else "1 sample"
        return f"{many} could not be read and were skipped; the first: {first} ({why})"


def _innermost(batches: Any) -> Any:
    while hasattr(batches, "inner"):
        batches = batches.inner
    return batches


def unreadable_in(*many: Any) -> Unreadable:
    """Return what all of these batches could not read so far."""
    together = Unreadable()
    for one in map(_innermost, many):
        together.found |= getattr(one, "unreadable", together).found
    return together


def note_unreadable(batches: Any, found: Mapping[str, str]) -> None:
    """Tell batches what they could not read before a resume."""
    inner = _innermost(batches)
    if hasattr(inner, "unreadable"):
        inner.unreadable.found |= found


def close_batches(batches: Any) -> None:
    """End the processes of batches that have some."""
    close = getattr(_innermost(batches), "close", None)
    if close is not None:
        close()


class Reader(Dataset[Any]):
    """Read whole batches of a dataset, with random numbers that depend on the batch alone.

    An item is a batch with the reasons of samples that were skipped, or an error to raise.

    Args:
        dataset: of pairs (x, y).
        seed: of all random numbers.
        on_error: ``"stop"`` or ``"skip"``.
    """

    def __init__(self, dataset: Dataset[Any], seed: int, on_error: str = "stop"):
        self.dataset = dataset
        self.seed = seed
        self.on_error = on_error

    def __getitem__(self, request: tuple[int, int, list[int]]) -> Any:
        """Return the batch ``(epoch, index, samples)``."""
        epoch, index, samples = request
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        seed = mix_seed(self.seed, epoch, index)
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        random.seed(seed)
        try:
            return self._read(epoch, index, samples)
        except UserError as error:  # told whole, not wrapped in a worker's traceback
            return error
        finally:
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])
            random.setstate(before[2])

    def _read(self, epoch: int, index: int, samples: list[int]) -> Any:
        read, skipped = [], dict[int, str]()
        for i in samples:
            try:
                read.append(self.dataset[i])
            except Exception as error:
                if self.on_error == "stop":
                    raise unreadable(i, error) from error
                skipped[i] = short(error)
        if not read:
            raise DataError(
                f"no sample of batch {index} of epoch {epoch} can be read; the first: "
                f"{next(iter(skipped.values()))}; on_error: skip needs one in every batch"
            )
        return default_collate(read), skipped


def short(error: Exception) -> str:
    """Return type and first line of an error."""
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text}"[:200]


def unreadable(sample: int, error: Exception) -> UserError:
    """Return the error that names the sample; the dataset's own messages stay as they are."""
    if isinstance(error, UserError):
        return error
    told = DataError(
        f"sample {sample} cannot be read ({short(error)}); repair or remove it, or set "
        "on_error: skip to train without such samples"
    )
    # a cause does not travel from a worker's process; a note does
    told.add_note("".join(traceback.format_exception(error)))
    return told


@contextmanager
def explaining_deaths(where: str = "", workers: Mapping[int | None, Any] | None = None
                      ) -> Iterator[None]:  # fmt: skip
    """Turn what torch raises when a worker process dies into a sentence; it may come anywhere.

    Args:
        where: such as ``"while batch 3 of epoch 0 was awaited"``.
        workers: processes by their ids, whose exit codes tell more.

    Raises:
        DataError: a worker died.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        known, message = workers or {}, str(error)
        if not isinstance(error, RuntimeError):  # what it had sent cannot be fetched any more
            dead = [pid for pid, process in known.items() if _exit_code(process)]
            message = f"DataLoader worker (pid {dead[0]})" if dead else ""
        told = explain_death(message, where, known)
        if not told:
            raise
        raise DataError(told) from error


def explain_death(message: str, where: str, workers: Mapping[int | None, Any]) -> str:
    """Return what happened to a worker and what to do; empty if the message is on something else.

    Args:
        message: of torch's error.
        where: when it was noticed.
        workers: processes by their ids.
    """
    found = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)(.*)", message)
    if found is None:
        return ""
    codes = [_exit_code(workers.get(int(pid))) for pid in found[1].split(",")]
    told = re.search(r"exit code (\d+)", found[2])
    code = next((c for c in codes if c), int(told[1]) if told else 0)
    if code == -signal.SIGKILL or "signal: Killed" in found[2]:
        what = "was killed (SIGKILL), as systems do when memory runs out"
        remedy = "lower workers, prefetch or batch_size"
    elif code == -signal.SIGBUS or "signal: Bus error" in found[2]:
        what = "ran out of shared memory (SIGBUS)"
        remedy = "give the system more (docker: --shm-size), or lower workers or prefetch"
    elif code == -signal.SIGTERM or "signal: Terminated" in found[2]:
        what = "was asked to end from outside (SIGTERM)"
        remedy = "ask the training process instead, which stops after its step and saves"
    elif code < 0 or "by signal: " in found[2]:
        how = signal.Signals(-code).name if code else found[2].partition("by signal: ")[2]
        what = f"crashed ({how.strip(' .')})"
        remedy = "look for a native library in the dataset that does not stand being forked"
    else:
        what = f"ended itself (exit code {code})" if code else "ended without an answer"
        remedy = "look for what in the dataset leaves the process"
    return (
        f"the worker process {found[1]}, which reads data, {what}{where and ' '}{where}; {remedy}, "
        "or take workers: 0 to read in the training process; the checkpoints are intact: "
        "brickyard resume RUN"
    )


def _exit_code(process: Any) -> int:
    if process is None:
        return 0
    process.join(1)
    return process.exitcode or 0
