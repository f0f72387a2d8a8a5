"""Pictures: computed from the bricks, kept beside the cards, drawn for files and terminals."""

import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from brickyard import plots
from brickyard.catalog import KINDS, brick, figure, get, shelf
from brickyard.catalog.card import LIVE
from brickyard.catalog.pages import _DRAWN
from brickyard.cli import main
from brickyard.plots import Axis, Curve, Figure, Panel, make, terminal
from brickyard.plots.draw import draw
from brickyard.plots.figure import panel

DRAWN = [card.key for card in shelf() if card.kind in make.KINDS]
#: Bricks that no picture in one dimension describes; every other one has one.
WITHOUT = {"perceptual", "constant_", "ones_", "zeros_", "prior_bias_", "reduce_on_plateau"}
NS = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def computed():
    return {key: make.compute(get(key)) for key in DRAWN}


def curves(key, title):
    (found,) = [p for p in plots.figure(key).panels if p.title == title]
    at = np.array(found.at)
    return {c.label: (at, np.array([math.nan if v is None else v for v in c.y]))
            for c in found.curves}  # fmt: skip


# --- What is computed -----------------------------------------------------------------------------


def test_the_kept_figures_are_those_of_the_bricks(computed):
    """A picture whose brick has changed is stale: python -m brickyard.plots writes them anew."""
    kept = {key: Figure.from_dict(figure(key)) for key in DRAWN if figure(key)}
    assert set(kept) == set(computed)
    for key, now in computed.items():
        then = kept[key]
        assert (then.title, then.note, then.reason) == (now.title, now.note, now.reason), key
        assert then.grids == now.grids, key
        for a, b in zip(then.panels, now.panels, strict=True):
            assert (a.title, a.x, a.y, a.at) == (b.title, b.x, b.y, b.at), key
            assert [c.label for c in a.curves] == [c.label for c in b.curves], key
            for one, other in zip(a.curves, b.curves, strict=True):
                np.testing.assert_allclose(*_comparable(one, other, a.y.log), atol=0.05, rtol=0.02)


def _comparable(one, other, log):
    values = [np.array([math.nan if v is None else v for v in c.y]) for c in (one, other)]
    return [np.log10(v) for v in values] if log else values


def test_every_brick_has_a_picture_or_says_why_not(computed):
    assert set(make.KINDS) == _DRAWN <= set(KINDS)
    for key, drawn in computed.items():
        assert bool(drawn.reason) == (key in WITHOUT), f"{key}: {drawn.reason}"
        if not drawn.reason:
            assert drawn.key == key
            assert drawn.title.startswith(f"{key}: ")
            assert drawn.note.endswith(".")
            assert Figure.from_dict(json.loads(json.dumps(drawn.to_dict()))) == drawn


@pytest.mark.parametrize(
    ("key", "oracle"),
    [
        ("tanh", np.tanh),
        ("relu", lambda x: np.maximum(x, 0)),
        ("silu", lambda x: x / (1 + np.exp(-x))),
        ("gelu", lambda x: np.array([v * (1 + math.erf(v / 2**0.5)) / 2 for v in x])),
        ("hard_tanh", lambda x: np.clip(x, -1, 1)),
    ],
)
def test_activations_are_the_functions_of_the_papers(key, oracle):
    ((_, (x, y)),) = curves(key, "Function").items()
    np.testing.assert_allclose(y, oracle(x), atol=0.003)


def test_slopes_are_the_slopes_of_the_values(computed):
    """In every pair of panels the second integrates to the first."""
    for key, drawn in computed.items():
        if get(key).kind not in ("activation", "loss") or key == "batch_triplet":
            continue  # the mean over triplets in violation jumps where their number changes
        for values, slopes in zip(drawn.panels[::2], drawn.panels[1::2], strict=True):
            for one, other in zip(values.curves, slopes.curves, strict=True):
                assert None not in one.y + other.y, f"{key}, {values.title}: not finite"
                x, y, slope = (np.array(v) for v in (values.at, one.y, other.y))
                steps = np.diff(x) * (slope[1:] + slope[:-1]) / 2
                error = np.abs(np.cumsum(steps) - (y[1:] - y[0])).max()
                assert error < 0.03 * max(np.ptp(y), 1e-9), f"{key}, {values.title}, {one.label}"


def test_families_differ_by_the_option_that_matters():
    margin, _ = curves("focal", "Loss")["gamma = 0"]
    cross = curves("cross_entropy", "Loss")["label_smoothing = 0 (default)"][1]
    by_gamma = {label: y for label, (_, y) in curves("focal", "Loss").items()}
    np.testing.assert_allclose(by_gamma["gamma = 0"], cross, atol=0.004)
    p = 1 / (1 + np.exp(-margin))
    np.testing.assert_allclose(by_gamma["gamma = 2 (default)"], -((1 - p) ** 2) * np.log(p),
                               atol=0.004)  # fmt: skip
    error, flat = curves("huber", "Gradient")["delta = 0.5"]
    np.testing.assert_allclose(flat, np.clip(error, -0.5, 0.5), atol=0.004)
    for key in ("quantile", "tversky", "info_nce", "contrastive", "leaky_relu"):
        ys = [c.y for c in plots.figure(key).panels[0].curves]
        assert len(ys) == len(set(ys)) > 1, key


@pytest.mark.parametrize(
    ("key", "count", "blocks"),
    [("batch_norm", 16, {0, 1, 2, 3}), ("layer_norm", 6, {1}), ("instance_norm", 4, {1}),
     ("group_norm", 8, {1}), ("rms_norm", 6, {1}), ("weight_norm", 6, {0}),
     ("spectral_norm", 24, {0})],
)  # fmt: skip
def test_grids_show_which_values_share_statistics(key, count, blocks):
    (grid,) = plots.figure(key).grids
    filled = [sum(row.count("x") + row.count("@") for row in block) for block in grid.cells]
    assert sum(filled) == count
    assert {i for i, n in enumerate(filled) if n} == blocks
    assert sum(row.count("@") for block in grid.cells for row in block) == 1


def test_starts_that_fit_keep_the_spread_and_the_default_does_not():
    for key in ("kaiming_normal_", "kaiming_uniform_"):
        for title in ("Activations", "Gradients"):
            found = curves(key, title)
            assert np.ptp(np.log10(found[key][1])) < 0.6
            assert np.ptp(np.log10(found["torch's default"][1])) > 6
    (reference,) = [c for c in plots.figure("lsuv_" if "lsuv_" in DRAWN else "kaiming_normal_")
                    .panels[0].curves if c.reference]  # fmt: skip
    assert reference.label == "torch's default"


def test_schedules_are_drawn_by_their_own_values():
    step, factor = curves("cosine", "Factor")["end = 0"]
    np.testing.assert_allclose(factor, (1 + np.cos(np.pi * step / 200)) / 2, atol=0.001)


class CubeOfMine(nn.Module):
    def forward(self, x):
        return x**3


def test_a_brick_of_the_users_own_is_computed_when_asked():
    words = dict.fromkeys(("summary", "use_when", "avoid_when", "best_for", "tune_first"), "s")
    brick("activation", "cube_of_mine", formula="x^3", paper="none", cost="s", **words)(CubeOfMine)
    try:
        before = torch.get_rng_state()
        drawn = plots.figure("cube_of_mine")
        assert torch.equal(before, torch.get_rng_state())
    finally:
        del LIVE["cube_of_mine"]
    assert drawn.panels[0].curves[0].y[-1] == pytest.approx(125, rel=1e-3)
    assert drawn.panels[1].curves[0].y[-1] == pytest.approx(75, rel=1e-3)


def test_values_are_rounded_to_what_an_eye_can_tell_and_gaps_stay_gaps():
    made = panel("p", Axis("x"), Axis("y"), [0, 1, 2], [("a", [0.0, math.inf, 4.12345678])])
    assert made.curves[0].y == (0.0, None, 4.123)
    made = panel("p", Axis("x"), Axis("y", log=True), [0, 1], [("a", [1.23456e-9, 1.0])])
    assert made.curves[0].y == (1.23e-9, 1.0)


# --- SVG ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 480, 720, 1100])
def test_svg_is_well_formed_and_nothing_leaves_it(computed, width):
    for key, drawn in computed.items():
        if drawn.reason:
            continue
        root = ET.fromstring(draw(drawn, width))
        high = float(root.get("height"))
        assert root.get("viewBox") == f"0 0 {width} {root.get('height')}"
        texts = {t.text for t in root.iter(f"{NS}text")}
        assert set(drawn.labels) <= texts or len(drawn.labels) == 1
        for text in root.iter(f"{NS}text"):
            if text.get("class") in ("title", "head", "key", "note") and not text.get("transform"):
                size = {"title": 8.4, "head": 6.9, "key": 6.2, "note": 5.6}[text.get("class")]
                half = text.get("text-anchor") == "middle"
                end = float(text.get("x")) + size * len(text.text) * (0.5 if half else 1)
                assert end <= width + 1, f"{key}: {text.text!r} ends at {end:.0f} of {width}"
                assert 0 < float(text.get("y")) < high


def test_panels_stand_side_by_side_or_below_one_another():
    drawn = plots.figure("gelu")
    heights = [float(ET.fromstring(draw(drawn, w)).get("height")) for w in (400, 720)]
    assert heights[0] > 1.7 * heights[1] - 60
    tops = [[p.get("y") for p in ET.fromstring(draw(drawn, w)).iter(f"{NS}svg")][1:]
            for w in (400, 720)]  # fmt: skip
    assert len(set(tops[0])) == 2
    assert len(set(tops[1])) == 1


def test_curves_differ_by_more_than_colour_and_follow_the_theme():
    text = draw(plots.figure("focal"))
    lines = [p for p in ET.fromstring(text).iter(f"{NS}path") if "line" in p.get("class")]
    styles = {(p.get("class"), p.get("stroke-dasharray")) for p in lines}
    assert len(styles) == 4
    assert len({dash for _, dash in styles}) == 4
    assert "@media (prefers-color-scheme:dark)" in text


def test_svg_escapes_and_leaves_gaps():
    one = Panel("a < b", Axis("x"), Axis("y"), (0.0, 1.0, 2.0, 3.0),
                (Curve("c & d", (0.0, 1.0, None, 2.0)),))  # fmt: skip
    text = draw(Figure("k", "<k>", "n.", (one,)))
    path = next(p for p in ET.fromstring(text).iter(f"{NS}path"))
    assert path.get("d").count("M") == 2
    assert "a &lt; b" in text
    with pytest.raises(ValueError, match="nothing to draw: because"):
        draw(Figure("k", reason="because"))
    with pytest.raises(ValueError, match="240 pixels"):
        draw(Figure("k", "k", "n.", (one,)), 100)


# --- Terminal -------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("width", [40, 80, 120])
def test_terminal_pictures_fit_and_keep_to_their_alphabet(computed, width, plain):
    for key, drawn in computed.items():
        if drawn.reason:
            continue
        console = Console(width=width, color_system=None, force_terminal=False)
        with console.capture() as captured:
            console.print(terminal.draw(drawn, width, plain))
        text = captured.get()
        assert max(map(len, text.splitlines())) <= width, key
        assert text.isascii() == plain or get(key).kind == "schedule", key
        assert all(
            label[: width - 4] in text for label in drawn.labels[:1] if len(drawn.labels) > 1
        )


def test_letters_stand_at_the_ends_of_their_curves():
    one = Panel("p", Axis("x"), Axis("y"), (0.0, 1.0),
                (Curve("up", (0.0, 1.0)), Curve("down", (1.0, 0.0))))  # fmt: skip
    console = Console(width=60, color_system=None)
    with console.capture() as captured:
        console.print(terminal.draw(Figure("k", "k: t", "", (one,)), 60))
    lines = captured.get().splitlines()
    rows = [line.rstrip() for line in lines if "\u2502" in line]
    assert rows[0].endswith("a")
    assert rows[-1].endswith("b")
    dots = [[i for i, c in enumerate(r) if 0x2800 < ord(c) < 0x2900] for r in rows]
    assert all(min(b) >= min(a) or len(a) > 1 for a, b in pairwise(dots))


# --- Commands -------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys, monkeypatch):
    def call(*arguments, width=80):
        monkeypatch.setenv("COLUMNS", str(width))
        code = main(list(arguments))
        return code, *capsys.readouterr()

    return call


def test_show_draws_here_or_into_a_file(run, tmp_path):
    code, out, _ = run("show", "gelu", "--plot")
    assert code == 0
    assert "gelu: function and derivative" in out
    path = tmp_path / "gelu.svg"
    code, out, _ = run("show", "GELU", "--plot", str(path), "--width", "400")
    assert (code, out.strip()) == (0, str(path))
    assert ET.parse(path).getroot().get("width") == "400"


def test_png_is_drawn_where_the_renderer_is(run, tmp_path, monkeypatch):
    pytest.importorskip("resvg_py")
    path = tmp_path / "gelu.png"
    assert run("show", "gelu", "--plot", str(path))[0] == 0
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(content[16:20], "big") == 2 * 720
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run("show", "gelu", "--plot", str(path))
    assert code == 2
    assert "pip install 'brickyard[plot]'" in err
    assert "gelu.svg" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("perceptual", "--plot"), "there is no picture: perceptual compares whole images"),
        (("zeros_", "--plot", "z.svg"), "there is no picture: zeros_: zero weights put out zero"),
        (("adamw", "--plot"), "an optimizer has no picture"),
        (("gelu", "--plot", "gelu.jpg"), "a picture is a file .svg or .png; got 'gelu.jpg'"),
        (("gelu", "--plot", "no/such/folder/g.svg"), "cannot write"),
        (("gelu", "--plot", "g.svg", "--width", "10"), "240 pixels at least; got 10"),
        (("gelu", "--width", "300"), "--width is for a picture's file"),
        (("gelu", "--plot", "--json"), "--json holds the picture's data already"),
    ],
)
def test_what_cannot_be_drawn_says_why(run, words, says, tmp_path, monkeypatch):
    import re

    monkeypatch.chdir(tmp_path)
    code, _, err = run("show", *words)
    assert code == 2
    assert re.search(says, " ".join(err.split()))
    assert not list(tmp_path.iterdir())


def test_the_cards_json_holds_picture_and_bad_pairs(run):
    data = json.loads(run("show", "selu", "--json")[1])
    assert data["figure"] == figure("selu")
    assert data["figure"]["panels"][0]["curves"][0]["label"] == "selu"
    assert {pair["key"] for pair in data["not_with"]} == {
        "selu_kaiming", "selu_torch_start", "selu_dropout", "selu_norm",
    }  # fmt: skip
    assert json.loads(run("show", "adamw", "--json")[1])["figure"] is None


def test_the_card_page_names_what_does_not_belong(run):
    out = " ".join(run("show", "kaiming_normal_")[1].split())
    assert "Not with selu: SELU keeps mean 0" in out
    assert "brickyard show kaiming_normal_ --plot" in out


def test_drawing_a_kept_figure_needs_no_torch():
    code = (
        "import sys; from brickyard.cli import main; main(['show', 'focal', '--plot']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0
