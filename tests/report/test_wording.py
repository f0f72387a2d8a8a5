import math

import pytest

from brickyard.plots.svg import linear, logarithmic, ordinal
from brickyard.report import wording
from brickyard.report.wording import THIN


@pytest.mark.parametrize(("value", "text"), [
    (0.0123456, "0.0123"), (98.25, "98.2"), (1234.5, "1234"), (0.99999, "1.00"), (0, "0"),
    (-0.5, "\u22120.500"), (123456.7, f"123{THIN}457"), (1e-7, "1×10⁻⁷"), (5.8649e18, "5.86×10¹⁸"),
    ("nan", "NaN"), ("-inf", "\u2212∞"), (None, "–"), (12, "12"), (9999.6, f"10{THIN}000"),
])  # fmt: skip
def test_number(value, text):
    assert wording.number(value) == text


def test_a_share_is_never_rounded_to_all_or_nothing():
    assert wording.percent(0.9999) == f"99.9{THIN}%"
    assert wording.percent(0.0001) == f"0.1{THIN}%"
    assert wording.percent(1.0) == f"100{THIN}%"
    assert wording.percent(0.0) == f"0.0{THIN}%"


@pytest.mark.parametrize(("seconds", "text"), [
    (0.0123, f"12{THIN}ms"), (59.96, f"1{THIN}min 0{THIN}s"), (3599.6, f"1{THIN}h 0{THIN}min"),
    (7380, f"2{THIN}h 3{THIN}min"), (200_000, f"2{THIN}d 7{THIN}h"), (None, "–"),
    (0.0, f"0{THIN}ms"),
])  # fmt: skip
def test_duration(seconds, text):
    assert wording.duration(seconds) == text


def test_epochs_and_settings_drop_what_does_not_matter():
    assert [wording.epochs(e) for e in (9.004, 0.25, 12.34)] == ["9", "0.25", "12.3"]
    assert wording.epochs(math.nan) == "NaN"
    assert wording.setting(0.003) == "0.003"
    assert wording.length("12ep") == "12 epochs"
    assert wording.length("1ep") == "1 epoch"
    assert wording.length("30s") == "30s"


def test_metrics_are_written_by_what_their_names_say():
    assert wording.metric("accuracy", 0.987) == f"98.7{THIN}%"
    assert wording.metric("accuracy", 98.7) == "98.7"  # already per cent
    assert wording.metric("loss", 0.987) == "0.987"
    assert wording.more_is_better("macro_f1")
    assert not wording.more_is_better("rmse")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.7, 12), (0.1234, 0.1239), (5, 5), (0, 0),
                                           (1e-9, 3e-9), (-1e12, 1e12)])  # fmt: skip
def test_straight_scales_cover_the_data_with_a_few_round_ticks(low, high):
    scale = linear(low, high)
    slack = 1e-9 * (scale.high - scale.low)
    assert scale.low - slack <= low <= high <= scale.high + slack
    assert 2 <= len(scale.ticks) <= 8
    assert len(set(scale.labels)) == len(scale.labels)
    places = [float(scale(t)) for t in scale.ticks]
    assert places[0] == pytest.approx(0)
    assert places[-1] == pytest.approx(1)


@pytest.mark.parametrize(("low", "high"), [(0.01, 3), (1, 31), (1e-30, 1e30), (0.9, 40)])
def test_logarithmic_scales_put_equal_ratios_at_equal_distances(low, high):
    scale = logarithmic(low, high)
    assert scale.low < low < high < scale.high
    assert 2 <= len(scale.ticks) <= 12
    a, b, c = (float(scale(low * (high / low) ** t)) for t in (0, 0.5, 1))
    assert b - a == pytest.approx(c - b)


def test_the_time_axis_ends_where_the_data_does():
    scale = ordinal(0, 7.3)
    assert (scale.low, scale.high) == (0, 7.3)
    assert scale.labels == tuple("01234567")
