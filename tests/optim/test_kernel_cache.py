"""Kernels are built once, found again, rebuilt when damaged, and never needed to train."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import warm

from brickyard import compiler, optim
from brickyard.optim import Optimizer, backends, chain, clip_by_global_norm, decay, engine
from brickyard.optim.backends import native

needs_compiler = pytest.mark.skipif(not compiler.command(), reason="no C compiler")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Forget every plan and kernel of this process, and keep new ones in a folder of this test."""
    monkeypatch.setattr(engine, "_PLANS", {})
    monkeypatch.setattr(native, "_KERNELS", {})
    monkeypatch.setattr(backends, "_SAID", set())
    monkeypatch.setenv("BRICKYARD_CACHE", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the list of kernels that the compiler was called for."""
    calls: list[str] = []
    real = compiler._build

    def counted(words: Any, text: str, place: Path, name: str) -> Any:
        calls.append(name)
        return real(words, text, place, name)

    monkeypatch.setattr(compiler, "_build", counted)
    return calls


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do as a new process would: only the folder is left."""
    monkeypatch.setattr(engine, "_PLANS", {})
    monkeypatch.setattr(native, "_KERNELS", {})


def one_step(**options: Any) -> tuple[torch.Tensor, Optimizer]:
    w = torch.nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3))
    w.grad = torch.linspace(2, -3, 6).reshape(2, 3)
    optimizer = optim.AdamW([w], lr=0.1, **options)
    optimizer.step()
    return w.detach().clone(), optimizer


@needs_compiler
def test_a_second_process_finds_what_the_first_has_built(
    fresh: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, optimizer = one_step()
    assert "backend  native" in optimizer.explain()
    assert len(built) == 1
    assert sorted(p.suffix for p in fresh.iterdir()) == [".so", ".sum"]
    forget(monkeypatch)
    again, _ = one_step()
    assert len(built) == 1
    assert torch.equal(first, again)


@needs_compiler
@pytest.mark.parametrize("damage", ["cut", "changed", "digest gone", "digest garbage", "empty"])
def test_a_damaged_entry_is_rebuilt(
    fresh: Path, built: list[str], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    first, _ = one_step()
    (library,), (digest,) = fresh.glob("*.so"), fresh.glob("*.sum")
    body = library.read_bytes()
    other = fresh / "other"  # a new file: this process has the old one mapped
    other.write_bytes({"cut": body[: len(body) // 2], "empty": b"",
                       "changed": body[:-100] + b"x" + body[-99:]}.get(damage, body))  # fmt: skip
    os.replace(other, library)
    if damage.startswith("digest"):
        digest.unlink()
    if damage == "digest garbage":
        digest.write_bytes(b"\xff\x00")
    forget(monkeypatch)
    again, optimizer = one_step()
    assert len(built) == 2
    assert torch.equal(first, again)
    assert "backend  native" in optimizer.explain()
    forget(monkeypatch)
    one_step()
    assert len(built) == 2  # and the new entry is whole


@needs_compiler
def test_two_processes_may_build_the_same_at_the_same_time(fresh: Path, tmp_path: Path) -> None:
    program = (
        "import torch\n"
        "from brickyard import optim\n"
        "w = torch.nn.Parameter(torch.ones(2, 3)); w.grad = torch.ones(2, 3)\n"
        "optimizer = optim.AdamW([w], lr=0.1); optimizer.step()\n"
        "assert 'backend  native' in optimizer.explain()\n"
        "print(w.sum().item())\n"
    )
    outs = [tmp_path / name for name in ("one", "two")]
    found = [warm.start(["-c", program], out=str(out), errors=[Warning]) for out in outs]
    for process in found:
        process.join()
    assert [process.exitcode for process in found] == [0, 0]
    said = [out.read_text() for out in outs]
    assert said[0]
    assert said[0] == said[1]
    assert sorted(p.suffix for p in fresh.iterdir()) == [".so", ".sum"]  # nothing half made is left


@pytest.mark.parametrize("command", ["", "no-such-compiler", "false"])
def test_without_a_working_compiler_foreach_runs_and_says_so_once(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("BRICKYARD_CC", command)
    expected, _ = one_step(backend="foreach")
    with pytest.warns(UserWarning, match="native optimizers are off, foreach runs") as caught:
        found, optimizer = one_step()
    assert len(caught) == 1
    assert torch.equal(found, expected)
    reason = "refused the kernel" if command == "false" else "no C compiler found"
    assert f"backend  foreach ({reason}" in optimizer.explain().replace("(false ", "(")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_step()


@needs_compiler
def test_a_folder_that_cannot_be_written_still_trains_natively(
    fresh: Path, built: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("no folder can be made here", encoding="utf-8")
    monkeypatch.setenv("BRICKYARD_CACHE", str(blocked / "kernels"))
    first, optimizer = one_step()
    assert "backend  native" in optimizer.explain()
    optimizer.step()
    assert len(built) == 1
    monkeypatch.setenv("BRICKYARD_CACHE", str(fresh))
    forget(monkeypatch)
    assert torch.equal(first, one_step()[0])


@needs_compiler
def test_a_read_only_folder_gives_what_it_has(
    fresh: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = one_step()
    forget(monkeypatch)

    def refuse(*args: Any, **options: Any) -> Any:
        raise PermissionError("read-only")

    monkeypatch.setattr(compiler.os, "replace", refuse)
    assert torch.equal(first, one_step()[0])
    assert len(built) == 1
    forget(monkeypatch)
    other = one_step(amsgrad=True)[1]  # not there: built for this process only
    assert "backend  native" in other.explain()
    assert len(list(fresh.iterdir())) == 2


@needs_compiler
def test_numbers_never_rebuild(fresh: Path, built: list[str]) -> None:
    """Rates, betas, decay, the step, the loss scale: whatever is a number is read, not compiled."""
    params = [torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.ones(5))]
    optimizer = optim.AdamW([{"params": [p]} for p in params], lr=lambda k: 0.1 / (k + 1))
    traced = []
    for step in range(20):
        for p in params:
            p.grad = torch.full_like(p, 1.0 + step)
        for group in optimizer.param_groups:
            group["betas"] = (0.9 - 0.01 * step, 0.999 - 0.001 * step)
            group["weight_decay"] = 0.1 + 0.01 * step
            group["eps"] = 1e-8 * (step + 1)
        optimizer.step()
        traced.append(len(engine._PLANS))
    assert len(built) == 1
    assert set(traced) == {1}


@needs_compiler
def test_structure_is_built_once_and_kept(fresh: Path, built: list[str]) -> None:
    """Climbing, scaling and decay that is switched off need other kernels: one each, for good."""
    p = torch.nn.Parameter(torch.ones(4, 3))
    q = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = optim.AdamW([{"params": [p]}, {"params": [q]}], lr=0.1)
    for step in range(12):
        p.grad, q.grad = torch.ones(4, 3), torch.ones(4, 3)
        optimizer.param_groups[0]["maximize"] = step % 4 == 1
        optimizer.param_groups[1]["maximize"] = step % 4 in (1, 2)
        optimizer.step()
    assert len(built) == 2  # with a factor before the gradient, and without
    optimizer.param_groups[1]["weight_decay"] = 0.0
    optimizer.step()
    optimizer.step()
    assert len(built) == 3


@needs_compiler
def test_flags_and_the_machine_belong_to_the_key(
    fresh: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_step()
    for name, value in (("FLAGS", (*compiler.FLAGS, "-DOTHER")), ("_machine", lambda: "another")):
        forget(monkeypatch)
        monkeypatch.setattr(compiler, name, value)
        one_step()
    assert len(set(built)) == 3


@needs_compiler
def test_chains_that_differ_in_numbers_share_a_kernel(fresh: Path, built: list[str]) -> None:
    for bound, share in ((1.0, 0.1), (2.0, 0.3)):
        p = torch.nn.Parameter(torch.ones(3, 3))
        p.grad = torch.ones(3, 3)
        pieces = chain(clip_by_global_norm(bound), decay(share))
        Optimizer([p], pieces, lr=0.1 * bound).step()
    assert len(built) == 1
