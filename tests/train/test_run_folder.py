"""What a run folder tells: recipe, commit, and what the page rests on."""

import os
import subprocess

import numpy as np
import pytest
import torch

from brickyard.runs import RunFolder
from brickyard.train import train
from brickyard.train.environment import asking_git
from brickyard.train.evaluate import Evaluator


def test_the_environment_tells_the_commit(tmp_path):
    def git(*words):
        done = subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=b",
                               *words], capture_output=True, text=True, check=True)  # fmt: skip
        return done.stdout.strip()

    def asked():
        with asking_git(tmp_path) as answer:
            return answer()

    assert asked() == ("", False), "no repository"
    git("init", "-q")
    assert asked() == ("", False), "no commit"
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    git("add", "a.txt")
    git("commit", "-qm", "first")
    assert asked() == (git("rev-parse", "HEAD"), False)
    (tmp_path / "a.txt").write_text("b", encoding="utf-8")
    assert asked() == (git("rev-parse", "HEAD"), True)
    git("commit", "-aqm", "second")
    index = tmp_path / ".git" / "index"
    os.utime(tmp_path / "a.txt", (1e9, 1e9))  # git would note that the content is as it was
    before = index.read_bytes()
    assert asked() == (git("rev-parse", "HEAD"), False)
    assert index.read_bytes() == before, "the repository is only read"
    index.write_bytes(b"damaged")
    assert asked() == (git("rev-parse", "HEAD"), False)
    with pytest.raises(KeyError), asking_git(tmp_path):
        raise KeyError


def test_recipes_in_run_folders_keep_every_value(tmp_path):
    given = {
        "path": "/no/utf-8/\udcff",
        "name": "Übung 😀 " * 20,
        "x": [1e-5, 1e300, "1e-3", "yes", "a: b", "l\n", None, True],
    }
    folder = RunFolder.create("try", tmp_path / "run")
    folder.write_recipe(given)
    assert RunFolder(folder.path).recipe() == given


def test_emoji_stay_themselves(tmp_path):
    folder = RunFolder.create("try", tmp_path / "run")
    folder.write_recipe({"name": "Übung 😀"})
    assert (folder.path / "recipe.yaml").read_text(encoding="utf-8") == "name: Übung 😀\n"


class Counted(torch.nn.Sequential):
    """Count the samples that pass in evaluation."""

    seen = 0

    def forward(self, x):
        Counted.seen += 0 if self.training else len(x)
        return super().forward(x)


def counted():
    return Counted(torch.nn.Linear(64, 10))


@pytest.mark.parametrize(("room", "passes"), [(16 * 2**20, 2), (1000, 3)])
def test_the_page_rests_on_the_outputs_that_judged_the_best_weights(
    room, passes, tmp_path, monkeypatch
):
    monkeypatch.setattr("brickyard.train.evaluate._MOST_BYTES", room)
    monkeypatch.setattr(Counted, "seen", 0)
    recipe = {"data": "digits", "model": {"target": f"{__name__}:counted"}, "doctor": False,
              "loss": "cross_entropy", "metrics": ["accuracy"], "budget": "2ep"}  # fmt: skip
    result = train(recipe, out=tmp_path / "run")
    assert Counted.seen // 359 == passes, "and one small batch before training"
    evaluation = RunFolder(tmp_path / "run").evaluation()
    accuracy = (evaluation["target"] == evaluation["prediction"]).mean()
    assert accuracy == pytest.approx(result.summary["best"]["val"]["accuracy"])


class Spoils:
    """Count right answers, and write into what it is given."""

    higher_is_better = True

    def __init__(self):
        self.reset()

    def reset(self):
        self.right = self.all = 0

    def update(self, preds, target):
        self.right += int((preds.argmax(1) == target).sum())
        self.all += len(target)
        preds.neg_()

    def compute(self):
        return torch.tensor(self.right / self.all)


def spoils(outputs, classes):
    return Spoils()


class Moving(torch.utils.data.Dataset):
    """Return other inputs every time that a sample is read."""

    def __init__(self):
        self.draw = np.random.default_rng(0)

    def __len__(self):
        return 60

    def __getitem__(self, i):
        return torch.eye(3)[i % 3] + 0.9 * torch.from_numpy(self.draw.random(3)).float(), i % 3


def moving(**_):
    return Moving(), Moving()


def test_outputs_that_something_writes_into_are_kept_as_they_were(tmp_path):
    recipe = {"data": "digits", "model": "mlp", "loss": "cross_entropy", "budget": "2ep",
              "metrics": [{"target": f"{__name__}:spoils"}]}  # fmt: skip
    result = train(recipe, out=tmp_path / "run")
    evaluation = RunFolder(tmp_path / "run").evaluation()
    accuracy = (evaluation["target"] == evaluation["prediction"]).mean()
    assert accuracy == pytest.approx(result.summary["best"]["val"]["spoils"])


def test_what_is_read_anew_is_answered_anew(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(Evaluator, "keep", lambda self, step: kept.append(list(self._latest)))
    recipe = {"data": {"target": f"{__name__}:moving"}, "model": "mlp", "loss": "cross_entropy",
              "budget": "1ep"}  # fmt: skip
    train(recipe, out=tmp_path / "run")
    assert kept == [[]]
