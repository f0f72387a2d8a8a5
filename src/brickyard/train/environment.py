"""Describe where a run happened, so that somebody can repeat it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from brickyard.version import __version__

_PACKAGES = ("numpy", "torchmetrics", "scikit-learn", "mlxtend", "pandas", "pyarrow", "pillow")


def describe_environment(root: Path) -> dict[str, Any]:
    """Return versions, machine, git commit and command line.

    Args:
        root: folder of the recipe; its git commit is noted, and relative paths start there.
    """
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
        "git_commit": _git(root, "rev-parse", "HEAD"),
        "git_changes": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
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


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
