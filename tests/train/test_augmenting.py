"""Augmentation in recipes: exact resumes, training batches alone, refusals at the start."""

import numpy as np
import pytest
import torch
from alike import StopAt
from torch.utils.data import Dataset

from brickyard.errors import RecipeError
from brickyard.train import resolve, resume, train
from brickyard.train.checkpoint import Checkpoints
from brickyard.train.data import Split, batches
from brickyard.train.setup import build_setup

RECIPE = {
    "data": "digits", "model": {"name": "mlp", "hidden": [16, 16]},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1}, "metrics": ["accuracy"],
    "augmentation": [{"name": "gaussian_noise", "std": 0.1}, {"name": "mixup", "p": 0.5},
                     {"name": "manifold_mixup", "alpha": 1.0}],
    "budget": "2ep", "checkpoint_every": 5, "log_every": 3, "name": "try",
}  # fmt: skip


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_run_draws_what_it_would_have_drawn(tmp_path, accumulate):
    recipe, stop = {**RECIPE, "accumulate": accumulate}, 30 // accumulate
    train(recipe, out=tmp_path / "whole")
    assert train(recipe, out=tmp_path / "cut", progress=StopAt(stop)).summary["exit_reason"] == (
        "interrupted")  # fmt: skip
    resume(tmp_path / "cut")
    a, b = (Checkpoints(tmp_path / name / "checkpoints").load("last") for name in ("whole", "cut"))
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name]), name


def test_validation_is_never_changed_and_the_model_only_in_training():
    plain = build_setup(resolve({**RECIPE, "augmentation": []}))
    setup = build_setup(resolve(RECIPE))
    for (x, y), (x0, y0) in zip(setup.evaluator.batches.epoch(0),
                                plain.evaluator.batches.epoch(0), strict=True):  # fmt: skip
        assert torch.equal(x, x0)
        assert torch.equal(y, y0)
    values = [one.evaluator.run(one.parts.model) for one in (setup, plain)]
    assert values[0] == values[1], "same seed, same weights, same samples"
    x, y = next(iter(setup.parts.train.epoch(0)))
    assert y.shape == (64, 10)
    assert y.max() < 1 or y.min() == 0
    again = next(iter(setup.parts.train.epoch(0)))
    assert torch.equal(x, again[0])
    assert not torch.equal(x, next(iter(setup.parts.train.epoch(1)))[0]), "each epoch draws anew"


@pytest.mark.parametrize("channels_last", [False, True])
def test_mixing_inside_of_the_model_survives_moves(channels_last):
    recipe = {**RECIPE, "data": "mnist5k", "model": {"name": "cnn", "width": 4},
              "augmentation": ["random_crop_flip", "cutmix",
                               {"name": "manifold_mixup", "layers": ["body.2"]}],
              "channels_last": channels_last}  # fmt: skip
    setup = build_setup(resolve(recipe))
    x, y = next(iter(setup.parts.train.epoch(0)))
    model = setup.parts.model
    mixed = model(x)
    assert not torch.allclose(mixed, model(x.clone())), "the note was lost on the way"
    setup.parts.loss(mixed, setup.task.target(y)).backward()


class Noisy(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return torch.full((4,), float(i)) + torch.rand(4), i % 3


def test_draws_do_not_depend_on_the_number_of_workers():
    def change(x, y, generator):
        return x + torch.rand(x.shape, generator=generator), y

    found = []
    for workers in (0, 2):
        made = batches(Split(dataset=Noisy()), 8, shuffle=True, seed=3, transform=change,
                       workers=workers)  # fmt: skip
        found.append([x for x, _ in made.epoch(1, start=2)])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_binary_and_regression_targets_are_mixed(tmp_path):
    for data, loss in (("breast_cancer", "bce"), ("diabetes", "mse")):
        setup = build_setup(resolve({**RECIPE, "data": data, "loss": loss, "metrics": [],
                                     "augmentation": ["mixup"]}))  # fmt: skip
        x, y = next(iter(setup.parts.train.epoch(0)))
        target = setup.task.target(y)
        assert target.shape == (len(x), 1)
        assert len(np.unique(target.numpy())) > 4
        setup.parts.loss(setup.parts.model(x), target).backward()


class Shrink:
    def __call__(self, x, y, generator):
        return x[:1], y[:1]


class Breaks:
    def __call__(self, x, y, generator):
        return x @ torch.zeros(3, 3), y


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augmentation": ["cutmix"]}, r"augmentation.0: CutMix takes images .* got \(4, 64\)"),
        ({"augmentation": ["mixup"], "loss": "focal"}, "mixup makes probabilities of labels, which"
         " focal does not take .* take cross_entropy"),
        ({"augmentation": ["manifold_mixup", "mixup"]}, "must stand last; move mixup before it"),
        ({"augmentation": [{"name": "manifold_mixup", "layers": ["bdy.0"]}]},
         r"augmentation.0: layers: 'bdy.0' matches no module; did you mean 'body.0'"),
        ({"augmentation": [{"name": "mixup", "targets": "pairs"}]}, "take targets: soft"),
        ({"augmentation": [{"name": "mixup", "classes": 3}]}, "mixup has no option 'classes'"),
        ({"augmentation": [{"target": f"{__name__}:Shrink"}]}, "number of samples; 4 became 1"),
        ({"augmentation": [{"target": f"{__name__}:Breaks"}]}, r"cannot take samples of shape"),
    ],
)  # fmt: skip
def test_refused_before_the_first_step(change, message):
    with pytest.raises(RecipeError, match=message):
        build_setup(resolve({**RECIPE, **change}))
