"""What a run folder tells: recipe, commit, and what the page rests on."""

import subprocess

import pytest
import torch

from brickyard.runs import RunFolder
from brickyard.train import train
from brickyard.train.environment import asking_git


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
    with pytest.raises(KeyError), asking_git(tmp_path):
        raise KeyError


def test_recipes_in_run_folders_keep_every_value(tmp_path):
    given = {"name": "Übung 😀 " * 20, "x": [1e-5, 1e300, "1e-3", "yes", "a: b", "l\n", None, True]}
    folder = RunFolder.create("try", tmp_path / "run")
    folder.write_recipe(given)
    assert RunFolder(folder.path).recipe() == given
    assert "😀" in (folder.path / "recipe.yaml").read_text(encoding="utf-8")


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
