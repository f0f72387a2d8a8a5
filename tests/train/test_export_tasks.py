"""Exports of every kind of task answer as before, and their cards say what they are."""

import json

import pytest
import torch
from game_cases import AGENT, GAN, POLICY
from safetensors import safe_open
from torch import nn

from brickyard import catalog
from brickyard.train import export_run, load_exported, resolve, train
from brickyard.train.data import Data, Split
from brickyard.train.data.base import fingerprint
from brickyard.train.export import best_model
from brickyard.train.progress import ProgressLines
from brickyard.train.setup import build_setup

MLP = {"name": "mlp", "hidden": [8]}
COMMON = {"budget": 2, "threads": 1, "doctor": False, "eval_batch_size": 16, "batch_size": 16}


class Silent(ProgressLines):
    def evaluated(self, loop, values, best):
        pass


def _made(task, y, classes, shape=(1, 8, 8), x=None):
    x = torch.rand(len(y), *shape) if x is None else x
    splits = Split(x[8:], y[8:]), Split(x[:8], y[:8])
    return Data("made", task, *splits, tuple(x.shape[1:]), len(classes), classes,
                facts={"fingerprint": fingerprint(*splits)})  # fmt: skip


def masks():
    return _made("segmentation", torch.randint(0, 3, (40, 8, 8)), ("rest", "grey", "white"))


def pictures():
    return _made("classification", torch.arange(40) % 2, ("even", "odd"))


def strips():
    y = torch.full((40, 3), -1)
    y[:, :2] = torch.randint(0, 4, (40, 2))
    return _made("transcription", y, ("a", "b", "c", "d"), (1, 8, 16))


def tokens():
    x = torch.randint(0, 5, (40, 7))
    return _made("language_model", x[:, 1:].contiguous(), (" ", "a", "b", "\n", "c"), x=x[:, :-1])


def tags():
    return _made("multi_label", (torch.rand(40, 3) > 0.5).float(), ("sun", "sea", "snow"))


def _own(make, **rest):
    return {"data": {"target": f"{__name__}:{make}"}, **rest}


CASES = {
    "segmentation": _own("masks", model={"name": "unet", "width": 2, "depth": 1},
                         loss="cross_entropy", metrics=["mean_iou"]),
    "transcription": _own("strips", model={"name": "crnn", "width": 2, "hidden": 3}, loss="ctc",
                          metrics=["character_error_rate"]),
    "language_model": _own("tokens", model={"name": "gpt", "width": 8, "depth": 1, "heads": 2},
                           loss="cross_entropy", metrics=["perplexity"]),
    "multi_label": _own("tags", model=MLP, loss="bce", metrics=["label_f1"]),
    "embedding": {"data": "digits", "task": "embedding", "model": MLP, "loss": "triplet",
                  "metrics": ["recall_at_1"]},
    "two_view": _own("pictures", task={"name": "two_view", "size": 6}, model=MLP, loss="nt_xent",
                     metrics=["knn_accuracy"], augmentation=["random_erasing"]),
    "vae": {"data": "digits", "task": {"name": "vae", "latents": 3}, "loss": "elbo",
            "model": {"name": "variational_autoencoder", "hidden": 8}, "metrics": ["latent_kl"]},
    "gan": {**GAN, "budget": 2},
    "policy": {**POLICY, "budget": 1},
    "dqn": {**AGENT, "budget": 2},
    "bf16": {"data": "digits", "model": MLP, "loss": "cross_entropy", "precision": "bf16"},
    "fp16": {"data": "digits", "model": MLP, "loss": "cross_entropy", "precision": "fp16"},
    "bf16_weights": {"data": "digits", "model": MLP, "loss": "cross_entropy",
                     "precision": "bf16_weights"},
    "fp16_weights": {"data": "digits", "model": MLP, "loss": "cross_entropy",
                     "precision": "fp16_weights"},
}  # fmt: skip
#: What the card must say of each.
SAYS = {
    "segmentation": ("`logits.argmax(1)` are the classes of the pixels", "0 = rest, 1 = grey, 2"),
    "transcription": ("of equal neighbours keep one, then leave the blanks out", "3 = d."),
    "language_model": ("scores of the token that comes next", "0 = ' ', 1 = a, 2 = b, 3 = '\\n'"),
    "multi_label": ("a logit for every label", "0 = sun, 1 = sea, 2 = snow"),
    "embedding": ("It returns points", "normalize(points, dim=1)"),
    "two_view": ("It returns features", "by cosine"),
    "vae": ("reconstructions, means of the codes", "pixels / 16"),
    "gan": ("draws from the normal distribution N(0, 1)", "generated samples"),
    "policy": ("observations of the environment", "score for every action"),
    "dqn": ("observations of the environment", "score for every action"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_task_is_exported_and_answers_as_before(name, tmp_path):
    recipe = {**COMMON, **CASES[name], "name": name}
    torch.manual_seed(0)
    run = train(recipe, out=tmp_path / "run", progress=Silent()).run
    made = export_run(run.path)
    assert made.warnings == []
    assert set(made.files) == {"model.safetensors", "model.pt2", "recipe.yaml"}
    resolved = resolve(run.recipe())
    _, model, about, _ = best_model(run, resolved)
    again = load_exported(made.folder, trust_code=True)
    kept, read = model.state_dict(), again.state_dict()
    assert kept.keys() == read.keys()
    assert all(torch.equal(kept[k], read[k]) and kept[k].dtype == read[k].dtype for k in kept)
    task = build_setup(resolved).task
    samples = torch.arange(5) if name in ("policy", "dqn") else _some(resolved)
    whole, x = task.exported(model, samples)
    other, _ = task.exported(again, samples)
    program = torch.export.load(made.folder / "model.pt2").module()
    with torch.no_grad():
        for rows in (x, x[:1]):
            wanted, found, others = (
                _flat(one(rows)) for one in (whole, program, other)
            )  # fmt: skip
            assert len(wanted) == len(found) == len(others)
            for a, b, c in zip(wanted, found, others, strict=True):
                assert a.shape == b.shape
                assert torch.equal(a, c)
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    use = card[card.index("## Use it") : card.index("## How good")].replace("\n", " ")
    for words in SAYS.get(name, ("`logits.softmax(1)` are probabilities", "0 to 9")):
        assert words in use
    for metric, value in about["val"].items():
        assert f"| {metric} | {value:.6g} |" in card
    assert f"name: {recipe['model']['name']}" in card, "the recipe"
    assert f"name: {resolved.recipe.precision.name}" in card


def _some(resolved):
    """Return five validation samples."""
    return build_setup(resolved).data.val.x[:5]


def _flat(output):
    return [output] if isinstance(output, torch.Tensor) else list(output)


def test_every_task_of_the_shelf_is_among_them():
    known = {card.key for card in catalog.shelf("task")}
    assert known - set(CASES) == {"classification", "regression"}, "whose tests are in test_export"


def test_the_generator_needs_no_critic_and_the_coder_draws_nothing(tmp_path):
    for name in ("gan", "vae"):
        train({**COMMON, **CASES[name]}, out=tmp_path / name, progress=Silent())
        folder = export_run(tmp_path / name).folder
        program = torch.export.load(folder / "model.pt2").module()
        model = load_exported(folder)
        names = {n for n, _ in program.named_parameters()}
        assert any("critic" in n for n in model.state_dict()) == (name == "gan")
        assert not any("critic" in n for n in names)
        with torch.no_grad():
            if name == "vae":
                x = torch.rand(4, 64)
                mu = model.encoder(x).chunk(2, 1)[0]
                torch.testing.assert_close(program(x)[0], model.decode(mu))
                assert not torch.allclose(program(x)[0], model(x)[0]), "the module draws"


def test_an_environment_is_part_of_what_the_file_says(tmp_path):
    """So that an agent can be built where there is no run."""
    train({**COMMON, **CASES["dqn"]}, out=tmp_path / "run", progress=Silent())
    folder = export_run(tmp_path / "run", formats=("safetensors",)).folder
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["brickyard"])["data"]
    assert about["environment"]["id"] == "CartPole-v1"
    assert load_exported(folder)(torch.zeros(3, 4)).shape == (3, 2)


class TwoTensors(nn.Module):
    """Take pairs of tensors, which no exported program does."""

    def __init__(self, input_shape, outputs):
        super().__init__()
        self.layer = nn.Linear(8, outputs)

    def forward(self, x):
        if float(x.sum()) > 1e9:
            return self.layer(x[:, :8]) * 0
        return self.layer(x[:, :8])


def test_what_has_no_program_is_told_in_one_sentence(tmp_path, capfd):
    """A branch on values cannot be traced; torch's own reports are kept back."""
    recipe = {**COMMON, "data": "digits", "loss": "cross_entropy",
              "model": {"target": f"{__name__}:TwoTensors"}}  # fmt: skip
    train(recipe, out=tmp_path / "run", progress=Silent())
    capfd.readouterr()
    made = export_run(tmp_path / "run")
    (told,) = made.warnings
    assert told.startswith("no model.pt2: torch.export cannot trace this model for every batch")
    assert told.endswith("load the weights instead")
    assert told in (made.folder / "README.md").read_text(encoding="utf-8")
    assert "Traceback" not in "".join(capfd.readouterr())
