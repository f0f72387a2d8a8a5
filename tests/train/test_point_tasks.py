"""Embeddings, two views and codes: what is compared, what is refused, what comes again."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from brickyard import losses
from brickyard.catalog import shelf
from brickyard.errors import DataError, RecipeError
from brickyard.nn import VariationalAutoencoder
from brickyard.train import Recipe, resolve
from brickyard.train.data import Split, mix_seed
from brickyard.train.data.balanced import ClassBatches, class_order
from brickyard.train.metrics_codes import active_latents, latent_kl, reconstruction_error
from brickyard.train.metrics_similarity import knn_accuracy, recall_at_1
from brickyard.train.setup import build_setup
from brickyard.train.tasks import Embedding, TwoView, Vae
from brickyard.train.tasks.embedding import embedding, nearest, partners
from brickyard.train.tasks.vae import Coded

MLP = {"name": "mlp", "hidden": 16}
CODER = {"name": "variational_autoencoder", "hidden": 16}
NOISE = [{"name": "gaussian_noise", "std": 0.1}]


def made(task, loss, model=MLP, data="digits", **rest):
    return build_setup(
        resolve(Recipe(data=data, task=task, model=model, loss=loss, budget=2, **rest))
    )


# --- Batches by class -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_groups_hold_one_class_and_an_epoch_no_sample_twice(seed):
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 5, 203))
    order = class_order(labels, 4, seed, epoch=2)
    groups = labels[order].view(-1, 4)
    assert bool((groups == groups[:, :1]).all())
    assert len(order) == len(order.unique()) == sum(int(n) // 4 * 4 for n in labels.bincount())
    assert torch.equal(order, class_order(labels, 4, seed, epoch=2))
    assert not torch.equal(order, class_order(labels, 4, seed, epoch=3))
    assert not torch.equal(order, class_order(labels, 4, seed + 1, epoch=2))


def test_a_class_smaller_than_a_group_repeats_its_samples():
    labels = torch.tensor([0] * 6 + [1])
    order = class_order(labels, 3, 0, 0)
    assert (order == 6).sum() == 3
    assert len(order) == 9


def test_batches_by_class_go_on_anywhere_and_rare_classes_are_spread():
    y = torch.tensor([0] * 400 + [1] * 40)
    split = Split(torch.arange(440.0)[:, None], y)
    batches = ClassBatches(split, 44, 4, seed=1)
    whole = list(batches.epoch(3))
    assert len(whole) == len(batches) == 10
    for start in (1, 7, 10):
        rest = list(batches.epoch(3, start=start))
        assert len(rest) == 10 - start
        assert all(torch.equal(a[0], b[0]) for a, b in zip(rest, whole[start:], strict=True))
    assert all(0 < int((y == 1).sum()) <= 12 for _, y in whole)


def test_sizes_that_do_not_fit():
    split = Split(torch.zeros(20, 3), torch.arange(20) % 4)
    for size, each in ((10, 4), (4, 4), (8, 1)):
        with pytest.raises(DataError, match="two classes or more"):
            ClassBatches(split, size, each, seed=0)
    with pytest.raises(DataError, match="samples in memory with one label"):
        ClassBatches(Split(torch.zeros(4, 2), torch.zeros(4, 3)), 4, 2, seed=0)
    with pytest.raises(DataError, match="samples for 16 of a batch of 40"):
        ClassBatches(split, 40, 4, seed=0)
    with pytest.raises(RecipeError, match="batch_size is 30 and per_class 4"):
        made({"name": "embedding", "per_class": 4}, "sup_con", batch_size=30)


def test_recipes_get_batches_by_class():
    parts = made({"name": "embedding", "per_class": 5}, "sup_con", batch_size=30).parts
    _, y = next(parts.train.epoch(4))
    assert bool((y.view(6, 5) == y.view(6, 5)[:, :1]).all())
    parts = made({"name": "embedding", "per_class": 0}, "sup_con", batch_size=30).parts
    assert not isinstance(parts.train, ClassBatches)


# --- Embeddings -----------------------------------------------------------------------------------


def test_partners_are_the_next_ones_around_the_circle():
    y = torch.from_numpy(np.random.default_rng(0).integers(0, 4, 30))
    same, other = partners(y)
    for i in range(30):
        circle = [(i + k) % 30 for k in range(1, 30)]
        assert same[i] == next((j for j in circle if y[j] == y[i]), -1)
        assert other[i] == next((j for j in circle if y[j] != y[i]), -1)


def test_each_form_of_loss_gets_what_it_compares():
    y = torch.tensor([0, 1, 0, 1])
    z = F.normalize(torch.randn(4, 3), dim=1)
    task = Embedding(3, form="triplets")
    got = task.loss(losses.TripletLoss(margin=0.5), z, z, y)
    assert torch.allclose(got, losses.triplet_loss(z, z[[2, 3, 0, 1]], z[[1, 2, 3, 0]], 0.5))
    task = Embedding(3, form="pairs")
    got = task.loss(losses.ContrastiveLoss(), z, z, y)
    expected = losses.contrastive_loss(
        torch.cat([z, z]), torch.cat([z[[2, 3, 0, 1]], z[[1, 2, 3, 0]]]),
        torch.tensor([0.0] * 4 + [1.0] * 4))  # fmt: skip
    assert torch.allclose(got, expected)
    nothing = Embedding(3, form="pairs").loss(losses.ContrastiveLoss(), z, z, torch.zeros(4))
    assert float(nothing) == 0


def test_unit_length_is_an_option():
    x = torch.rand(4, 3)
    model = nn.Linear(3, 2)
    assert torch.allclose(Embedding(2).forward(model, x).norm(dim=1), torch.ones(4))
    assert torch.equal(Embedding(2, unit=False).forward(model, x), model(x))
    for size, each in ((0, 4), (4, 1), (4, -2)):
        with pytest.raises(ValueError, match="size must be at least 1"):
            embedding(size=size, per_class=each)


COMPARED = {
    "embedding": {"sup_con", "batch_triplet", "triplet", "contrastive"},
    "two_view": {"nt_xent", "info_nce"},
    "vae": {"elbo"},
}
MODELS = {"embedding": MLP, "two_view": MLP, "vae": CODER}


@pytest.mark.parametrize("task", COMPARED)
@pytest.mark.parametrize("loss", [card.key for card in shelf("loss")])
def test_every_loss_is_trained_or_refused_with_a_reason(task, loss):
    if loss in COMPARED[task]:
        noise = [] if task == "vae" else NOISE  # which leaves the range of a Bernoulli
        parts = made(task, loss, MODELS[task], augmentation=noise).parts
        x, y = next(parts.train.epoch(0))
        value = parts.task.loss(parts.loss, parts.task.forward(parts.model, x), x, y)
        value.backward()
        assert value.isfinite()
        assert any(p.grad.abs().max() > 0 for p in parts.model.parameters() if p.grad is not None)
        return
    if loss == "perceptual":
        pytest.skip("needs a network of features")
    with pytest.raises(RecipeError, match=f"^loss: {loss} is not what {task} .*; take ") as refused:
        made(task, loss, MODELS[task], augmentation=NOISE)
    assert set(str(refused.value).rpartition(" take ")[2].split(", ")) == COMPARED[task]


def test_mixed_labels_are_refused():
    for task, loss in (("embedding", "sup_con"), ("two_view", "nt_xent")):
        with pytest.raises(RecipeError, match=f"mixup mixes targets .* of {task} cannot"):
            made(task, loss, augmentation=["mixup"])


# --- Metrics --------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_against_the_slow_way(k):
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(60, 4)), rng.integers(3, 7, 60)
    z += y[:, None] * 0.5
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    right = 0
    for i in range(60):
        cosine = unit @ unit[i]
        cosine[i] = -np.inf
        near = np.argsort(-cosine)[:k]
        votes = {c: sum(max(cosine[j], 0) for j in near if y[j] == c) for c in set(y[near])}
        right += max(votes, key=lambda c: votes[c]) == y[i]
    metric = recall_at_1(4) if k == 1 else knn_accuracy(4, k=3)
    for part in range(0, 60, 17):
        metric.update(torch.from_numpy(z[part : part + 17]), torch.from_numpy(y[part : part + 17]))
    assert float(metric.compute()) == pytest.approx(right / 60)
    with pytest.raises(ValueError, match="takes points"):
        metric.update(torch.zeros(3, 4), torch.zeros(3))
    with pytest.raises(ValueError, match="k must be"):
        knn_accuracy(4, k=0)


def test_the_report_names_the_nearest_other_sample():
    points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.9, 0.2], [0.0, 1.0]])
    found = nearest(points, torch.tensor([0, 0, 1, 1]))
    assert found["prediction"].tolist() == [0, 0, 0, 1]
    assert found["loss"][0] < 0 < found["loss"][2]


# --- Two views ------------------------------------------------------------------------------------


def test_both_views_are_the_augmentation_and_come_again():
    setup = made("two_view", "nt_xent", augmentation=NOISE, batch_size=20)
    x, y = next(setup.parts.train.epoch(0))
    again, _ = next(setup.parts.train.epoch(0))
    assert x.shape == (20, 2, 64)
    assert torch.equal(x, again)
    generator = torch.Generator().manual_seed(mix_seed(0, 0, 0))
    assert not torch.equal(x[:, 0], x[:, 1])
    plain = made("two_view", "nt_xent", augmentation=NOISE, batch_size=20)
    plain.parts.train.transform = None
    clean, labels = next(plain.parts.train.epoch(0))
    assert torch.equal(labels, y)
    noise = [torch.randn(clean.shape, generator=generator) for _ in range(2)]
    assert float((x - clean[:, None]).std()) == pytest.approx(float(noise[0].std()) * 0.1, rel=0.1)


def test_evaluation_of_views_repeats_and_scores_the_features():
    setup = made("two_view", "nt_xent", augmentation=NOISE, metrics=["knn_accuracy"])
    before = torch.get_rng_state()
    first = setup.evaluator.run(setup.parts.model)
    assert first == setup.evaluator.run(setup.parts.model)
    assert torch.equal(before, torch.get_rng_state())
    model = setup.parts.model.eval()
    x, y = next(setup.evaluator.batches.epoch(0))
    output = setup.task.forward(model, x)
    assert torch.equal(setup.task.scored(output, y)[0], model(x))
    assert output.first.shape == (len(x), 32)
    with pytest.raises(RecipeError, match="two_view sees every sample twice"):
        made("two_view", "nt_xent")
    assert TwoView(8, 4, 1).takes.__self__.projection == 4


# --- Codes ----------------------------------------------------------------------------------------


def test_codes_are_random_in_training_and_fixed_in_evaluation():
    model = VariationalAutoencoder((1, 4, 4), 3, hidden=[8, 6])
    x = torch.rand(5, 1, 4, 4)
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    before = torch.get_rng_state()
    assert torch.equal(model(x)[0], model(x)[0])
    assert torch.equal(before, torch.get_rng_state())
    widths = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    assert widths == [8, 6, 6, 6, 8, 16]


def test_metrics_of_codes_against_numpy():
    rng = np.random.default_rng(0)
    mu, log_var = rng.normal(size=(40, 3)) * [1, 0.5, 0.01], rng.normal(size=(40, 3))
    recon, x = rng.normal(size=(40, 7)), rng.normal(size=(40, 7))
    tensors = [torch.from_numpy(a) for a in (recon, mu, log_var, x)]
    metrics = latent_kl(3), active_latents(3), reconstruction_error(3)
    for metric in metrics:
        for part in (slice(0, 11), slice(11, 40)):
            metric.update(Coded(*(t[part] for t in tensors)), tensors[3][part])
    kl = 0.5 * (mu**2 + np.exp(log_var) - 1 - log_var).sum(1).mean()
    expected = kl, (mu.var(0) > 0.01).sum(), ((recon - x) ** 2).mean()
    for metric, value in zip(metrics, expected, strict=True):
        assert float(metric.compute()) == pytest.approx(value)


def test_a_vae_evaluates_the_bound_and_shows_pictures():
    setup = made({"name": "vae", "latents": 3}, "elbo", CODER,
                 metrics=["latent_kl", "reconstruction_error"])  # fmt: skip
    first = setup.evaluator.run(setup.parts.model)
    assert set(first) == {"loss", "latent_kl", "reconstruction_error"}
    assert first == setup.evaluator.run(setup.parts.model)
    assert setup.parts.model.latents == 3
    shown = setup.evaluator.inspect(setup.parts.model)
    assert shown["shown_pictures"].shape == (8, 3, 8, 8)
    assert Vae(2).means(torch.zeros(1)) == 0.5
    assert Vae(2, likelihood="gaussian").means(torch.zeros(1)) == 0
    gaussian = made("vae", {"name": "elbo", "likelihood": "gaussian"}, CODER)
    assert gaussian.task.likelihood == "gaussian"
    with pytest.raises(RecipeError, match="vae needs a model that returns"):
        made("vae", "elbo", MLP)
