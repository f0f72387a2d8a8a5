"""Segmentation, several labels, tables with rare classes, and tasks of one's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, f1_score
from torch import nn

from brickyard import losses
from brickyard.catalog import shelf
from brickyard.errors import CatalogError, DataError, RecipeError
from brickyard.nn import GPT, UNet, ViT
from brickyard.train import Recipe, resolve
from brickyard.train.data import abalone19, brain, casp, digit_strips, npz, page_blocks0
from brickyard.train.loop import Loop
from brickyard.train.metrics_labels import average_precision, label_f1
from brickyard.train.metrics_masks import dice_score, mean_iou, pixel_accuracy
from brickyard.train.setup import build_setup
from brickyard.train.tasks import MultiLabel, Segmentation, Task

UNET = {"name": "unet", "width": 4, "depth": 1}
BRAIN = {"name": "brain", "step": 8}
SET = {"name": "digit_strips", "labels": "set", "train": 64, "val": 40}


def made(data, loss, model, **rest):
    return build_setup(resolve(Recipe(data=data, model=model, loss=loss, budget=2, **rest)))


# --- Segmentation ---------------------------------------------------------------------------------


def test_slabs_of_the_brain_do_not_touch():
    clean, noisy = brain(step=8, noise=0.0), brain(step=8)
    assert clean.input_shape == (1, 24, 20)
    assert torch.equal(clean.train.y, noisy.train.y)
    noise = noisy.train.x - clean.train.x
    assert float(noise.std()) == pytest.approx(0.15, rel=0.02)
    assert float(clean.train.x.min()) >= 0
    assert float(clean.train.x.max()) <= 1
    grey, white = (clean.train.x[:, 0][clean.train.y == k].mean() for k in (1, 2))
    assert 0.5 < grey < 0.75 < white
    assert len(clean.train) + len(clean.val) < 148
    rows = [{x.numpy().tobytes() for x in part.x} for part in (clean.train, clean.val)]
    assert not rows[0] & rows[1]
    assert not torch.equal(brain(step=8, seed=1).train.x, noisy.train.x)
    for wrong in ({"step": 0}, {"slab": 4}, {"noise": -1.0}):
        with pytest.raises(DataError, match="step must be at least 1"):
            brain(**wrong)
    with pytest.raises(DataError, match="leaves no slab"):
        brain(step=8, slab=60)


PIXELS = {"cross_entropy", "nll", "focal", "multiclass_hinge"}
OVERLAP = {"dice", "iou", "tversky", "focal_tversky", "lovasz"}


@pytest.mark.parametrize("loss", [card.key for card in shelf("loss")])
def test_every_loss_is_trained_on_masks_or_refused_with_a_reason(loss):
    if loss == "nll":
        with pytest.raises(RecipeError, match="takes log-probabilities"):
            made(BRAIN, loss, UNET)
        return
    if loss in PIXELS | OVERLAP:
        spec = {"name": loss, "mode": "multiclass"} if loss in OVERLAP else loss
        parts = made(BRAIN, spec, UNET).parts
        x, y = next(parts.train.epoch(0))
        value = parts.task.loss(parts.loss, parts.task.forward(parts.model, x), x, y)
        value.backward()
        assert value.isfinite()
        assert any(p.grad.abs().max() > 0 for p in parts.model.parameters())
        return
    if loss == "perceptual":
        pytest.skip("needs a network of features")
    with pytest.raises(RecipeError, match=f"^loss: {loss} is not what segmentation .* take ") as no:
        made(BRAIN, loss, UNET)
    assert set(str(no.value).rpartition(" take ")[2].split(", ")) == PIXELS | OVERLAP


def test_overlap_losses_say_which_form_they_need():
    with pytest.raises(RecipeError, match=r"loss.mode: .*mode: multiclass; got 'binary'"):
        made(BRAIN, "dice", UNET)
    affine = [{"name": "random_affine", "border": "zeros"}]
    with pytest.raises(RecipeError, match="give ignore_index: -100"):
        made(BRAIN, {"name": "dice", "mode": "multiclass"}, UNET, augmentation=affine)
    fine = {"name": "dice", "mode": "multiclass", "ignore_index": -100}
    setup = made(BRAIN, fine, UNET, augmentation=affine, batch_size=16)
    _, y = next(setup.parts.train.epoch(0))
    assert (y == -100).any(), "masks move with their images"
    with pytest.raises(RecipeError, match="needs scores"):
        made(BRAIN, "cross_entropy", {"name": "cnn", "width": 4})
    with pytest.raises(RecipeError, match="mixup mixes targets"):
        made(BRAIN, "cross_entropy", UNET, augmentation=["mixup"])


def test_unequal_numbers_of_pixels_are_the_large_batch():
    torch.manual_seed(0)
    model = UNet((1, 8, 8), 3, width=4, depth=1, normalization=None).double()
    x, y = torch.rand(6, 1, 8, 8).double(), torch.randint(0, 3, (6, 8, 8))
    for row, rest in enumerate((0, 50, 20, 63, 64, 5)):
        y[row].view(-1)[:rest] = -100
    task, criterion = Segmentation(("a", "b", "c")), losses.CrossEntropyLoss()
    from brickyard.train.parts import Parts

    def gradients(size):
        model.zero_grad()
        pairs = list(zip(x.split(size), y.split(size), strict=True))
        parts = Parts(model, criterion, torch.optim.SGD(model.parameters(), lr=0.0),
                      pairs, total=1, task=task, accumulate=len(pairs))  # fmt: skip
        loss = Loop(parts)._gradients(pairs)
        return float(loss), torch.cat([p.grad.flatten() for p in model.parameters()])

    whole = gradients(6)
    for size in (1, 2, 4):
        loss, grads = gradients(size)
        assert loss == pytest.approx(whole[0], abs=1e-9)
        assert torch.allclose(grads, whole[1], atol=1e-9)


def test_two_classes_may_have_one_logit():
    task = Segmentation(("rest", "cell"), binary=True)
    y = torch.randint(0, 2, (2, 4, 4))
    y[0, 0, 0] = -100
    logits = torch.randn(2, 1, 4, 4)
    got = task.loss(losses.BCEWithLogitsLoss(), logits, logits, y)
    keep = y != -100
    assert torch.allclose(got, F.binary_cross_entropy_with_logits(logits[:, 0][keep],
                                                                  y[keep].float()))  # fmt: skip
    said, true = task.scored(logits, y)
    assert torch.equal(said, (logits[:, 0] > 0).long()[keep])
    assert torch.equal(true, y[keep])
    assert "binary" not in Segmentation(("a", "b", "c")).targets


def test_metrics_of_masks_against_numpy():
    rng = np.random.default_rng(0)
    said, true = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    hits, a, b = (
        np.array([f(k) for k in range(5)])
        for f in (lambda k: ((said == k) & (true == k)).sum(), lambda k: (said == k).sum(),
                  lambda k: (true == k).sum())
    )  # fmt: skip
    some = a + b > 0
    cases = [
        (mean_iou(5), (hits / np.maximum(a + b - hits, 1))[some].mean()),
        (mean_iou(5, background=False), (hits / np.maximum(a + b - hits, 1))[some][1:].mean()),
        (dice_score(5), (2 * hits / np.maximum(a + b, 1))[some].mean()),
        (dice_score(5, background=False), (2 * hits / np.maximum(a + b, 1))[some][1:].mean()),
        (pixel_accuracy(5), (said == true).mean()),
    ]
    for metric, expected in cases:
        for part in (slice(0, 70), slice(70, 200)):
            metric.update(torch.from_numpy(said[part]), torch.from_numpy(true[part]))
        assert float(metric.compute()) == pytest.approx(expected)
        with pytest.raises(ValueError, match="class indices of one shape"):
            metric.update(torch.zeros(3), torch.zeros(3))


def test_masks_are_shown():
    setup = made(BRAIN, "cross_entropy", UNET, metrics=["mean_iou", "dice_score"])
    shown = setup.evaluator.inspect(setup.parts.model)
    assert shown["shown_pictures"].shape == (8, 4, 24, 20)
    assert len(shown["shown_captions"]) == 8


@pytest.mark.parametrize("size", [(7, 9), (16, 10)])
def test_a_unet_keeps_the_size(size):
    assert UNet((2, *size), 3, width=4, depth=2)(torch.zeros(1, 2, *size)).shape == (1, 3, *size)
    with pytest.raises(ValueError, match="to nothing"):
        UNet((1, 3, 9), 2, depth=2)
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        UNet((9, 9), 2)


def test_transformers_take_their_parts_by_name():
    for part in (
        {"activation": "swiglu"},
        {"normalization": "rms_norm"},
        {"normalization": None},
        {"dropout": "dropout"},
        {"dropout": "drop_path"},
        {"dropout": "drop_connect"},
        {"residual": "layer_scale"},
        {"residual": None},
        {"init": "xavier_uniform_"},
    ):
        for model, x in (
            (GPT((6,), 5, width=16, depth=1, heads=2, **part), torch.zeros(2, 6).long()),
            (ViT((1, 8, 8), 5, patch=4, width=16, depth=1, **part),
             torch.rand(2, 1, 8, 8)),
        ):  # fmt: skip
            y = model(x)
            assert y.shape[-1] == 5
            assert y.isfinite().all()
    with pytest.raises(CatalogError, match="Take layer_norm or rms_norm"):
        GPT((6,), 5, width=16, depth=1, heads=2, normalization="batch_norm")
    with pytest.raises(ValueError, match="multiple of heads"):
        GPT((6,), 5, width=16, heads=3)
    with pytest.raises(ValueError, match="multiples of patch"):
        ViT((1, 9, 8), 5, patch=4)
    with pytest.raises(ValueError, match="multiple of 16"):
        ViT((1, 8, 8), 5, patch=4, width=24)


# --- Several labels -------------------------------------------------------------------------------


def test_several_labels_take_yes_or_no_losses_alone():
    assert digit_strips(**{k: v for k, v in SET.items() if k != "name"}).task == "multi_label"
    cnn = {"name": "cnn", "width": 4}
    for loss in ("bce", "binary_focal"):
        setup = made(SET, loss, cnn, metrics=["average_precision", "label_f1"])
        assert set(setup.evaluator.run(setup.parts.model)) == {
            "loss", "average_precision", "label_f1"}  # fmt: skip
    shown = setup.evaluator.inspect(setup.parts.model)
    assert shown["shown_pictures"].shape[:2] == (8, 1)
    for loss in ("cross_entropy", "mse", "dice"):
        with pytest.raises(RecipeError, match=f"loss: {loss} is not what multi_label .*several"):
            made(SET, loss, cnn)
    mixed = made(SET, "bce", cnn, augmentation=["mixup"])
    _, y = next(mixed.parts.train.epoch(0))
    assert ((y > 0) & (y < 1)).any()


def test_several_labels_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    np.savez(tmp_path / "a.npz", x=x, y=x[:, :2] > 0)
    data = npz("a.npz", task="multi_label", root=tmp_path)
    assert data.task == "multi_label"
    assert data.outputs == 2
    assert set(data.train.y.unique().tolist()) == {0.0, 1.0}
    assert set(data.facts["label_shares"]["val"]) == {"0", "1"}
    np.savez(tmp_path / "b.npz", x=x, y=x[:, :2])
    with pytest.raises(DataError, match="0 or 1 for every label"):
        npz("b.npz", task="multi_label", root=tmp_path)


def test_metrics_of_labels_against_scikit_learn():
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=(80, 3)), 1)  # with equal ones
    labels = (scores + rng.normal(size=(80, 3)) > 0.5).astype(int)
    cases = [
        (average_precision(3), average_precision_score(labels, scores)),
        (label_f1(3), f1_score(labels, scores > 0, average="macro")),
        (label_f1(3, average="micro"), f1_score(labels, scores > 0, average="micro")),
    ]
    for metric, expected in cases:
        for part in (slice(0, 33), slice(33, 80)):
            metric.update(torch.from_numpy(scores[part]), torch.from_numpy(labels[part]))
        assert float(metric.compute()) == pytest.approx(expected)
    binary = average_precision(1)
    binary.update(torch.from_numpy(scores[:, :1]), torch.from_numpy(labels[:, 0]))
    pair = average_precision(2)
    pair.update(torch.from_numpy(np.stack([0 * scores[:, 0], scores[:, 0]], 1)),
                torch.from_numpy(labels[:, 0]))  # fmt: skip
    expected = average_precision_score(labels[:, 0], scores[:, 0])
    assert float(binary.compute()) == pytest.approx(expected)
    assert float(pair.compute()) == pytest.approx(expected)
    with pytest.raises(ValueError, match="average must be"):
        label_f1(3, average="weighted")
    assert MultiLabel(("a", "b")).text(torch.tensor([0, 1])) == "b"


# --- Tables ---------------------------------------------------------------------------------------


def test_packaged_tables():
    data = casp()
    assert (len(data.train), len(data.val)) == (36584, 9146)
    assert float(data.restore(data.train.y).min()) >= 0
    raw = casp(log=False)
    assert torch.equal(raw.train.y, data.train.y)
    assert not torch.allclose(raw.train.x, data.train.x)
    blocks, shells = page_blocks0(), abalone19(val=0.5)
    counts = [sum(d.facts["class_counts"][s]["positive"] for s in ("train", "val"))
              for d in (blocks, shells)]  # fmt: skip
    assert counts == [559, 32]
    assert shells.input_shape == (10,)
    assert torch.equal(shells.train.x[:, :3].argmax(1).unique(), torch.arange(3))


# --- Tasks of one's own ---------------------------------------------------------------------------

OWN = '''
import torch
from brickyard.train.tasks import Task

class Autoencoder(Task):
    """Give back the sample; the target is never looked at."""

    held_out_loss = True

    def __init__(self, data, noise=0.0):
        self.size, self.noise = data.input_shape, noise
        self.outputs = data.input_shape[0]

    def loss(self, criterion, output, x, y):
        return criterion(output, x)

    def forward(self, model, x):
        return model(x + self.noise * torch.ones_like(x))
'''


def test_a_task_of_ones_own_is_trained_end_to_end(tmp_path, monkeypatch):
    from brickyard.train import train

    (tmp_path / "own_task.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = Recipe(data="digits", model={"name": "mlp", "hidden": 16, "depth": 1}, loss="mse",
                    task={"target": "own_task:Autoencoder", "noise": 0.1}, budget=60,
                    evaluate_every=20)  # fmt: skip
    result = train(recipe, out=tmp_path / "run")
    assert isinstance(result.model, nn.Module)
    values = [r["loss"] for r in result.run.metrics() if r["split"] == "val"]
    assert values[-1] < 0.8 * values[0]
    assert result.summary["task"] == Task.name
    assert "own" in result.run.report.read_text()
    with pytest.raises(RecipeError, match=r"digits is own; take one of your own by target"):
        train({**recipe.to_dict(), "metrics": ["accuracy"]})
