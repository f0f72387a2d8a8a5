"""Write run folders that look like real ones, without training anything."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from brickyard.runs import ENVIRONMENT, SUMMARY, MetricsWriter, RunFolder

#: Where in its length the long run has its one spike.
SPIKE = 0.61803
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def environment(run: RunFolder) -> None:
    run.write_json(ENVIRONMENT, {
        "started": "2025-03-01T09:12:44+01:00",
        "command": ["brickyard", "train", "recipes/mnist5k-cnn.yaml", "optimizer.lr=3e-3"],
        "recipe_folder": "recipes", "brickyard": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.9",
        "packages": {"numpy": "2.4.6", "torchmetrics": "1.9.0", "scikit-learn": "1.9.0"},
        "system": "Linux-6.1.0-x86_64-with-glibc2.36", "processor": "AMD EPYC 7B13", "cores": 2,
        "threads": 2, "accelerator": "none", "git_commit": "92f3670a1b2c3d4e5f60718293a4b5c6",
        "git_changes": True,
    })  # fmt: skip


def recipe(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "data": {"name": "mnist5k", "val_share": 0.2},
        "model": {"name": "cnn", "widths": [32, 64, 128], "activation": "gelu",
                  "norm": "batch_norm", "dropout": 0.1},
        "loss": {"name": "cross_entropy", "label_smoothing": 0.05},
        "optimizer": {"name": "adamw", "lr": 3e-3, "betas": [0.9, 0.999], "eps": 1e-8,
                      "weight_decay": 0.02},
        "schedule": [{"name": "warmup", "steps": "5%"}, {"name": "cosine", "steps": "95%"}],
        "clipping": {"name": "global_norm", "max_norm": 1.0},
        "regularizers": [], "augmentation": [], "metrics": [{"name": "accuracy"}],
        "monitor": "accuracy", "name": name, "budget": "12ep", "batch_size": 64,
        "eval_batch_size": 512, "evaluate_every": "1ep", "log_every": 10, "precision": "fp32",
        "device": "auto", "seed": 0, **changes,
    }  # fmt: skip


def layers(widths: tuple[int, ...] = (32, 64, 128)) -> list[dict[str, Any]]:
    rows, before = [], 1
    for i, width in enumerate(widths):
        rows += [
            {"path": f"stage{i}.conv", "type": "Conv2d", "parameters": before * width * 9},
            {"path": f"stage{i}.norm", "type": "BatchNorm2d", "parameters": 2 * width},
            {"path": f"stage{i}.act", "type": "GELU", "parameters": 0},
        ]
        before = width
    return [*rows, {"path": "head", "type": "Linear", "parameters": before * 10 + 10}]


def digit(rng: np.random.Generator, colour: bool = False) -> np.ndarray:
    """Return a 28 x 28 scribble that looks like a handwritten digit."""
    t = np.linspace(0, 1, 160)
    turns = rng.uniform(0.6, 1.6)
    x = 14 + 7 * np.cos(2 * math.pi * turns * t + rng.uniform(0, 6)) * (1 - 0.4 * t)
    y = 14 + 9 * np.sin(2 * math.pi * turns * t * rng.uniform(0.6, 1) + rng.uniform(0, 6))
    grid = np.mgrid[0:28, 0:28]
    near = ((grid[0][..., None] - y) ** 2 + (grid[1][..., None] - x) ** 2).min(-1)
    image = (255 * np.exp(-near / 1.6)).astype(np.uint8)
    return np.stack([image, image // 2, 255 - image], -1) if colour else image


def curves(run: RunFolder, steps: int, per_epoch: int, every: int, train: Any, val: Any) -> None:
    """Write metric rows; ``train`` and ``val`` are functions of the share of the run done."""
    rng = np.random.default_rng(1)
    writer = MetricsWriter(run)
    for step in range(1, steps + 1):
        if step % every and step % per_epoch:
            continue
        t = step / steps
        lr = 3e-3 * min(t / 0.05, 0.5 * (1 + math.cos(math.pi * (t - 0.05) / 0.95)))
        loss = train(t) * math.exp(0.25 * rng.standard_normal())
        norm = (0.4 + 2 * train(t)) * math.exp(0.3 * rng.standard_normal())
        row = {"loss": loss, "lr": lr, "grad_norm": norm}
        writer.row(step, step / per_epoch, "train", row)
        if step % per_epoch == 0:
            writer.row(step, step / per_epoch, "val", val(t, rng))
    writer.close()


def summary(run: RunFolder, **values: Any) -> None:
    rows = run.metrics()
    val = [r for r in rows if r["split"] == "val"]
    monitor = values.setdefault("monitor", {"name": "accuracy", "mode": "max"})
    plain = [{k: v for k, v in r.items() if k not in ("step", "epoch", "split")} for r in val]
    best: dict[str, Any] = {}
    if val:
        pick = max if monitor["mode"] == "max" else min
        i = pick(range(len(val)), key=lambda i: float(val[i][monitor["name"]]))
        best = {"step": val[i]["step"], "epoch": val[i]["epoch"], "val": plain[i]}
    run.write_json(SUMMARY, {
        "name": run.recipe()["name"], "task": "classification", "exit_reason": "budget",
        "final": {"train": {}, "val": plain[-1] if plain else {}}, "best": best,
        "steps": rows[-1]["step"] if rows else 0, "epochs": rows[-1]["epoch"] if rows else 0,
        "samples_per_second": 3120.4,
        "seconds": {"total": 112.4, "setup": 3.1, "data": 4.2, "forward": 31.5, "backward": 52.8,
                    "step": 6.4, "evaluate": 11.9, "checkpoint": 1.6, "other": 0.9},
        "model": {"name": "cnn", "parameters": 119530, "layers": layers()},
        "data": {"name": "mnist5k", "train": 4000, "val": 1000, "input_shape": [1, 28, 28],
                 "classes": [str(i) for i in range(10)],
                 "facts": {"source": "5,000 images of MNIST", "mean": 0.1307, "std": 0.3081}},
        "findings": [], **values,
    })  # fmt: skip


def predictions(
    run: RunFolder, classes: list[str], n: int, error: float, images: int = 24, colour: bool = False
) -> None:
    rng = np.random.default_rng(2)
    k = len(classes)
    target = rng.integers(0, k, n)
    wrong = rng.random(n) < error
    partner = (np.arange(k) * 3 + 4) % k
    other = np.where(rng.random(n) < 0.6, partner[target], rng.integers(0, k, n))
    prediction = np.where(wrong, other, target)
    confidence = np.where(prediction == target, rng.beta(30, 1, n), rng.beta(4, 2, n))
    confidence = np.clip(confidence, 1 / k, 1)
    loss = np.where(prediction == target, -np.log(confidence), -np.log(1.001 - confidence))
    worst = np.argsort(-loss)[:images]
    parts: dict[str, Any] = {}
    if images:
        parts = {
            "worst_index": worst,
            "worst_images": np.stack([digit(rng, colour) for _ in worst]),
        }
    run.write_evaluation(
        target=target, prediction=prediction, confidence=confidence, loss=loss,
        classes=np.array(classes), **parts,
    )  # fmt: skip


def classification(path: Path, name: str = "mnist5k-cnn", **options: Any) -> Path:
    run = RunFolder.create(name, path)
    run.write_recipe(recipe(name, **options.pop("recipe", {})))
    environment(run)
    curves(
        run, 63 * 12, 63, 4, lambda t: 0.012 + 2.2 * math.exp(-12 * t),
        lambda t, rng: {"loss": 0.045 + 0.9 * math.exp(-9 * t) + 0.004 * rng.standard_normal(),
                        "accuracy": round(0.987 - 0.3 * math.exp(-9 * t), 3)},
    )  # fmt: skip
    classes = options.pop("classes", [str(i) for i in range(10)])
    predictions(run, classes, options.pop("n", 1000), options.pop("mistakes", 0.013),
                options.pop("images", 24), options.pop("colour", False))  # fmt: skip
    (run.checkpoints / "best.pt").write_bytes(b"\0" * 481_000)
    summary(run, **options)
    return path


def regression(path: Path, n: int = 88) -> Path:
    run = RunFolder.create("diabetes-mlp", path)
    run.write_recipe(recipe(
        "diabetes-mlp", data={"name": "diabetes"}, model={"name": "mlp", "widths": [64, 64]},
        loss={"name": "huber", "delta": 1.0}, monitor="mae", budget="40ep",
        metrics=[{"name": "mae"}, {"name": "r2"}]))  # fmt: skip
    environment(run)
    curves(
        run, 6 * 40, 6, 2, lambda t: 0.42 + 0.6 * math.exp(-8 * t),
        lambda t, rng: {"loss": 0.5 + 0.5 * math.exp(-8 * t), "mae": 43 + 28 * math.exp(-7 * t)
                        + 0.4 * rng.standard_normal(), "r2": 0.48 - 0.5 * math.exp(-7 * t)},
    )  # fmt: skip
    rng = np.random.default_rng(3)
    target = rng.gamma(4, 38, n) + 25
    prediction = 152 + 0.55 * (target - 152) + 42 * rng.standard_normal(n)
    run.write_evaluation(target=target, prediction=prediction, loss=(target - prediction) ** 2)
    summary(
        run, task="regression", monitor={"name": "mae", "mode": "min"},
        model={"name": "mlp", "parameters": 4929, "layers": []},
        data={"name": "diabetes", "train": 354, "val": n, "input_shape": [10], "classes": [],
              "facts": {"target": "disease progression after one year"}},
    )  # fmt: skip
    return path


def failed_at_once(path: Path) -> Path:
    run = RunFolder.create("broken", path)
    run.write_recipe(recipe("broken"))
    environment(run)
    run.write_json(SUMMARY, {
        "name": "broken", "task": "classification", "exit_reason": "failed",
        "error": "Traceback (most recent call last):\n  File \"train.py\", line 3, in forward\n"
                 "RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x784 and 512x10)",
        "steps": 0, "epochs": 0, "seconds": {"total": 1.2, "setup": 1.1},
    })  # fmt: skip
    return path


def diverged(path: Path) -> Path:
    run = RunFolder.create("too-hot", path)
    run.write_recipe(recipe("too-hot", clipping=None,
                            optimizer={"name": "sgd", "lr": 2.0, "momentum": 0.9}))  # fmt: skip
    environment(run)
    writer = MetricsWriter(run)
    rng = np.random.default_rng(4)
    loss = 2.3
    for step in range(2, 401, 2):
        loss = loss * (0.985 if step < 120 else 1.35) * math.exp(0.1 * rng.standard_normal())
        value = loss if loss < 1e9 else math.nan
        writer.row(step, step / 63, "train", {"loss": value, "lr": 2.0, "grad_norm": value * 3})
        if step % 64 == 0:
            writer.row(
                step, step / 63, "val", {"loss": value, "accuracy": 0.31 if step < 120 else 0.1}
            )
    writer.close()
    summary(run, exit_reason="failed", error="TrainingError: the loss is not finite at step 400")
    return path


def long(path: Path, rows: int = 100_000) -> Path:
    """Write a run of very many rows, with one spike that thinning must not lose."""
    run = RunFolder.create("long", path)
    run.write_recipe(recipe("long", budget="200ep"))
    environment(run)
    rng = np.random.default_rng(5)
    noise = np.exp(0.4 * rng.standard_normal(rows))
    with open(run.path / "metrics.jsonl", "w", encoding="utf-8") as file:
        for i in range(rows):
            t = (i + 1) / rows
            loss = (0.05 + 2.2 * math.exp(-30 * t)) * noise[i]
            loss = 500.0 if i == int(SPIKE * rows) else loss
            row = {"step": i + 1, "epoch": round((i + 1) / 500, 4), "split": "train", "loss": loss,
                   "lr": 1e-3 * (1 - t), "grad_norm": noise[-i] * 2}  # fmt: skip
            file.write(json.dumps(row) + "\n")
            if (i + 1) % 500 == 0:
                val = {
                    "step": i + 1,
                    "epoch": (i + 1) / 500,
                    "loss": 0.1 + math.exp(-20 * t),
                    "accuracy": 0.93 - 0.5 * math.exp(-25 * t),
                }
                file.write(json.dumps({**val, "split": "val"}) + "\n")
    predictions(run, [f"class {i:02d}" for i in range(50)], 5000, 0.07, images=0)
    summary(run)
    return path


def overfitted(path: Path) -> Path:
    run = RunFolder.create("tiny-data", path)
    run.write_recipe(recipe("tiny-data", budget="30ep"))
    environment(run)
    curves(
        run, 63 * 30, 63, 6, lambda t: 0.001 + 2.2 * math.exp(-14 * t),
        lambda t, rng: {"loss": 0.5 + 1.2 * math.exp(-20 * t) + 0.9 * t,
                        "accuracy": 0.86 - 0.5 * math.exp(-20 * t) - 0.07 * t},
    )  # fmt: skip
    names = ["aeroplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    predictions(run, names, 1000, 0.2, colour=True)
    findings = [
        {"check": "train-val-overlap", "severity": "error", "where": "data", "evidence":
         "14 of 1000 validation samples are in the training data", "why":
         "their score says nothing about new data", "try": "remove duplicates before the split"},
        {"check": "input-raw-range", "severity": "warning", "where": "first batch", "evidence":
         "inputs lie in 0 to 255", "why": "first layers see numbers 100 times too large", "try":
         "scale to mean 0 and standard deviation 1"},
    ]  # fmt: skip
    summary(run, findings=findings, data={
        "name": "tiny images", "train": 4000, "val": 1000, "input_shape": [3, 28, 28],
        "classes": names, "facts": {}})  # fmt: skip
    return path


def hostile(path: Path) -> Path:
    """Write a run in which every text that a user can choose tries to break out of the page."""
    classes = [HOSTILE, "b", "c"]
    return classification(
        path, HOSTILE, classes=classes, n=300, mistakes=0.3,
        recipe={"model": {"target": HOSTILE, HOSTILE: HOSTILE}},
        model={"name": HOSTILE, "parameters": 3, "layers": [
            {"path": HOSTILE, "type": HOSTILE, "parameters": 3}]},
        findings=[{"check": HOSTILE, "severity": "error", "evidence": HOSTILE, "try": HOSTILE}],
        exit_reason="failed", error=HOSTILE,
        data={"name": HOSTILE, "train": 10, "val": 300, "classes": classes,
              "facts": {HOSTILE: HOSTILE}, "input_shape": [HOSTILE]},
    )  # fmt: skip
