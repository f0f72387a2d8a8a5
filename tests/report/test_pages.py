"""Pages are whole, self-contained, safe against hostile names, and good when parts are missing."""

import base64
import hashlib
import itertools
import json
import re
import shutil
from html.parser import HTMLParser

import fake_runs
import numpy as np
import pytest

from brickyard.errors import RunError
from brickyard.report import page as page_module
from brickyard.report import write_comparison, write_report
from brickyard.report.circumstances import commands
from brickyard.report.composition import data_rows
from brickyard.report.facts import Facts
from brickyard.report.figures import class_rows, confusion_counts, reliability, residuals, scatter
from brickyard.runs import RunFolder

VOID = {"meta", "br", "img", "link", "input", "hr"}
KINDS = {
    "classification": fake_runs.classification, "regression": fake_runs.regression,
    "failed": fake_runs.failed_at_once, "diverged": fake_runs.diverged,
    "overfitted": fake_runs.overfitted, "hostile": fake_runs.hostile,
}  # fmt: skip


class Page(HTMLParser):
    """Check that elements are closed in order, and collect them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag, **wanted):
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]

    def classes(self, name):
        return [a for _, a in self.elements if name in (a.get("class") or "").split()]

    @property
    def ids(self):
        return [a["id"] for _, a in self.elements if "id" in a]

    def inside(self, tag):
        return [data for parent, data in self.texts if parent == tag]

    @property
    def words(self):
        shown = (d for parent, d in self.texts if parent not in ("script", "style"))
        return re.sub(r"\s+", " ", " ".join(shown))


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """Write every kind of run once, and its page."""
    root = tmp_path_factory.mktemp("runs")
    return {name: write_report(make(root / name)) for name, make in KINDS.items()}


def read(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", KINDS)
def test_page_is_well_formed_and_loads_nothing(pages, name):
    text = pages[name].read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert len(page.ids) == len(set(page.ids))
    for _, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:image/png;base64,")), (key, value[:60])
        assert not [key for key in attributes if key.startswith("on")]
    style = "".join(page.inside("style"))
    assert "@import" not in style
    assert "url(" not in style
    images = sum(len(a["src"]) for a in page.all("img"))
    assert len(text) - images < 300_000


@pytest.mark.parametrize("name", KINDS)
def test_only_our_script_may_run(pages, name):
    page = read(pages[name])
    scripts = page.all("script")
    assert [a for a in scripts if a.get("type") != "application/json"] == [{}]
    code = next(d for d in page.inside("script") if d.startswith('"use strict"'))
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy
    for data in page.inside("script"):
        if data != code:
            json.loads(data)


@pytest.mark.parametrize("name", KINDS)
def test_page_is_accessible(pages, name):
    page = read(pages[name])
    plots = page.classes("plot")
    named = {i for a in plots for i in a["aria-labelledby"].split()}
    assert named <= set(page.ids)
    assert len(page.all("desc")) == len(plots)
    assert all(a.get("alt") for a in page.all("img"))
    assert len(page.all("h1")) == 1
    levels = [int(t[1]) for t, _ in page.elements if re.fullmatch(r"h\d", t)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    links = {a["href"][1:] for a in page.all("a")}
    assert links <= set(page.ids)


def test_classification_shows_all_parts(pages):
    page = read(pages["classification"])
    assert {"c0", "c1", "c2", "c3", "confusion-figure", "reliability"} <= set(page.ids)
    sections = {"curves", "answers", "worst", "recipe", "time", "repeat"}
    assert sections <= set(page.ids)
    assert len(page.all("img")) == 24
    words = page.words
    for part in ("validation accuracy peaked at", "Learning rate", "Gradient norm", "Loss", "adamw",
                 "weight_decay 0.02", "Augment", "brickyard train", "seed=1", "evaluation.npz",
                 "92f3670a1b2c", "Backward", "Most frequent mistakes"):  # fmt: skip
        assert part in words, part


def test_regression_shows_scatter_and_errors(pages):
    page = read(pages["regression"])
    assert {"scatter", "residuals"} <= set(page.ids)
    assert "confusion-figure" not in page.ids
    for part in ("Mean absolute error", "R²", "Worst samples", "disease progression"):
        assert part in page.words


def test_hostile_names_are_text_only(pages):
    text = pages["hostile"].read_text(encoding="utf-8")
    page = Page(text)
    assert fake_runs.HOSTILE not in text
    assert "<script>alert" not in text
    assert page.words.count(fake_runs.HOSTILE) > 10  # shown, but as text
    assert all(a["src"].startswith("data:image/png") for a in page.all("img"))
    data = [json.loads(d) for d in page.inside("script") if "names" in d and d[0] == "{"]
    assert data[0]["names"][0] == fake_runs.HOSTILE


@pytest.mark.parametrize("kind", ["classification", "regression", "diverged"])
@pytest.mark.parametrize("missing", ["environment.json", "metrics.jsonl", "summary.json",
                                     "evaluation.npz", "checkpoints", "all"])  # fmt: skip
def test_every_part_may_be_missing(pages, tmp_path, kind, missing):
    run = tmp_path / "run"
    shutil.copytree(pages[kind].parent, run)
    for path in list(run.iterdir()):
        if missing in (path.name, "all") and path.name != "recipe.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = read(write_report(run))
    assert {"recipe", "repeat"} <= set(page.ids)
    assert ("curves" in page.ids) == (missing not in ("metrics.jsonl", "all"))
    assert "None" not in page.words
    assert "Undefined" not in page.words


@pytest.mark.parametrize("name", ["evaluation.npz", "summary.json", "environment.json",
                                  "metrics.jsonl"])  # fmt: skip
def test_a_damaged_file_is_named_and_the_rest_shown(pages, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(pages["classification"].parent, run)
    (run / name).write_bytes(b"\x93garbage\n{]\n")
    page = read(write_report(run))
    assert f"Could not read {name.partition('.')[0]}" in page.words
    assert "recipe" in page.ids


@pytest.mark.parametrize("drop", ["confidence", "loss", "classes", "worst_index", "worst_images",
                                  "target", "prediction"])  # fmt: skip
def test_every_array_may_be_missing(pages, tmp_path, drop):
    run = tmp_path / "run"
    shutil.copytree(pages["classification"].parent, run)
    folder = RunFolder.open(run)
    folder.write_evaluation(**{k: v for k, v in folder.evaluation().items() if k != drop})
    page = read(write_report(run))
    assert ("confusion-figure" in page.ids) == (drop not in ("target", "prediction"))
    assert ("reliability" in page.ids) == (drop not in ("target", "prediction", "confidence"))
    assert bool(page.all("img")) == (drop not in ("target", "prediction", "worst_index",
                                                  "worst_images"))  # fmt: skip


def test_many_rows_stay_small_and_no_spike_is_lost(tmp_path):
    run = fake_runs.long(tmp_path / "long", rows=30_000)
    text = write_report(run).read_text(encoding="utf-8")
    assert len(text) < 300_000
    faint = re.search(r'id="c0".*?class="raw train" d="M([^"]*)"', text, flags=re.S)
    assert faint
    points = [tuple(map(int, p.split())) for p in faint.group(1).split("L")]
    top = min(points, key=lambda p: p[1])
    assert abs(top[0] - 1000 * fake_runs.SPIKE) <= 2
    assert sum(p[1] < top[1] + 100 for p in points) == 1  # one point, far above all others
    assert "50 classes" in text


def test_the_page_is_replaced_whole_or_not_at_all(pages, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(pages["regression"].parent, run)
    before = (run / "report.html").read_bytes()
    monkeypatch.setattr(page_module, "run_page", lambda f: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(run)
    assert (run / "report.html").read_bytes() == before


def test_no_run_is_one_message(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)
    with pytest.raises(RunError, match="at least two"):
        write_comparison([tmp_path])


def test_comparison_shows_what_differs_and_who_leads(pages, tmp_path):
    first = pages["classification"].parent
    changes = {"optimizer": {"name": "sgd", "lr": 0.1}, "seed": 1}
    second = fake_runs.classification(tmp_path / "second", recipe=changes)
    third = pages["overfitted"].parent
    out = write_comparison([first, second, third], tmp_path / "new" / "page.html")
    assert out == tmp_path / "new" / "page.html"
    page = read(out)
    assert len(page.ids) == len(set(page.ids))
    rows = page.words
    for part in ("optimizer.name", "optimizer.lr", "optimizer.momentum", "seed", "budget",
                 "within the noise", "Training loss", "Validation accuracy",
                 "Overfits"):  # fmt: skip
        assert (part in rows) == (part != "optimizer.momentum"), part
    assert "batch_size" not in rows  # the same in all of them
    assert "mnist5k-cnn classification" in rows  # told apart by their folders
    assert "mnist5k-cnn second" in rows
    lines = [a for a in page.all("path") if "line" in (a.get("class") or "").split()]
    assert {a["class"].split()[-1] for a in lines} == {"s0", "s1", "s2"}
    assert not page.classes("raw")


def test_comparison_goes_beside_the_first_run_and_stands_hostile_and_failed_ones(pages):
    runs = [pages[name].parent for name in ("hostile", "failed", "regression")]
    out = write_comparison(runs)
    assert out == runs[0].parent / "comparison.html"
    text = out.read_text(encoding="utf-8")
    assert fake_runs.HOSTILE not in text
    assert "without a metric that all of them monitor" in Page(text).words


def test_confusion_counts_and_rows():
    target, said = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 7])
    counts = confusion_counts(target, said, 3)
    assert counts.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    row = class_rows(counts, ["a", "b", "c"])[1]
    assert (row["recall"], row["precision"]) == ("66.7\u202f%", "66.7\u202f%")
    assert row["mistaken"] == "a (1 time)"
    assert class_rows(counts, ["a", "b", "c"])[2]["recall"] == "–"


def test_calibration_error_against_its_definition():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 500)
    right = (rng.uniform(size=500) < confidence**2).astype(float)
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & (confidence < low + 0.1)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = reliability(confidence, right)
    assert found is not None
    assert found["error"] == f"{100 * expected:.1f}\u202f%"
    assert "over-confident" in found["told"]


def test_scatter_draws_the_worst_of_many_and_says_so():
    rng = np.random.default_rng(0)
    target = rng.normal(size=20_000)
    prediction = target + 0.01 * rng.normal(size=20_000)
    prediction[123] = 40.0
    drawn = scatter(target, prediction)
    assert "4000 of 20\u202f000 samples" in drawn.remarks[0]
    heights = [int(y) for y in re.findall(r"M\d+ (-?\d+)h0", drawn.svg)]
    assert min(heights) == 0  # the outlier is at the top
    assert len(heights) <= 4000


def test_residuals_count_every_sample():
    error = np.concatenate([np.linspace(-1, 1, 999), [50.0]])
    drawn = residuals(np.zeros(1000), error)
    assert drawn.remarks
    assert "Mean error 0.05" in drawn.svg


def test_metric_names_of_any_kind_get_their_chart(tmp_path):
    run = RunFolder.create("free", tmp_path / "run")
    run.write_recipe(fake_runs.recipe("free"))
    names = [f"metric {i}" for i in range(15)]
    rows = [
        {"step": s, "epoch": s / 5, "split": "val", "loss": 1.0, **{n: s + i for i, n in
         enumerate(names)}} for s in range(1, 9)
    ]  # fmt: skip
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    page = read(write_report(run.path))
    assert len(page.classes("curve")) == 16
    assert "4 more" in page.words
    assert len({a["id"] for a in page.classes("curve")}) == 16


def test_facts_on_the_data_are_readable():
    counts = {"train": {"a": 400, "b": 400}, "val": {"a": 100, "b": 99}}
    facts = Facts(summary={"data": {"facts": {"class_counts": counts, "samples": 9, "none": None}}})
    assert data_rows(facts) == [("Class counts", "train 400 each, val a 100, b 99")]


@pytest.mark.parametrize(("asked", "line"), [
    (["__main__.py", "train", "a b.yaml"], "brickyard train 'a b.yaml'"),
    (["brickyard", "train", "x.yaml"], "brickyard train x.yaml"),
    ("python train.py", "python train.py"),
    (["-"], None),
])  # fmt: skip
def test_the_command_line_is_told_as_it_can_be_typed(asked, line):
    found = {c["what"]: c["line"] for c in commands(Facts(environment={"command": asked}))}
    assert found.get("As it was started") == line
