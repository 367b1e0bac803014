"""A session's power over time on the room of a notebook's cell: as plain SVG, and as one line of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from director.answers.number_text import duration_text, watts_text
from director.energy.cells import Floats
from director.energy.channel_check import find_flaw
from director.energy.components import build_tree, roots
from director.report_page.phase_strip import Block, phase_strip
from director.report_page.plot_data import Envelope, plot_data
from director.session.manifest import Manifest

MOST_POINTS = 240
TEXT_WIDTH = 60
LEAST_SEEN = 0.5  # of a point's time, else it is a gap

_WIDTH, _PLOT_HEIGHT, _LANE_HEIGHT = 640, 96, 16
_LEFT, _TOP, _BOTTOM = 56, 22, 20
_CHARACTER = 6.2  # width of one at 11 px
# Okabe and Ito's colours, told apart with any colour vision; a card of its own, as a notebook may be light or dark.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_CARD, _INK, _FAINT = "#ffffff", "#222222", "#888888"
_STEPS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class PowerCurve:
    """The total power, as means over equal parts of the time; NaN: not measured."""

    watts: Floats
    duration_s: float
    estimate: bool
    phases: list[list[Block]]  # rows, outer phases before inner ones


def power_curve(session: Path, manifest: Manifest) -> PowerCurve | None:
    """The power of the outermost devices between the command's begin and end. None: none was measured.

    Raises:
        SessionError: a trace is missing or damaged.
    """
    work = manifest.workload
    if work is None or work.started_ns is None or work.ended_ns is None or work.ended_ns <= work.started_ns:
        return None
    data = plot_data(session, manifest)
    channels = [(h.name, c) for h in manifest.hosts for file in h.streams for c in file.stream.channels]
    cut = {c.name for c in roots(build_tree([(host, c) for host, c in channels if not find_flaw(c)]))}
    parts = [envelope for envelope in data.power if envelope.name in cut]
    if not parts or len(parts) < len(cut):
        return None
    duration_s = (work.ended_ns - work.started_ns) * 1e-9
    points = max(1, min(MOST_POINTS, *(math.ceil(duration_s * 1e9 / part.bin_ns) for part in parts)))
    edges_s = np.linspace(0.0, duration_s, points + 1)
    watts = np.sum([_means(part, edges_s) for part in parts], axis=0)
    if not np.isfinite(watts).any():
        return None
    rows = phase_strip(session, data.origin_ns).rows[1:]  # the first is the whole
    return PowerCurve(watts, duration_s, any(part.estimate for part in parts), rows)


def _means(envelope: Envelope, edges_s: Floats) -> Floats:
    """Mean watts between edges, where most of the time between them was measured."""
    known = np.isfinite(envelope.mean)
    bin_s = envelope.bin_ns * 1e-9
    at_s = envelope.begin_ns * 1e-9 + bin_s * np.arange(len(known) + 1)

    def until(values: Floats) -> Floats:
        return np.interp(edges_s, at_s, np.concatenate(([0.0], np.cumsum(values * bin_s))))

    seen_s = np.diff(until(known.astype(np.float64)))
    joules = np.diff(until(np.where(known, envelope.mean, 0.0)))
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Floats = np.where(seen_s > LEAST_SEEN * np.diff(edges_s), joules / seen_s, np.nan)
    return means


def text_line(curve: PowerCurve) -> str:
    """The curve in block characters from 0 W to the highest, with a space where nothing was measured."""
    parts = np.array_split(curve.watts, min(TEXT_WIDTH, len(curve.watts)))
    means = [float(part[np.isfinite(part)].mean()) if np.isfinite(part).any() else math.nan for part in parts]
    top = _top(curve.watts)
    steps = [" " if math.isnan(w) else _STEPS[min(max(int(w / top * len(_STEPS)), 0), len(_STEPS) - 1)] for w in means]
    return f"{''.join(steps)} 0 to {watts_text(top)} W" + (" ESTIMATE" if curve.estimate else "")


def svg(curve: PowerCurve, title: str) -> str:
    """The curve with its phases below, as an SVG element of a fixed size that needs no style and no script."""
    top = _top(curve.watts)
    height = _TOP + _PLOT_HEIGHT + _LANE_HEIGHT * len(curve.phases) + _BOTTOM
    base = _TOP + _PLOT_HEIGHT
    plot_width = _WIDTH - _LEFT - 12

    def x(seconds: float) -> float:
        return _LEFT + plot_width * min(max(seconds / curve.duration_s, 0.0), 1.0)

    step_s = curve.duration_s / len(curve.watts)
    areas = []
    for run in _runs(curve.watts):
        points = [(x(i * step_s), x((i + 1) * step_s), base - _PLOT_HEIGHT * max(curve.watts[i], 0) / top) for i in run]
        line = " ".join(f"{left:.1f},{y:.1f} {right:.1f},{y:.1f}" for left, right, y in points)
        outline = f"{points[0][0]:.1f},{base} {line} {points[-1][1]:.1f},{base}"
        areas.append(f'<polygon points="{outline}" fill="{_COLOURS[0]}" fill-opacity="0.2"/>')
        areas.append(f'<polyline points="{line}" fill="none" stroke="{_COLOURS[0]}" stroke-width="1.5"/>')
    heading = "power" + (", ESTIMATE" if curve.estimate else "")
    texts = [
        _text(_LEFT, _TOP - 8, heading, weight="bold"),
        _text(_LEFT - 6, _TOP + 8, f"{watts_text(top)} W", anchor="end"),
        _text(_LEFT - 6, base, "0", anchor="end"),
        _text(_LEFT, height - 6, "0", colour=_FAINT),
        _text(_WIDTH - 12, height - 6, duration_text(curve.duration_s), anchor="end", colour=_FAINT),
    ]
    axis = f'<path d="M{_LEFT} {_TOP}V{base}H{_WIDTH - 12}" fill="none" stroke="{_FAINT}"/>'
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" role="img" '
            f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="11">',
            f"<title>{_clean(title)}</title>",
            f'<rect width="{_WIDTH}" height="{height}" rx="4" fill="{_CARD}"/>',
            *areas,
            axis,
            *texts,
            *_lanes(curve.phases, base, x),
            "</svg>",
        ]
    )


def _top(watts: Floats) -> float:
    """The upper end of the scale; above zero."""
    highest = float(np.nanmax(watts))
    return highest if highest > 0 else 1.0


def _runs(watts: Floats) -> list[range]:
    """Stretches of points without a gap."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], np.isfinite(watts), [False])).astype(np.int8)))
    return [range(a, b) for a, b in edges.reshape(-1, 2).tolist()]


def _lanes(rows: Sequence[Sequence[Block]], base: float, x: Callable[[float], float]) -> list[str]:
    colour_of: dict[str, str] = {}
    parts = []
    for number, row in enumerate(rows):
        y = base + number * _LANE_HEIGHT + 3
        for block in row:
            name = block.name + (f" {block.index}" if block.index is not None else "")
            told = f"{name or 'phases'}" + (f" ×{block.count}" if block.count > 1 else "")
            colour = colour_of.setdefault(block.name, _COLOURS[len(colour_of) % len(_COLOURS)])
            left, width = x(block.begin_s), max(x(block.end_s) - x(block.begin_s), 1.0)
            seconds = duration_text(max(block.end_s - block.begin_s, 0.0))
            parts.append(
                f'<rect x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_LANE_HEIGHT - 3}" '
                f'fill="{colour}" fill-opacity="0.35" stroke="{_CARD}" stroke-width="0.5">'
                f"<title>{_clean(told)}: {seconds}</title></rect>"
            )
            if len(told) * _CHARACTER + 6 <= width:
                parts.append(_text(left + 3, y + _LANE_HEIGHT - 6, told))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK, weight: str = "") -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{bold}>{_clean(text)}</text>'


def _clean(text: str) -> str:
    """Text that others wrote, as XML takes it."""
    return escape("".join(c if c.isprintable() else " " for c in text)[:200])
