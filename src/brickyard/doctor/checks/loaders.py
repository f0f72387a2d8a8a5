"""Checks of data loaders: order, overlap, duplicates, workers."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check
from brickyard.doctor.observe.record import Seen


@check(
    16, "train-not-shuffled", "warning", weight=0.8,
    sees="a training loader that goes through its data in order, with labels sorted or in blocks",
    why="Each batch holds few classes: the model learns one after the other and forgets.",
    try_="shuffle=True.",
    allows="data whose labels are mixed within batches, data without class labels, iterable data, "
    "samplers of the user's own",
    source="ultralytics/yolov5#5622, Deci-AI/super-gradients#416",
)  # fmt: skip
def not_shuffled(seen: Seen) -> Iterable[Say]:
    """Report training on sorted labels."""
    for loader in seen.loaders:
        whole = loader.facts.get("entropy", 0.0)
        if not loader.training or not loader.facts.get("in_order") or whole < 0.3:
            continue
        if len(loader.batch_entropy) < 4:
            continue
        mean = fmean(loader.batch_entropy)
        if mean < T.BATCH_ENTROPY * whole:
            yield Say(
                f"The loader goes through {loader.facts['size']} samples in order; the labels of "
                f"a batch have {mean:.2f} nats of entropy, those of the data {whole:.2f}.",
                "data", loader.place,
            )  # fmt: skip


@check(
    17, "val-shuffled-or-augmented", "warning", weight=0.4,
    sees="the first eight samples of an evaluation's loader, found again by their index in the "
    "next evaluations",
    why="Validation scores are noisy and not comparable when samples are augmented at random.",
    try_="A data set without random transforms for validation.",
    allows="another order of the same samples; loaders used for training, too; iterable data, a "
    "collate_fn of one's own behind a shuffling sampler (rows cannot be told), a single evaluation "
    "(the data set is never asked by the doctor itself: it may have a state); noise that is part "
    "of the task, in data that are no images, is information only",
    source="torchvision references: separate transforms for evaluation",
)  # fmt: skip
def augmented_validation(seen: Seen) -> Iterable[Say]:
    """Report evaluation data that change."""
    for note in seen.of("changing-samples"):
        v = note.values
        yield Say(
            f"{v['changed']} of {v['probed']} samples of {v['dataset']}, compared by index, were "
            "others than in the evaluation before: the data set returns something else each time.",
            "data", note.place, severity="" if v["images"] else "info",
        )  # fmt: skip


@check(
    18, "train-val-overlap", "error", weight=0.9,
    sees="evaluation samples that are also in the training data, by index or by content",
    why="Validation scores are too good: they measure memory.",
    try_="Split once, by group where samples belong together; remove duplicates before.",
    allows="evaluation of the training data themselves (the same data set), data of few distinct "
    "values",
    source="ratschlab/aestetik#12, marin-community/marin#2700",
)  # fmt: skip
def overlap(seen: Seen) -> Iterable[Say]:
    """Report samples that are in both data sets."""
    for note in seen.of("overlap"):
        v = note.values
        share = v["shared"] / max(v["of"], 1)
        expected = v.get("own", 0) / max(v.get("train", 1), 1)
        if not v.get("continuous", True) and expected > 0.01 and share < 3 * expected:
            continue
        few = "info" if v["how"] == "content" else "warning"
        many = share > T.OVERLAP_ERROR and (v["shared"] >= T.OVERLAP_LEAST or few == "warning")
        severity = "error" if many else few
        yield Say(
            f"{v['shared']} of {v['of']} evaluation samples ({share:.1%}) are in the training "
            f"data, too, compared by {v['how']}.",
            "data", note.place, severity=severity,
        )  # fmt: skip


@check(
    19, "train-duplicates", "info", weight=0.1,
    sees="equal samples in the training data",
    why="Duplicates count twice, and slip through a random split into the validation data.",
    try_="Remove them before splitting, unless they are meant.",
    allows="it is information only",
    source="Barz and Denzler 2020, Do we train on test data?",
)  # fmt: skip
def duplicates(seen: Seen) -> Iterable[Say]:
    """Report many equal samples."""
    for loader in seen.loaders:
        hashed, same = loader.facts.get("hashed", 0), loader.facts.get("duplicates", 0)
        sampled = loader.facts.get("sampler") not in ("RandomSampler", "SequentialSampler")
        if loader.training and hashed >= 100 and same > T.DUPLICATES * hashed and not sampled:
            yield Say(
                f"{same} of {hashed} training samples ({same / hashed:.0%}) are equal to an "
                "earlier one, in all values or the 512 that are compared.",
                "data", loader.place,
            )  # fmt: skip


@check(
    20, "worker-rng-duplication", "error", weight=1.0,
    sees="worker processes whose random generators went through the same states, or that gave "
    "the same samples",
    why="Every worker draws the same augmentations (or reads the same stream): the data are less "
    "varied than they seem.",
    try_="Seed stored generators per worker (worker_init_fn with get_worker_info().seed), or draw "
    "from torch's own; split an iterable data set by get_worker_info().id.",
    allows="generators that were not used, draws seeded by the sample's index",
    source="stackoverflow.com/questions/67180955; pytorch/pytorch#5059",
)  # fmt: skip
def worker_rng(seen: Seen) -> Iterable[Say]:
    """Report workers that draw alike."""
    for note in seen.of("workers-alike"):
        what = (
            f"the generator {note.where} was in the same state after the first batch, and had "
            "been used"
            if note.values["how"] == "generator"
            else "the first batch was the same"
        )
        yield Say(f"In {note.values['workers']} workers {what}.", note.where, note.place)
