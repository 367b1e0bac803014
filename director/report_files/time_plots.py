"""Power, temperature and clocks over time: a row per device, with phases, and times of throttling, shaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from director.answers.host_text import common_host
from director.answers.summary import Summary
from director.energy.cells import Floats
from director.report_page.page_data import SCOPES
from director.report_page.phase_strip import Block, phase_strip
from director.report_page.plot_data import CAUSES, Envelope, PlotData, Throttling, plot_data
from director.report_page.template import shown
from director.session.manifest import Manifest

MOST_ROWS = 10  # in a file: as many as a printed page has room for
MOST_COLUMNS = 1200  # of a line: more than a printed page shows
MOST_LANES = 3
MOST_SHADED = 60  # phases: more would be stripes
MOST_NAMES = 8  # of phases in the legend
WIDTH_IN, ROW_IN, LANE_IN = 7.2, 1.1, 0.22
CHARACTER_IN = 0.075
LINE = "#0b4f8a"
# Okabe and Ito's, told apart with any colour vision.
PHASE_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#f0e442", "#999999")
CAUSE_LOOKS = {"heat": ("#d55e00", "////"), "power limit": ("#cc79a7", "...."), "hardware": ("#555555", "\\\\\\\\")}


def time_plots(session: Path, manifest: Manifest, title: str, summary: Summary) -> Iterator[tuple[str, Figure]]:
    """File names without their ending, and figures."""
    data = plot_data(session, manifest)
    lanes = phase_strip(session, data.origin_ns).rows[1 : 1 + MOST_LANES]  # the first is the whole
    drawer = _Drawer(data, [lane for lane in lanes if lane], common_host(summary.phases))
    by_scope: dict[str, list[Envelope]] = {}
    for envelope in data.power:
        by_scope.setdefault(envelope.scope, []).append(envelope)
    for scope, found in by_scope.items():
        heading = f"{title}: power over time, {SCOPES.get(scope, scope)}"
        yield from drawer.figures(f"power-{scope}", heading, found, [])
    drawer.shade_phases = False  # shading tells of throttling there
    yield from drawer.figures("temperature", f"{title}: temperature", data.temperatures, data.throttling)
    yield from drawer.figures("clocks", f"{title}: clocks", data.clocks, data.throttling)


class _Drawer:
    def __init__(self, data: PlotData, lanes: Sequence[Sequence[Block]], host: str) -> None:
        self._begin_s, self._end_s = data.begin_ns * 1e-9, data.end_ns * 1e-9
        self._lanes = lanes
        self._host = host
        self._unit, self._unit_s = _time_unit(self._end_s - self._begin_s)
        few = [lane for lane in lanes if len(lane) <= MOST_SHADED]
        self._shaded = few[-1] if few else []
        self.shade_phases = True
        self._colour_of: dict[str, str] = {}
        for block in (block for lane in lanes for block in lane):
            self._colour_of.setdefault(block.name, PHASE_COLOURS[len(self._colour_of) % len(PHASE_COLOURS)])

    def figures(
        self, name: str, title: str, envelopes: Sequence[Envelope], throttling: Sequence[Throttling]
    ) -> Iterator[tuple[str, Figure]]:
        """As many as printed pages are needed."""
        estimates = sum(envelope.estimate for envelope in envelopes)
        if estimates:
            title += ", ESTIMATE" if estimates == len(envelopes) else ", ESTIMATE in part"
        for first in range(0, len(envelopes), MOST_ROWS):
            page = first // MOST_ROWS + 1
            figure = self._figure(title, envelopes[first : first + MOST_ROWS], throttling)
            yield name if page == 1 else f"{name}-{page}", figure

    def _figure(self, title: str, envelopes: Sequence[Envelope], throttling: Sequence[Throttling]) -> Figure:
        lanes_in = [LANE_IN * len(self._lanes)] if self._lanes else []
        heights = [*lanes_in, *[ROW_IN] * len(envelopes)]
        figure = Figure(figsize=(WIDTH_IN, sum(heights) + 1.1), layout="constrained")
        axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        figure.suptitle(title, fontsize=10)
        if self._lanes:
            self._draw_lanes(axes[0])
        limits = {unit: _limits([e for e in envelopes if e.unit == unit]) for unit in {e.unit for e in envelopes}}
        for axis, envelope in zip(axes[len(lanes_in) :], envelopes, strict=True):
            self._draw(axis, envelope)
            axis.set_ylim(*limits[envelope.unit])
            for held in throttling:
                if held.device == envelope.device:
                    self._shade_throttling(axis, held)
        axes[-1].set_xlim(self._begin_s / self._unit_s, self._end_s / self._unit_s)
        axes[-1].set_xlabel(f"time from the start, {self._unit}")
        devices = {envelope.device for envelope in envelopes}
        self._add_legend(figure, [held for held in throttling if held.device in devices])
        return figure

    def _draw(self, axis: Any, envelope: Envelope) -> None:
        edges_s, least, mean, most = columns(envelope)
        edges = edges_s / self._unit_s
        if self.shade_phases:
            across = axis.get_xaxis_transform()
            for colour, spans in self._spans(self._shaded).items():
                axis.broken_barh(spans, (0, 1), transform=across, color=colour, alpha=0.18, lw=0, zorder=0)
        # Steps, with square ends, so that a single reading between two gaps is seen.
        x = np.repeat(edges, 2)[1:-1]
        # The outline keeps a peak of one reading wide enough to be seen.
        axis.fill_between(x, np.repeat(least, 2), np.repeat(most, 2), color=LINE, alpha=0.4, lw=0.5)
        axis.plot(x, np.repeat(mean, 2), color=LINE, lw=0.9, solid_capstyle="projecting")
        name = shown(envelope.name.removeprefix(self._host), 80)
        axis.set_title(name + (" ESTIMATE" if envelope.estimate else ""), loc="left", pad=3)
        axis.set_ylabel(shown(envelope.unit, 12))

    def _span(self, block: Block) -> tuple[float, float]:
        """Begin and length of what is seen of it."""
        begin_s, end_s = (min(max(t, self._begin_s), self._end_s) for t in (block.begin_s, block.end_s))
        return begin_s / self._unit_s, (end_s - begin_s) / self._unit_s

    def _spans(self, blocks: Sequence[Block]) -> dict[str, list[tuple[float, float]]]:
        """By colour."""
        spans: dict[str, list[tuple[float, float]]] = {}
        for block in blocks:
            spans.setdefault(self._colour_of[block.name], []).append(self._span(block))
        return spans

    def _draw_lanes(self, axis: Any) -> None:
        """Phases as blocks, outer above inner ones, with their names where there is room."""
        per_unit_in = (WIDTH_IN - 0.8) / (self._end_s - self._begin_s) * self._unit_s
        for number, lane in enumerate(self._lanes):
            y = -number
            for colour, spans in self._spans(lane).items():
                axis.broken_barh(spans, (y - 0.45, 0.9), facecolor=colour, alpha=0.55, edgecolor="white", lw=0.3)
            for block in lane:
                begin, length = self._span(block)
                text = _block_text(block)
                if len(text) * CHARACTER_IN < length * per_unit_in:
                    axis.text(begin + length / 2, y, text, ha="center", va="center", fontsize=7, clip_on=True)
        axis.set_ylim(-len(self._lanes) + 0.45, 0.55)
        axis.set_yticks([])
        axis.grid(False)
        axis.tick_params(bottom=False)
        for spine in axis.spines.values():
            spine.set_visible(False)

    def _shade_throttling(self, axis: Any, held: Throttling) -> None:
        for cause in CAUSES:
            colour, hatch = CAUSE_LOOKS[cause]
            spans = [(a / self._unit_s, (b - a) / self._unit_s) for a, b in held.intervals[cause]]
            if spans:
                across = axis.get_xaxis_transform()
                style = {"facecolor": "none", "edgecolor": colour, "hatch": hatch, "lw": 0, "alpha": 0.7}
                axis.broken_barh(spans, (0, 1), transform=across, zorder=0.5, **style)

    def _add_legend(self, figure: Figure, throttling: Sequence[Throttling]) -> None:
        names = list(self._colour_of.items())
        entries = [(_legend_text(name), Patch(color=colour, alpha=0.55, lw=0)) for name, colour in names[:MOST_NAMES]]
        if len(names) > MOST_NAMES:
            entries.append((f"and {len(names) - MOST_NAMES} more names of phases", Patch(color="none")))
        for cause in CAUSES:
            if any(held.intervals[cause] for held in throttling):
                colour, hatch = CAUSE_LOOKS[cause]
                entries.append((f"clocks held back: {cause}", Patch(fc="none", ec=colour, hatch=hatch, lw=0)))
        if entries:
            labels, patches = zip(*entries, strict=True)
            widest_in = CHARACTER_IN * max(len(label) for label in labels) + 0.5
            per_row = max(1, int(WIDTH_IN / widest_in))
            figure.legend(patches, labels, loc="outside lower center", ncols=per_row, frameon=False, fontsize=7)


def columns(envelope: Envelope) -> tuple[Floats, Floats, Floats, Floats]:
    """Edges (s from the origin, N + 1), and N times least, mean and largest of as many bins as a column holds."""
    bins = len(envelope.mean)
    each = math.ceil(bins / MOST_COLUMNS)
    starts = np.arange(0, bins, each)
    edges_s = (envelope.begin_ns + np.append(starts, bins) * envelope.bin_ns) * 1e-9
    seen = np.isfinite(envelope.mean)
    number = np.add.reduceat(seen.astype(np.float64), starts)
    total = np.add.reduceat(np.where(seen, envelope.mean, 0.0), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(number > 0, total / number, np.nan)
    least, most = (f.reduceat(v, starts) for f, v in ((np.fmin, envelope.least), (np.fmax, envelope.most)))
    return edges_s, least, mean, most


def _limits(envelopes: Sequence[Envelope]) -> tuple[float, float]:
    """Of the axis: one for all rows, so that they can be compared; that of power begins at zero."""
    low = min(float(np.nanmin(envelope.least)) for envelope in envelopes)
    high = max(float(np.nanmax(envelope.most)) for envelope in envelopes)
    if envelopes[0].unit == "W":
        low = min(low, 0.0)
    room = 0.08 * (high - low) or 1.0
    return (low - room if low else 0.0), high + room


def _time_unit(span_s: float) -> tuple[str, float]:
    if span_s < 180:
        return "s", 1.0
    return ("min", 60.0) if span_s < 3 * 3600 else ("h", 3600.0)


def _block_text(block: Block) -> str:
    name = shown(block.name, 40) if block.name or block.count == 1 else "phases"
    return (
        name + (f" {block.index}" if block.index is not None else "") + (f" ×{block.count}" if block.count > 1 else "")
    )


def _legend_text(name: str) -> str:
    """A label that begins with an underscore would be left out."""
    text = shown(name, 30) or "phases of several names"
    return f" {text}" if text.startswith("_") else text
