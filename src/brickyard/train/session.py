"""Train a recipe into a run folder, resume it, and write down how it went."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter as now
from typing import Any

import numpy as np
import torch
from torch import nn

from brickyard.errors import RunError
from brickyard.regularize import Ensemble
from brickyard.runs import ENVIRONMENT, GROUPS, SUMMARY, TELEMETRY, MetricsWriter, RunFolder
from brickyard.train.checkpoint import Checkpoints
from brickyard.train.data.reading import Unreadable, explaining_deaths, unreadable_in
from brickyard.train.environment import asking_git, describe_environment
from brickyard.train.fit import in_words, loss_told
from brickyard.train.keeping import Keeper
from brickyard.train.loggers import Rows, RunFacts
from brickyard.train.loop import PHASES, Loop, State
from brickyard.train.memory import memory_told
from brickyard.train.profiling import TRACE, profiled
from brickyard.train.progress import ProgressLines
from brickyard.train.recipe import Recipe, Resolved, load, resolve
from brickyard.train.regularizing import what_they_did
from brickyard.train.setup import Setup, build_setup
from brickyard.train.snapshot import join, restore
from brickyard.train.together import explained, leave, open_folder, ranks_of, run_folder
from brickyard.train.watching import Watching


@dataclass(frozen=True)
class Result:
    """Hold what a run ended with.

    Args:
        run: its folder.
        model: the network with its best weights.
        summary: what ``summary.json`` says.
        ensemble: of the snapshots along the run, or of other runs and this one, when the recipe
            asks for it.
    """

    run: RunFolder
    model: nn.Module
    summary: dict[str, Any]
    ensemble: Ensemble | None = None


def train(
    recipe: str | Path | Recipe | Mapping[str, Any] | Resolved,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    progress: ProgressLines | None = None,
    profile: int = 0,
) -> Result:
    """Train a recipe and return the model with its best weights.

    Args:
        recipe: a YAML file, a :class:`Recipe`, or its content as a mapping.
        overrides: such as ``"optimizer.lr=1e-3"``; for files only.
        out: the run folder; ``runs/NAME/TIME`` when left out.
        progress: who shows it; lines on standard error by default.
        profile: steps to record into ``profile.json``, a Chrome trace in the run folder; the
            operations that took most time are printed.

    Raises:
        RecipeError: the recipe is wrong.
        RunError: the run folder holds something, or cannot be made.

    Example:
        >>> import tempfile
        >>> recipe = Recipe(data="digits", model="mlp", loss="cross_entropy",
        ...                 metrics=["accuracy"], budget="2ep")
        >>> result = train(recipe, out=tempfile.mkdtemp())
        >>> result.summary["exit_reason"]
        'budget'
    """
    started = now()
    if isinstance(recipe, str | Path):
        resolved = load(recipe, overrides)
    elif isinstance(recipe, Resolved):
        resolved = recipe
    else:
        resolved = resolve(recipe)
    ranks = ranks_of(resolved.recipe)
    if out is not None and ranks is None:
        RunFolder.refuse_used(out)  # before minutes may go into reading the data
    with asking_git(resolved.root) as git:
        setup = build_setup(resolved, ranks)
        environment = describe_environment(resolved.root, git())
    watch = profiled(setup.parts, profile) if profile else None
    with run_folder(resolved.recipe.name, out, ranks) as run:
        try:
            run.write_json(ENVIRONMENT, environment)
            run.write_text(GROUPS, setup.built.table())
            run.write_recipe(resolved.recipe.to_dict())  # last: with it, the folder is a run
        except OSError as error:
            why = error.strerror or error
            raise RunError(f"cannot write into the run folder {run.path}: {why}") from error
        session = Session(setup, run, State(), now() - started, progress)
        if watch is not None:
            watch.path, watch.tell = run.path / TRACE, session.progress.console.print
        return session.run()


def resume(path: str | Path, progress: ProgressLines | None = None) -> Result:
    """Go on with a run from its last checkpoint, exactly as if it had not been stopped.

    When that one is damaged, the one before it serves; a run that was stopped before its first
    checkpoint begins anew.

    Args:
        path: the run folder.
        progress: who shows it.

    Raises:
        RunError: no run, no readable checkpoint, other data, the run has ended, or another process
            is training it.
    """
    started = now()
    with open_folder(path) as (run, mine, ranks):
        reason = run.summary().get("exit_reason", "")
        if reason in ("budget", "early_stop"):
            raise RunError(
                f"{run.path} has ended ({reason}): nothing to resume; its page is {run.report}"
            )
        environment = run.environment()
        root = Path(environment.get("recipe_folder", "."))
        threads = environment.get("threads", 0)
        if 0 < threads <= (os.cpu_count() or 1):  # sums depend on how they are cut over threads
            torch.set_num_threads(threads)
        resolved = resolve(run.recipe(), source=str(run.path / "recipe.yaml"), root=root)
        setup = build_setup(resolved, ranks)
        checkpoints, warnings, state = Checkpoints(run.checkpoints), [], State()
        if checkpoints.any():
            checkpoint, *warnings = checkpoints.load_last()
            state = restore(setup, join(setup, checkpoint, checkpoints.folder))
        if state.best and checkpoints.any("best"):
            try:
                warnings.append(checkpoints.load_best()[1])
            except RunError as error:
                warnings.append(f"{error}; the best are those of the evaluations from here on")
        session = Session(setup, mine, state, now() - started, progress)
        session.keeper.checkpoints.unreadable |= checkpoints.unreadable
        for warning in filter(None, warnings):
            session.warn(warning)
        return session.run()


class Session:
    """Run a loop and keep its run folder.

    Args:
        setup: what is trained.
        run: where it is written down.
        state: where to go on from.
        setup_seconds: what building took, for the summary.
        progress: who shows it.
    """

    def __init__(
        self, setup: Setup, run: RunFolder, state: State, setup_seconds: float,
        progress: ProgressLines | None,
    ):  # fmt: skip
        recipe = setup.recipe
        self.setup, self.folder, self.state = setup, run, state
        size, ranks = recipe.batch_size * recipe.accumulate, setup.parts.ranks
        quiet = ranks is not None and not ranks.leads
        self.progress = progress or ProgressLines(batch_size=size, quiet=quiet)
        facts = RunFacts(run.path, recipe.name, recipe.to_dict(), state.step)
        metrics, norms = MetricsWriter(run, keep_until=state.step), None
        if setup.parts.telemetry is not None:
            norms = MetricsWriter(run, keep_until=state.step, name=TELEMETRY)
        self.writer = Rows(metrics, [] if quiet else setup.loggers, facts, self.warn, norms)
        self.keeper = Keeper(setup, run, state, self.writer, self.warn)
        self.doctor = Watching(setup, run, state, self._tell)
        self.last: dict[str, dict[str, float]] = {}
        for row in run.metrics():  # of the part before a resume
            values = {k: v for k, v in row.items() if k not in ("step", "epoch", "split")}
            self.last[row["split"]] = {**self.last.get(row["split"], {}), **values}
        self.started = now() - setup_seconds - state.seconds.get("total", 0.0)
        state.seconds.setdefault("setup", 0.0)
        state.seconds["setup"] += setup_seconds

    def warn(self, text: str) -> None:
        """Tell the user something that does not end the run."""
        self.progress.console.print(f"warning: {text}")

    def _tell(self, text: str) -> None:
        self.progress.console.print(text, markup=False, soft_wrap=True)

    def logged(self, loop: Loop, values: dict[str, float]) -> None:
        self.last["train"] = {**self.last.get("train", {}), **values}
        self.writer.row(self.state.step, loop.epochs(), "train", values)
        telemetry = loop.parts.telemetry
        if telemetry is not None and telemetry.layers:
            self.writer.layers(self.state.step, loop.epochs(), telemetry.layers)
            telemetry.layers = {}

    def evaluated(self, loop: Loop, values: dict[str, float], best: bool) -> None:
        if loop.training:
            self.last["train"] = {**self.last.get("train", {}), **loop.training}
            self.writer.row(self.state.step, loop.epochs(), "train", loop.training)
        for split, found in (("raw", loop.raw), ("val", values)):
            if found:
                self.last[split] = found
                self.writer.row(self.state.step, loop.epochs(), split, found)
        with suppress(OSError):  # the rows wait for the next flush; checkpoints tell
            self.writer.flush()
        if values:
            self.keeper.judged(loop.epochs(), values, loop.raw)

    def boundary(self, loop: Loop) -> None:
        self.state.seconds["total"] = now() - self.started
        self.keeper.boundary()

    def run(self) -> Result:
        """Train to the end, whatever it is, and leave a complete run folder."""
        with closing(self.setup):
            return self._run()

    def _run(self) -> Result:
        ranks = self.setup.parts.ranks
        try:
            with explained(ranks):
                reason = self.fit()
                self.keeper.save()
            if ranks is not None and not leave(self.setup):
                return Result(self.folder, self.setup.parts.model, {"exit_reason": reason})
        except BaseException as error:
            with suppress(OSError, RunError):  # the first error is the one to tell
                self._finish("failed", error=f"{type(error).__name__}: {error}")
            raise
        try:
            return self._finish(reason)
        except OSError as error:
            raise RunError(
                "the run is trained and its checkpoints are written, but not all else in "
                f"{self.folder.path} ({error}); make room, then: brickyard resume RUN"
            ) from error

    def fit(self) -> str:
        """Train, and return why it ended."""
        loop = Loop(self.setup.parts, [self, self.progress], self.state)
        for warning in self.setup.data.warnings:
            self.progress.console.print(f"warning: data: {warning}")
        for found in self.setup.findings:
            self.progress.console.print(f"warning: {in_words(found)}")
        self.progress.start(self.setup.parts.total, self.state.step)
        try:
            told = memory_told(self.setup, self.state)
            sense = loss_told(self.setup.recipe.loss.label)
            with told, sense, explaining_deaths(), _stop_on_signals(loop), self.doctor.watched():
                return loop.run()
        finally:
            self.progress.stop()

    def _finish(self, reason: str, error: str = "") -> Result:
        from brickyard.report import write_report

        model, told, ensemble = self.setup.parts.model, [], None
        if not error:
            of = self._take_best() if reason != "interrupted" else None
            told, ensemble = what_they_did(
                self.setup.regularizers, self.setup.evaluator, self.setup.task.trained(model),
                self.state.best,
            )  # fmt: skip
            if ensemble is not None and reason != "interrupted":
                self._keep_members(ensemble)
            self.folder.write_evaluation(
                **self.setup.evaluator.inspect(model, step=of),
                **(
                    {"classes": np.array(self.setup.data.classes)}
                    if self.setup.data.classes
                    else {}
                ),
            )
        summary = {**self._summary(reason, error), "regularizers": told}
        if summary["unreadable"]:
            self.warn(Unreadable(summary["unreadable"]).sentence())
        self.writer.close(summary)
        self.folder.write_json(SUMMARY, summary)
        try:
            write_report(self.folder.path)
        except Exception as problem:  # a page must never cost a finished run
            self.progress.console.print(
                f"warning: no report ({problem}); try: brickyard report {self.folder.path}"
            )
        return Result(self.folder, model, summary, ensemble)

    def _take_best(self) -> int | None:
        """End with the best weights, and return the step that they are of.

        None: early stopping was told to keep the last ones.
        """
        stopping, average = self.setup.parts.stopping, self.setup.parts.average
        if stopping is not None and not stopping.restore_best:
            if average is not None and average.ready:
                average.keep()
            return None
        best = self.keeper.best() if self.state.best else None
        if best is None:
            return None
        self.setup.parts.model.load_state_dict(best["model"])
        self.state.best = {k: best[k] for k in ("step", "epoch", "val", "raw") if k in best}
        return best["step"]

    def _keep_members(self, joint: Ensemble) -> None:
        """Write the members as a checkpoint of their own: an ensemble to load elsewhere."""
        state = {"of": joint.of, "members": [one.state_dict() for one in joint.members]}
        self.keeper.checkpoints.save({"ensemble": state}, self.state.step)

    def _summary(self, reason: str, error: str) -> dict[str, Any]:
        setup, state = self.setup, self.state
        parts, data = setup.parts, setup.data
        seconds = {**state.seconds, "total": now() - self.started}
        known = sum(seconds[phase] for phase in (*PHASES, "setup"))
        seconds["other"] = max(0.0, seconds["total"] - known)
        trained = sum(seconds[phase] for phase in ("data", "forward", "backward", "step"))
        return {
            "name": setup.recipe.name,
            "task": setup.task.name,
            "exit_reason": reason,
            **({"error": error} if error else {}),
            "monitor": {"name": setup.evaluator.monitor, "mode": setup.evaluator.mode},
            "final": self.last,
            "best": state.best,
            "steps": state.step,
            "epochs": state.step / parts.epoch_steps,
            "skipped_steps": state.skipped,
            **({} if parts.scaler is None else {"loss_scale": parts.scaler.measured()}),
            "unreadable": {
                **data.facts.get("unreadable", {}),
                **unreadable_in(parts.train, setup.evaluator.batches).found,
            },
            "samples_per_second": (
                state.step * setup.recipe.batch_size * parts.accumulate / max(trained, 1e-9)
            ),
            "seconds": seconds,
            "model": _describe_model(setup.recipe.model.label, parts.model),
            "data": {
                "name": data.name, "train": len(data.train), "val": len(data.val),
                "input_shape": list(data.input_shape), "classes": list(data.classes),
                "facts": data.facts,
            },
            "groups": setup.built.told,
            "findings": self.doctor.findings,
        }  # fmt: skip


def _describe_model(name: str, model: nn.Module) -> dict[str, Any]:
    layers = [
        {"path": path, "type": type(module).__name__,
         "parameters": sum(p.numel() for p in module.parameters())}
        for path, module in model.named_modules() if not list(module.children())
    ]  # fmt: skip
    return {
        "name": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "layers": layers,
    }


@contextmanager
def _stop_on_signals(loop: Loop) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the run after the present step; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if loop.asked:
            raise KeyboardInterrupt
        loop.ask_to_stop()

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
