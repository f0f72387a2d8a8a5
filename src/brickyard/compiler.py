"""Build C text to a shared library: once per text, on disk, safe under concurrent processes.

Nothing but the system's compiler is needed. ``BRICKYARD_CC`` names another compiler (an empty
value: none), ``BRICKYARD_CACHE`` another folder for what is built.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno",
         "-fno-trapping-math", "-fPIC", "-shared")  # fmt: skip


class BuildError(RuntimeError):
    """The compiler is missing or refuses."""


def command() -> list[str]:
    """Return the compiler's command; empty when there is none."""
    named = os.environ.get("BRICKYARD_CC", os.environ.get("CC") if "BRICKYARD_CC" not in os.environ
                           else None)  # fmt: skip
    for name in [named] if named is not None else ["cc", "gcc", "clang"]:
        words = shlex.split(name)
        if words and shutil.which(words[0]):
            return words
    return []


def folder() -> Path:
    """Return where built libraries are kept."""
    named = os.environ.get("BRICKYARD_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "brickyard" / "kernels"


@cache
def openmp() -> tuple[str, ...]:
    """Return linker words that bind to the OpenMP library torch runs on, if it is GNU's.

    One process with two OpenMP libraries has two pools of threads that fight for the cores.
    """
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return ("-fopenmp",)
    for line in maps.splitlines():
        path = line.split(maxsplit=5)[-1] if len(line.split(maxsplit=5)) == 6 else ""
        if Path(path).name.startswith("libgomp") and Path(path).exists():
            return ("-fopenmp", path)
    return ("-fopenmp",)


@cache
def _machine() -> str:
    """Return what ``-march=native`` means here: folders may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kept = sorted({x for x in lines if x.startswith(("flags", "Features", "model name"))})
    except OSError:
        kept = [platform.processor()]
    return "\n".join([platform.machine(), platform.system(), *kept])


@cache
def version(words: tuple[str, ...]) -> str:
    """Return the first line that a compiler says about itself."""
    done = subprocess.run([*words, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def load(text: str, *flags: str) -> ctypes.CDLL:
    """Return the library built from C text, from the cache if it is there.

    Args:
        text: the whole C file.
        flags: more words for the compiler.

    Raises:
        BuildError: no compiler, or it refuses the text; the message holds what it said.
    """
    words = command()
    if not words:
        raise BuildError("no C compiler found (looked for BRICKYARD_CC, CC, cc, gcc, clang): "
                         "install one for speed")  # fmt: skip
    said = version(tuple(words))
    words = [*words, *FLAGS, *flags]
    about = "\n".join([text, *words, said, _machine(), *openmp()])
    name = hashlib.sha256(about.encode()).hexdigest()[:32]
    try:
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        found = _open(place / f"{name}.so", place / f"{name}.sum")
        return found or _build(words, text, place, name)
    except OSError as error:  # a folder that cannot be written: build for this process only
        with tempfile.TemporaryDirectory(prefix="brickyard-") as private:
            try:
                return _build(words, text, Path(private), name)
            except OSError:
                raise BuildError(f"cannot write the built library: {error}") from None


def _open(library: Path, digest: Path) -> ctypes.CDLL | None:
    """Return a cached library; None where it is missing or damaged (loading that could crash)."""
    try:
        wanted = digest.read_text(encoding="ascii")
        if hashlib.sha256(library.read_bytes()).hexdigest() != wanted:
            return None
        return ctypes.CDLL(str(library))
    except (OSError, UnicodeDecodeError):
        return None


def _build(words: list[str], text: str, place: Path, name: str) -> ctypes.CDLL:
    """Build in a private folder, then rename: a reader never sees half a file."""
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=place) as private:
        source, made = Path(private) / "kernel.c", Path(private) / f"{name}.so"
        source.write_text(text, encoding="ascii")
        tries = [[*words, openmp()[0], str(source), "-o", str(made), *_link()],
                 [*words, str(source), "-o", str(made), "-lm"]]  # fmt: skip
        said = ""
        for line in tries:
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
            said = said or done.stderr.strip()
        else:
            raise BuildError(f"{words[0]} refused the kernel: {said[-2000:]}")
        body = made.read_bytes()
        library = ctypes.CDLL(str(made))
        with contextlib.suppress(OSError):  # a full disk: the library is loaded, others build anew
            digest = Path(private) / "sum"
            digest.write_text(hashlib.sha256(body).hexdigest(), encoding="ascii")
            os.replace(made, place / f"{name}.so")
            os.replace(digest, place / f"{name}.sum")
        return library


def _link() -> list[str]:
    return [*openmp()[1:], "-lm"]
