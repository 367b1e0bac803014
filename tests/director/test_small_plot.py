"""The small plot of a notebook's cell, of sessions with known power."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from made_session import HOST, made_manifest, made_marks, made_stream

from director.answers.phase_totals import phase_totals
from director.answers.results import write_results
from director.answers.small_plot import power_curve, svg, text_line
from director.session.manifest import Manifest, PhaseSource
from drivers.contract import Accuracy, Channel

SVG = "{http://www.w3.org/2000/svg}"
S = 1_000_000_000
HOSTILE = '<script>alert("x")</script> & \x00\x1b "quotes" 🔥' + "x" * 2000


def gauge(device: str, scope: str, **more: object) -> Channel:
    return Channel(
        name=f"made/{device}/power",
        device=device,
        quantity="power",
        unit="W",
        kind="gauge",
        scope=scope,
        update_period_s=0.01,
        window_s=0.01,
        accuracy=Accuracy(reading_fraction=0.01),
        **more,
    )  # type: ignore[arg-type]


def session_of(tmp_path: Path, span: tuple[int, int] = (1 * S, 5 * S)) -> Manifest:
    """A package of 100 W until 3 s and 200 W from there on, a GPU of 50 W that lies outside it, and a core inside."""
    t = np.arange(0, 6 * S, S // 100)
    package = np.where(t < 3 * S, 100.0, 200.0)
    channels = [gauge("package-0", "package"), gauge("gpu0", "gpu"), gauge("core", "core", parent="package-0")]
    values = [package, np.full(len(t), 50.0), np.full(len(t), 30.0)]
    stream = made_stream(tmp_path, channels, t, values, rate_hz=100)
    made_marks(tmp_path, [("first", 1 * S, 3 * S), (HOSTILE, 3 * S, 5 * S), ("inner", 4 * S, 4 * S + S // 2)])
    manifest = made_manifest(tmp_path, [stream], span, phase_sources=[PhaseSource(kind="marks", file="marks")])
    write_results(tmp_path)
    return manifest


def test_the_curve_is_the_sum_of_the_outermost_devices(tmp_path: Path) -> None:
    manifest = session_of(tmp_path)
    curve = power_curve(tmp_path, manifest)
    assert curve is not None
    assert curve.duration_s == pytest.approx(4.0)
    n = len(curve.watts)
    assert curve.watts[: n // 2 - 2] == pytest.approx(150.0)
    assert curve.watts[n // 2 + 2 :] == pytest.approx(250.0)
    assert curve.watts.mean() * curve.duration_s == pytest.approx(800.0, rel=0.01)
    assert not curve.estimate
    low, high = "▅", "█"  # 150 of 250 W is 4.8 eighths
    assert text_line(curve).replace("▆", "").replace("▇", "") in (
        f"{low * 30}{high * 30} 0 to 250.0 W",
        f"{low * 29}{high * 30} 0 to 250.0 W",
        f"{low * 30}{high * 29} 0 to 250.0 W",
    )


def test_the_drawing_is_valid_and_holds_no_markup_of_others(tmp_path: Path) -> None:
    curve = power_curve(tmp_path, session_of(tmp_path))
    assert curve is not None
    drawing = svg(curve, HOSTILE)
    assert len(drawing) < 30_000
    root = ElementTree.fromstring(drawing)
    assert {element.tag for element in root.iter()} <= {
        f"{SVG}{tag}" for tag in ("svg", "title", "rect", "polygon", "polyline", "path", "text")
    }
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert {"power", "250.0 W", "0", "4.0 s", "first", "inner"} <= set(texts)
    titles = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert any(title.startswith("first: 2.0 s") for title in titles)
    assert any('alert("x")' in title for title in titles), "as text"
    for element in root.iter(f"{SVG}rect"):
        assert 0 <= float(element.get("x", "0")) <= 640
        assert float(element.get("width", "0")) > 0


def test_a_gap_is_a_gap_and_without_power_there_is_no_plot(tmp_path: Path) -> None:
    t = np.arange(0, 6 * S, S // 100)
    t = t[(t < 2 * S) | (t > 4 * S)]
    gap, nothing, alone = (tmp_path / name for name in ("gap", "nothing", "alone"))
    for folder in (gap, nothing, alone):
        folder.mkdir()
    stream = made_stream(gap, [gauge("gpu0", "gpu", estimate=True)], t, [np.full(len(t), 80.0)], rate_hz=100)
    manifest = made_manifest(gap, [stream], (0, 6 * S))
    write_results(gap)
    curve = power_curve(gap, manifest)
    assert curve is not None and curve.estimate
    unknown = np.isnan(curve.watts)
    assert unknown.mean() == pytest.approx(1 / 3, abs=0.05)
    assert curve.watts[~unknown] == pytest.approx(80.0)
    assert len(ElementTree.fromstring(svg(curve, "")).findall(f"{SVG}polyline")) == 2
    assert "█ " in text_line(curve) and text_line(curve).endswith("0 to 80.0 W ESTIMATE")
    empty = made_manifest(nothing, [], (0, 6 * S))
    write_results(nothing)
    assert power_curve(nothing, empty) is None
    no_time = made_manifest(alone, [], (S, S))
    write_results(alone)
    assert power_curve(alone, no_time) is None


def test_totals_of_single_phases_are_those_of_the_summary(tmp_path: Path) -> None:
    manifest = session_of(tmp_path)
    first, inner, unknown = phase_totals(tmp_path, manifest, [("first", 1 * S), ("inner", 4 * S), ("first", 7)])
    assert unknown is None
    assert first is not None and inner is not None
    assert first.joules == pytest.approx(2 * 150.0, rel=0.01)
    assert inner.joules == pytest.approx(0.5 * 250.0, rel=0.01)
    summary = write_results(tmp_path)
    whole = {group.name: group.total for group in summary.phases}
    for name, total in (("first", first), ("inner", inner)):
        other = whole[name]
        assert other is not None
        for field in ("joules", "expanded_joules", "mean_watts", "coverage", "estimate", "accuracy_known", "terms"):
            assert getattr(total, field) == pytest.approx(getattr(other, field)), (name, field)
    assert HOST in summary.scope_of_total
    assert phase_totals(tmp_path, manifest, []) == []
