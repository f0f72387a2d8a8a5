"""Steps of every parameter on the page: colours, gaps, and what is not there."""

import json
import re

import fake_runs
import pytest
from test_pages import Page

from brickyard.report import write_report
from brickyard.report.layers import steps_of_layers
from brickyard.runs import TELEMETRY


def look(step, **ratios):
    sizes = {"grad_norm": 0.25, "update_norm": 1.0, "param_norm": 4.0}
    rows = {n: {**sizes, **({} if r is None else {"update_ratio": r})} for n, r in ratios.items()}
    return {"step": step, "epoch": step / 10, "split": "layers", **rows}


def run_with(tmp_path, looks, end=""):
    fake_runs.classification(tmp_path / "run")
    lines = "".join(json.dumps(one) + "\n" for one in looks)
    (tmp_path / "run" / TELEMETRY).write_text(lines + end)
    return tmp_path / "run"


def cells(row):
    return re.findall(r'<rect class="(\w+)"(?: fill-opacity="([\d.]+)")?', row["strip"])


def test_a_cell_is_how_far_a_step_is_from_a_thousandth(tmp_path):
    looks = [
        look(10, a=1e-1, b=1e-3),
        look(20, a=1e-2, b=None),
        look(30, a=1e-5, b=2e-3),
        look(40, a=5.0, b=0.0),
    ]
    found = steps_of_layers(run_with(tmp_path, looks))
    a, b = found["rows"]
    assert cells(a) == [("above", "1.00"), ("above", "0.50"), ("below", "1.00"), ("above", "1.00")]
    assert cells(b) == [("below", "0.00"), ("gap", ""), ("above", "0.15"), ("below", "1.00")]
    assert (a["name"], a["ratio"], a["gradient"], a["size"]) == ("a", "0.055", "0.25", "4")
    assert b["ratio"] == "0.001"
    assert "steps of 0.00001 to 5 of the weights" in a["strip"] or "10⁻⁵ to 5" in a["strip"]
    assert found["told"] == "4 looks, the last at step 40"
    assert found["few"]
    assert found["more"] == 0


def test_many_looks_are_medians_and_many_parameters_are_cut(tmp_path):
    values = [1e-1 if i % 3 == 0 else 1e-2 for i in range(300)]
    names = [f"layer{i}.weight" for i in range(50)]
    looks = [look(i, **dict.fromkeys(names, r)) for i, r in enumerate(values)]
    found = steps_of_layers(run_with(tmp_path, looks))
    assert len(found["rows"]) == 40
    assert found["more"] == 10
    assert not found["few"]
    (first, *_) = found["rows"]
    assert len(cells(first)) == 80
    assert {opacity for _, opacity in cells(first)} <= {"0.50", "0.87", "1.00"}
    assert sum(opacity == "0.50" for _, opacity in cells(first)) == 60
    page = write_report(tmp_path / "run").read_text()
    assert "And 10 more in telemetry.jsonl." in page
    assert "<details>\n    <summary>How far a step" in page


def test_the_page_has_a_row_for_each_and_names_are_text(tmp_path):
    looks = [look(10, **{fake_runs.HOSTILE: 1e-3, "head.bias": None})]
    text = write_report(run_with(tmp_path, looks)).read_text()
    page = Page(text)
    assert len(page.classes("heat")) == 2
    assert "alert(1)</script>" not in text.replace(json.dumps(fake_runs.HOSTILE), "")
    assert "head.bias: no step could be measured" in text
    assert ("td", "none") in page.texts


@pytest.mark.parametrize(
    ("looks", "end"),
    [([], ""), ([{"step": 3, "split": "layers"}], ""), ([], "not json\nat all\n"), ([], "3\n[]\n")],
    ids=["nothing", "no parameter", "damaged", "no objects"],
)
def test_without_rows_there_is_no_table(tmp_path, looks, end):
    path = run_with(tmp_path, looks, end)
    assert steps_of_layers(path) is None
    assert "How far a step moves" not in write_report(path).read_text()


def test_a_last_line_that_a_kill_cut_off_is_left_out(tmp_path):
    found = steps_of_layers(run_with(tmp_path, [look(10, a=1e-3)], '{"step": 20, "a": {"upd'))
    assert found["told"] == "1 look, the last at step 10"
