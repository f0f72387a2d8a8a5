"""Export a run's best weights: safetensors, a program that needs only torch, and a model card.

Everything is written beside the place where it shall be, read back and compared on validation
samples, and only then moved there in one step.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from brickyard import catalog, yamls
from brickyard.doctor.observe.tensors import tensors
from brickyard.errors import RunError
from brickyard.runs import RECIPE, RunFolder, sync_folder
from brickyard.train.checkpoint import Checkpoints
from brickyard.train.data import Data, Split, batches
from brickyard.train.make import make, place
from brickyard.train.manifest import checksum
from brickyard.train.program import PROGRAM, NoProgram, write_program
from brickyard.train.recipe import Recipe, resolve
from brickyard.train.tasks import Task, task_for
from brickyard.version import __version__

if TYPE_CHECKING:
    from brickyard.train.recipe import Resolved

__all__ = ["FORMATS", "Exported", "best_model", "export_run", "load_exported"]

FORMATS = ("safetensors", "pt2")
WEIGHTS, CARD = "model.safetensors", "README.md"
_KEY = "brickyard"
#: Facts on the data without which tasks cannot build a model.
_FACTS = ("environment",)
_SAMPLES = 64


@dataclass
class Exported:
    """Hold what was exported and what was found when reading it back.

    Args:
        folder: where it is.
        files: name to SHA-256.
        checks: what was compared, a sentence each.
        warnings: what could not be had, a sentence each.
        facts: what the card is made of.
    """

    folder: Path
    files: dict[str, str] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def export_run(
    run: str | Path, out: str | Path | None = None, formats: tuple[str, ...] = FORMATS
) -> Exported:
    """Export a run's best weights into a folder that stands for itself.

    Args:
        run: the run folder.
        out: the folder to make; ``RUN/export`` when left out. An older export there is replaced.
        formats: any of ``"safetensors"`` and ``"pt2"``. When both are asked for and the model has
            no program, the rest is exported and the reason is in ``warnings`` and in the card.

    Raises:
        RunError: no weights, weights of another model, a folder that holds something else, or a
            file that gives other outputs when read back.
        RecipeError: the run's data or model cannot be built here.
    """
    folder = RunFolder.open(run)
    environment = folder.environment()
    root = Path(environment.get("recipe_folder", "."))
    resolved = resolve(folder.recipe(), source=str(folder.path / RECIPE), root=root)
    target = Path(out) if out is not None else folder.path / "export"
    _check_target(target)
    data, model, about, told = best_model(folder, resolved)
    task = _task(resolved.recipe, data)
    samples = _samples(data, resolved.recipe)
    whole, x = task.exported(model, samples)
    made = Exported(target, warnings=told)
    made.facts = {"run": folder, "about": about, "data": data, "recipe": resolved.recipe,
                  "environment": environment, "summary": folder.summary(), "input": x,
                  "model": model, "task": task}  # fmt: skip
    try:
        with _appearing(target) as fresh:
            if "safetensors" in formats:
                _write_weights(fresh / WEIGHTS, model, resolved.recipe, data)
                again = load_exported(fresh / WEIGHTS, trust_code=True)
                other, _ = task.exported(again, samples)
                made.checks.append(_check_weights((model, whole), (again, other), x))
            if "pt2" in formats:
                try:
                    made.checks.append(write_program(fresh / PROGRAM, whole, x))
                except NoProgram as error:
                    (fresh / PROGRAM).unlink(missing_ok=True)
                    if formats == ("pt2",):
                        raise RunError(f"no {PROGRAM}: {error}") from error
                    made.warnings.append(f"no {PROGRAM}: {error}")
            text = yamls.dump(resolved.recipe.to_dict())
            (fresh / RECIPE).write_text(text, encoding="utf-8")
            made.files = {path.name: checksum(path) for path in sorted(fresh.iterdir())}
            from brickyard.train.model_card import write_card

            write_card(fresh / CARD, made)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror or error}") from error
    return made


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise RunError(f"{target} is a file; give --out a folder")
    inside = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if inside - {WEIGHTS, PROGRAM, CARD, RECIPE} or (inside and CARD not in inside):
        raise RunError(f"{target} holds something else than an export; give another --out")


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Yield a folder that is moved to ``target``, whole, at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    try:
        yield fresh
        for path in fresh.iterdir():
            path.chmod(0o644)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        fresh.chmod(0o755)
        sync_folder(fresh)
        if target.exists():
            old = fresh.with_name(f"{fresh.name}.old")
            os.replace(target, old)
            os.replace(fresh, target)
            shutil.rmtree(old)
        else:
            os.replace(fresh, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def best_model(
    folder: RunFolder, resolved: Resolved
) -> tuple[Data, nn.Module, dict[str, Any], list[str]]:
    """Return data, the model with the best weights, what is known of them, and warnings."""
    from brickyard.train.setup import build_data

    told: list[str] = []
    checkpoints = Checkpoints(folder.checkpoints)
    try:
        state, warning = checkpoints.load_best()
    except RunError as error:
        state, warning = checkpoints.load_last()
        told.append(f"{error}; the last weights are exported instead, of step {state['step']}")
    if warning:
        told.append(warning)
    data = build_data(resolved)
    model = _build(resolved.recipe, data)
    if "shards" in state:  # resume points of several processes with fsdp; the best are whole
        from brickyard.train.shards import unpack

        state = unpack(state, checkpoints.folder, model)
    _fill(model, state["model"], str(folder.path))
    about = {k: state[k] for k in ("step", "epoch", "val", "metric", "value") if k in state}
    return data, model.eval(), about, told


def _task(recipe: Recipe, data: Data) -> Task:
    card = None if recipe.loss.target else catalog.get(recipe.loss.name, "loss")
    return task_for(recipe, data, card)


def _build(recipe: Recipe, data: Data) -> nn.Module:
    task = _task(recipe, data)
    with place("model"):
        return task.build(partial(make, recipe.model, "model"), data)


def _fill(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(f"the weights of {source} do not fit the recipe's model: {reason}") from None


def _samples(data: Data, recipe: Recipe) -> Any:
    """Return some validation samples as the model gets them."""
    size = min(_SAMPLES, len(data.val), recipe.eval_batch_size)
    return next(iter(batches(data.val, size, shuffle=False, seed=recipe.seed).epoch(0)))[0]


def _write_weights(path: Path, model: nn.Module, recipe: Recipe, data: Data) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[Any, str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise RunError(f"{name} of the model is no tensor, which safetensors cannot hold")
        key = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape,
               value.stride(), value.dtype) if value.numel() else name  # fmt: skip
        if key in first:
            tied[name] = first[key]
        else:
            first[key] = name
            tensors[name] = value.detach().cpu().contiguous().clone()
    about = {
        "version": __version__, "recipe": recipe.to_dict(), "tied": tied,
        "data": {
            "name": data.name, "task": data.task, "input_shape": list(data.input_shape),
            "outputs": data.outputs, "classes": list(data.classes),
            "target_mean": _plain(data.target_mean), "target_std": _plain(data.target_std),
            **{k: data.facts[k] for k in _FACTS if k in data.facts},
        },
    }  # fmt: skip
    save_file(tensors, path, metadata={"format": "pt", _KEY: json.dumps(about)})


def _plain(value: float | Tensor) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def load_exported(path: str | Path, trust_code: bool = False) -> nn.Module:
    """Rebuild an exported model with its weights, in eval mode, on the CPU.

    The file says what the model is; no data set, recipe file or run folder is needed. Models and
    tasks named by ``target:`` are code of their author's, which is imported and called with what
    the file says: that is refused unless you trust where the file comes from.

    Args:
        path: the export folder, or its ``model.safetensors``.
        trust_code: import what the file names by ``target:``.

    Raises:
        RunError: no such file, not written by ``brickyard export``, or weights that do not fit.

    Example:
        >>> load_exported("nowhere")
        Traceback (most recent call last):
        brickyard.errors.RunError: no model.safetensors at nowhere; give an export folder
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise RunError(f"no {WEIGHTS} at {path}; give an export folder")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(f"{file} is damaged or no safetensors file ({error})") from None
    if _KEY not in metadata:
        raise RunError(f"{file} was not written by `brickyard export`: it does not say its model")
    about = json.loads(metadata[_KEY])
    recipe = Recipe.model_validate(about["recipe"])
    if not trust_code:
        _refuse_code(about["recipe"], file)
    model = _build(recipe, _stand_in(about["data"]))
    tied = {name: tensors[kept] for name, kept in about["tied"].items()}
    _fill(model, {**tensors, **tied}, str(file))
    return model.eval()


def _refuse_code(recipe: Mapping[str, Any], file: Path) -> None:
    for part in ("model", "task", "loss"):
        for target in _targets(recipe.get(part)):
            raise RunError(
                f"the {part} in {file} is {target!r}, code that this would import and call; if you "
                "trust where the file comes from: load_exported(path, trust_code=True)"
            )


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("target"), str) and ":" in value["target"]:
            yield value["target"]
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from _targets(one)


def _stand_in(about: Mapping[str, Any]) -> Data:
    """Return what tasks ask of the data, without samples."""
    shape = tuple(about["input_shape"])
    empty = Split(torch.zeros(1, *shape), torch.zeros(1, dtype=torch.int64))
    return Data(about["name"], about["task"], empty, empty, shape, about["outputs"],
                tuple(about["classes"]), facts={k: about[k] for k in _FACTS if k in about}
                )  # fmt: skip


@torch.no_grad()
def _check_weights(
    mine: tuple[nn.Module, nn.Module], new: tuple[nn.Module, nn.Module], x: Any
) -> str:
    """Compare a model and what others use of it with the same two of weights that were read back.

    All tensors must be equal, and outputs bit for bit.
    """
    kept, read = (pair[0].state_dict() for pair in (mine, new))
    told = f"`{WEIGHTS}`: read back into a new model, all {len(kept)} tensors are equal"
    try:
        wanted = tensors(mine[1](x))
        told += f", and outputs for {len(x)} samples bit for bit"
    except Exception:  # a model of the user's own that only a task of the user's own can call
        wanted = []
    found = tensors(new[1](x)) if wanted else []
    if len(wanted) != len(found) or any(
        not torch.equal(a, b) for a, b in zip(wanted, found, strict=True)
    ):
        raise RunError(f"{WEIGHTS} gives other outputs when read back than the run's best weights")
    if kept.keys() != read.keys() or any(not torch.equal(kept[k], read[k]) for k in kept):
        raise RunError(f"{WEIGHTS} holds other weights when read back than the run's best ones")
    return told
