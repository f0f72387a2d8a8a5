"""Describe where a run happened, so that somebody can repeat it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from brickyard.version import __version__

_PACKAGES = ("numpy", "torchmetrics", "scikit-learn", "mlxtend", "pandas", "pyarrow", "pillow")


def describe_environment(root: Path, git: tuple[str, bool]) -> dict[str, Any]:
    """Return versions, machine, git commit and command line.

    Args:
        root: folder of the recipe; its git commit is noted, and relative paths start there.
        git: what :func:`asking_git` found.
    """
    commit, changes = git
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "recipe_folder": str(root.resolve()),
        "brickyard": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "packages": dict(_versions()),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "git_commit": commit,
        "git_changes": changes,
    }


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@contextmanager
def asking_git(root: Path) -> Iterator[Callable[[], tuple[str, bool]]]:
    """Ask git, which takes a while, beside what the block does.

    Args:
        root: a folder.

    Yields:
        What returns the commit that the folder stands at, "" for none, and whether files differ.
    """
    # Without the flag git writes the index anew, and being killed at it leaves its lock behind.
    words = ["git", "--no-optional-locks", "-C", str(root), "status", "--porcelain=v2", "--branch"]
    try:
        asked = subprocess.Popen(
            [*words, "--untracked-files=no"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except OSError:  # no git here
        yield lambda: ("", False)
        return

    def answer() -> tuple[str, bool]:
        said = list[str]()
        with suppress(OSError, subprocess.SubprocessError):
            said = asked.communicate(timeout=5)[0].splitlines()
        known = [line.split()[2] for line in said if line.startswith("# branch.oid ")]
        if not known:  # a bare repository, a damaged index, a very large one
            return _head(root), False
        commit = known[0] if known[0] != "(initial)" else ""
        return commit, any(not line.startswith("#") for line in said)

    with asked:
        try:
            yield answer
        finally:
            if asked.poll() is None:
                asked.kill()


def _head(root: Path) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        words = ["git", "-C", str(root), "rev-parse", "HEAD"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=5, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""
