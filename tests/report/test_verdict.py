"""Every rule speaks on the run it is made for, stays silent on healthy ones, and gives numbers."""

import math

import numpy as np
import pytest

from brickyard.report.facts import Facts
from brickyard.report.history import History
from brickyard.report.verdict import judge, notes

EPOCHS = 12


def run(
    val, loss=lambda e: 2.3 * math.exp(-0.6 * e) + 0.01, epochs=EPOCHS, monitor="accuracy",
    mode="max", task="classification", reason="budget", recipe=None, evaluation=None, **summary,
):  # fmt: skip
    """Build a run's facts: ``val(epoch)`` gives the evaluation, ``loss(epoch)`` the training."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(1, 20 * epochs + 1):
        e = i / 20
        row = {"loss": loss(e) * math.exp(0.1 * rng.standard_normal()), "lr": 3e-3}
        rows.append({"step": i, "epoch": e, "split": "train", **row})
        if i % 20 == 0:
            rows.append({"step": i, "epoch": e, "split": "val", **val(e)})
    return Facts(
        path="runs/x",
        recipe={"loss": {"name": "cross_entropy"}, "budget": f"{epochs}ep", **(recipe or {})},
        summary={"task": task, "exit_reason": reason, "monitor": {"name": monitor, "mode": mode},
                 "data": {"train": 4000, "val": 1000, "classes": list("abcdefghij")},
                 "seconds": {"total": 100.0, "data": 1.0}, **summary},
        history=History(rows), evaluation=evaluation or {},
    )  # fmt: skip


def good(e):
    return {
        "loss": 0.05 + math.exp(-0.7 * e),
        "accuracy": round(0.987 - 0.5 * math.exp(-0.55 * e), 3),
    }


def test_healthy():
    verdict = judge(run(good))
    assert (verdict.kind, verdict.tone) == ("healthy", "good")
    assert verdict.sentence == "validation accuracy peaked at 98.6\u202f% in epoch 11 and stayed."
    assert any("1000 validation samples" in line for line in verdict.evidence)
    assert notes(run(good)) == []


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_the_evaluations_alone_never_raises_an_alarm(seed):
    rng = np.random.default_rng(seed)
    values = np.clip(0.9 + 0.0095 * rng.standard_normal(EPOCHS), 0, 1)  # the binomial deviation
    verdict = judge(run(lambda e: {"loss": 0.3, "accuracy": values[round(e) - 1]}))
    assert verdict.tone == "good", verdict


def test_a_peak_before_the_end_stayed():
    values = [0.5, 0.8, 0.9, 0.93, 0.95, 0.961, 0.965, 0.97, 0.968, 0.969, 0.967, 0.968]
    verdict = judge(run(lambda e: {"loss": 0.1, "accuracy": values[round(e) - 1]}))
    assert verdict.kind == "healthy"
    assert verdict.sentence == "validation accuracy peaked at 97.0\u202f% in epoch 8 and stayed."


def test_overfit_needs_a_loss_beyond_chance_and_falling_training():
    def val(e):
        return {"loss": 0.5 + 0.05 * e, "accuracy": 0.86 - 0.3 * math.exp(-2 * e) - 0.008 * e}

    verdict = judge(run(val))
    assert verdict.kind == "overfit"
    assert "fell from 83.9\u202f% to 76.4" in verdict.sentence
    assert "epoch 2" in verdict.sentence
    unstable = judge(run(val, loss=lambda e: 0.4))
    assert unstable.kind == "worsened"  # training did not go on falling
    assert "did not improve either" in unstable.sentence
    assert judge(run(val, loss=lambda e: 0.1)).kind == "overfit"  # learned long ago
    small = judge(run(val, data={"val": 40, "classes": list("ab")}))
    assert small.kind != "overfit"  # 7 points of 40 samples are chance


def test_overfit_advice_follows_what_the_recipe_has():
    def val(e):
        return {"loss": 1.0, "accuracy": 0.86 - 0.3 * math.exp(-2 * e) - 0.012 * e}

    picture = {"train": 9, "val": 1000, "classes": list("ab"), "input_shape": [3, 32, 32]}
    assert "Augment" in judge(run(val, data=picture)).advice
    assert "dropout" in judge(run(val, data=picture, recipe={"augmentation": ["flip"]})).advice
    for dropout in (0.3, {"name": "dropout", "p": 0.3}):
        recipe = {"model": {"name": "mlp", "dropout": dropout}}
        assert "More data" in judge(run(val, recipe=recipe)).advice


def test_regression_overfit_by_a_metric_that_should_fall():
    def val(e):
        return {"loss": 1.0, "mae": 40 + 30 * math.exp(-2 * e) + 1.5 * e}

    verdict = judge(run(val, monitor="mae", mode="min", task="regression"))
    assert verdict.kind == "overfit"
    assert "MAE rose from" in verdict.sentence


def test_still_improving():
    verdict = judge(run(lambda e: {"loss": 1.0, "accuracy": 0.3 + 0.04 * e}))
    assert verdict.kind == "still_improving"
    assert "budget=24ep" in verdict.advice
    assert "3\u202fmin 20\u202fs" in verdict.advice
    stopped = judge(run(lambda e: {"loss": 1.0, "accuracy": 0.3 + 0.04 * e}, reason="early_stop"))
    assert stopped.kind == "stopped_early"


def test_plateau():
    values = [0.8, 0.95, *[0.955] * 10]
    verdict = judge(run(lambda e: {"loss": 0.1, "accuracy": values[round(e) - 1]}))
    assert verdict.kind == "plateau"
    assert "from epoch 2 on" in verdict.sentence


def jumping(step, monitor="accuracy", mode="max", **options):
    """Reach a level at once, and jump around it by ``step`` from one evaluation to the next."""
    signs = [0, 1, -1, 1, 1, -1, 1, -1, -1, 1, -1, 1, 1, -1, 1, -1]
    values = [0.4, 0.6, *(0.8 + step * sign for sign in signs)]
    return judge(run(lambda e: {"loss": 0.5, monitor: values[round(e) - 1]}, epochs=len(values),
                     monitor=monitor, mode=mode, **options))  # fmt: skip


def test_noisy_needs_more_than_a_tenth_of_the_gain_and_more_than_its_samples_explain():
    verdict = jumping(0.08)
    assert (verdict.kind, verdict.tone, verdict.label) == ("noisy", "warn", "Noisy")
    assert "over the last 10 evaluations, validation accuracy scattered by" in verdict.sentence
    assert "points around its trend" in verdict.sentence
    assert "88.0\u202f%" in " ".join(verdict.evidence)
    assert "cosine schedule" in verdict.advice
    assert "EMA" in jumping(0.08, recipe={"schedule": {"name": "cosine"}}).advice
    assert jumping(0.01).kind != "noisy"  # within a twentieth of the gain
    assert jumping(0.08, data={"val": 40, "classes": list("ab")}).kind != "noisy"  # 3 of 40
    returns = jumping(0.2, monitor="return", task="policy")
    assert returns.kind == "noisy"
    assert "more episodes" in returns.advice
    assert jumping(0.2, monitor="mae", mode="min", task="regression").kind == "noisy"


def test_a_metric_without_samples_to_count_is_noisy_by_itself():
    """Pixels are not samples: their number explains nothing."""
    assert jumping(0.08, monitor="mean_iou", task="segmentation").kind == "noisy"
    assert jumping(0.008, monitor="mean_iou", task="segmentation").kind != "noisy"


def test_stopped_early():
    values = [0.8, 0.9, 0.93, 0.945, 0.955, 0.97, 0.967, 0.968, 0.966]
    verdict = judge(
        run(
            lambda e: {"loss": 0.1, "accuracy": values[round(e) - 1]}, epochs=9, reason="early_stop"
        )
    )
    assert (verdict.kind, verdict.tone) == ("stopped_early", "good")
    assert "3 evaluations without a better one" in verdict.sentence


def test_underfit_by_the_metric_and_by_the_loss():
    flat = {"loss": 1.9, "accuracy": 0.33}
    verdict = judge(run(lambda e: flat, loss=lambda e: 1.9 + 0.3 * math.exp(-3 * e)))
    assert verdict.kind == "underfit"
    assert "2.30" in " ".join(verdict.evidence)  # the loss of uniform probabilities: ln 10
    learned = judge(run(lambda e: flat, loss=lambda e: 0.05))
    assert learned.kind != "underfit"


def test_overconfident_needs_a_rise_beyond_the_noise_of_the_loss():
    def val(e):
        return {"loss": 0.2 + 0.03 * max(0, e - 3), "accuracy": 0.93 - 0.2 * math.exp(-e)}

    assert judge(run(val)).kind == "overconfident"
    wide = {
        "target": np.zeros(4, int),
        "prediction": np.zeros(4, int),
        "loss": np.array([0, 0, 0, 2.0]),
    }
    assert judge(run(val, evaluation=wide)).kind != "overconfident"


def test_not_learning_and_labels_that_do_not_match():
    chance = {"loss": 2.31, "accuracy": 0.11}
    assert judge(run(lambda e: chance, loss=lambda e: 2.3)).kind == "not_learning"
    assert judge(run(lambda e: chance)).kind == "unrelated"  # training learned, validation did not
    mostly = {"target": np.repeat([0, 1], [900, 100]), "prediction": np.zeros(1000, int)}
    lazy = run(lambda e: {"loss": 0.3, "accuracy": 0.905}, loss=lambda e: 0.33, evaluation=mostly)
    assert judge(lazy).kind == "not_learning"  # 90 % is what the biggest class gives


def test_regression_no_better_than_the_mean():
    facts = run(
        lambda e: {"loss": 1.0, "r2": 0.01}, monitor="r2", task="regression", loss=lambda e: 1
    )
    assert judge(facts).kind == "not_learning"


def test_diverged_non_finite_and_rising():
    def burst(e):
        return math.inf if e > 6 else 2.3 * math.exp(0.5 * e)

    verdict = judge(run(good, loss=burst))
    assert (verdict.kind, verdict.tone) == ("diverged", "bad")
    assert verdict.sentence == "the loss stopped being a finite number at step 121."
    assert "from 0.003 to 0.0006" in verdict.advice
    assert "clip" in verdict.advice
    assert "clip" not in judge(run(good, loss=burst, recipe={"clipping": {"name": "norm"}})).advice
    rising = judge(run(good, loss=lambda e: 2.3 - e / 4 if e < 4 else 1.3 + (e - 4)))
    assert rising.kind == "diverged"
    assert "rose to" in rising.sentence
    told = run(good, reason="failed", error="LossError: loss is NaN")
    assert judge(told).kind == "diverged"
    own = "Diverged: the loss is nan at step 8: first in body.4 (Linear); lower the rate"
    verdict = judge(run(good, reason="failed", error=own))
    assert verdict.sentence == "the loss is nan at step 8: first in body.4 (Linear)."


def test_a_loss_that_recovers_is_a_note():
    facts = run(good, loss=lambda e: math.nan if 3 < e <= 3.2 else 2.3 * math.exp(-0.6 * e))
    assert judge(facts).kind == "healthy"
    assert notes(facts) == ["4 training rows not finite, first at step 61; the loss recovered."]


@pytest.mark.parametrize(("error", "advice"), [
    ("RuntimeError: CUDA out of memory", "Halve the batch size"),
    ("RuntimeError: mat1 and mat2 shapes cannot be multiplied", "shape of one input"),
    ("DataLoader worker (pid 7) exited", "no loader workers"),
    ("KeyError: 'x'", "recipe check"),
])  # fmt: skip
def test_failed_advises_by_the_error(error, advice):
    verdict = judge(run(good, reason="failed", error=f"Traceback\n{error}"))
    assert (verdict.kind, verdict.tone) == ("failed", "bad")
    assert error in verdict.sentence
    assert advice in verdict.advice


def test_unfinished_interrupted_empty_short_and_unvalidated():
    stopped = judge(run(good, reason="interrupted", epochs=5, recipe={"budget": "12ep"}))
    assert stopped.kind == "interrupted"
    assert "epoch 6 of 12" in stopped.sentence
    assert stopped.advice.endswith("brickyard resume runs/x")
    assert judge(run(good, reason="")).label == "Not finished"
    assert judge(Facts()).kind == "unmeasured"
    assert judge(Facts(summary={"exit_reason": "failed", "error": "boom"})).kind == "failed"
    assert judge(run(good, epochs=3)).kind == "short"
    assert judge(run(lambda e: {"loss": 1.0})).kind == "unvalidated"


def test_notes_on_waiting_for_data_silent_classes_and_a_suspicious_validation():
    target = np.repeat(np.arange(10), 10)
    answers = {"target": target, "prediction": np.where(target > 7, 0, target)}
    facts = run(
        lambda e: {**good(e)}, seconds={"total": 100.0, "data": 55.0}, evaluation=answers,
        final={"train": {"accuracy": 0.9}},
    )  # fmt: skip
    told = " ".join(notes(facts))
    assert "55\u202f% of the time" in told
    assert "Never predicted, though they occur: i and j." in told
    assert "beats training" in told


def test_long_metric_names_are_held_against_the_same_constants():
    rng = np.random.default_rng(0)
    target = rng.normal(10, 3, 200)
    answers = {"target": target, "prediction": np.full(200, np.median(target))}
    error = float(np.abs(target - np.median(target)).mean())
    facts = run(
        lambda e: {"loss": 1.0, "mean_absolute_error": error}, task="regression", mode="min",
        monitor="mean_absolute_error", evaluation=answers, loss=lambda e: 1.0,
    )  # fmt: skip
    verdict = judge(facts)
    assert verdict.kind == "not_learning"
    assert "validation MAE" in verdict.sentence
    scaled = {
        "target": target * 7,
        "prediction": answers["prediction"] * 7,
    }  # other units: no claim
    facts = run(
        lambda e: {"loss": 1.0, "mean_absolute_error": error}, task="regression", mode="min",
        monitor="mean_absolute_error", evaluation=scaled, loss=lambda e: 1.0,
    )  # fmt: skip
    assert judge(facts).kind != "not_learning"
    balanced = run(lambda e: {"loss": 2.3, "balanced_accuracy": 0.1}, loss=lambda e: 2.3,
                   monitor="balanced_accuracy")  # fmt: skip
    assert judge(balanced).kind == "not_learning"


def test_errors_that_the_doctor_found_are_named_before_advice_on_curves():
    found = [{"check": "train-val-overlap", "severity": "error"},
             {"check": "init-scale", "severity": "info"}]  # fmt: skip
    told = notes(run(good, findings=found))
    assert told == ["The doctor found 1 error, to be mended before all else: train-val-overlap."]
    assert notes(run(good, findings=found[1:])) == []
    assert notes(run(good, findings="?")) == []
