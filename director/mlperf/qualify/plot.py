"""Draws the meter test: both meters over the five minutes of each level, and the differences against the limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from director.answers.number_text import figure_text
from director.energy.cells import Floats
from director.mlperf.qualify.meter_test import MINUTES, LevelResult, Measured, Qualification
from director.report_files.plots import save_figures
from director.report_page.template import shown

_WIDTH_IN, _LEVEL_IN, _DIFFERENCES_IN = 7.2, 1.5, 1.7
_METER, _REFERENCE = "#0072b2", "#d55e00"  # Okabe and Ito's
_WITHIN, _BEYOND = "#009e73", "#cc79a7"


def draw(found: Qualification, path: Path) -> None:
    """Draw into a file, whose ending is .svg or .png.

    Raises:
        OSError: it cannot be written.
    """
    save_figures(_figures(found, path), path.suffix[1:])


def _figures(found: Qualification, path: Path) -> Iterator[tuple[Path, Figure]]:
    heights = [*[_LEVEL_IN] * len(found.levels), _DIFFERENCES_IN]
    figure = Figure(figsize=(_WIDTH_IN, sum(heights) + 1.1), layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    verdict = "qualifies" if found.passes else "does not qualify"
    figure.suptitle(f"the meter {verdict} (limit {found.limit_percent:g} %)", fontsize=10)
    for axis, level in zip(axes, found.levels, strict=False):
        _level(axis, level)
    axes[len(found.levels) - 1].set_xlabel("minute")
    _differences(axes[-1], found)
    lines = axes[0].get_legend_handles_labels()[0]
    names = [f"meter: {shown(found.meter, 90)}", f"reference: {shown(found.reference, 90)}", "mean of a minute"]
    names += ["dropped: the highest, the lowest"]
    figure.legend(lines, names, loc="outside lower center", ncols=1, frameon=False, fontsize=7)
    yield path, figure


def _level(axis: Any, level: LevelResult) -> None:
    values = []
    for curve, colour in zip(level.curves, (_METER, _REFERENCE), strict=True):
        at = np.linspace(0, MINUTES, len(curve) + 1)
        axis.step(at, np.append(curve, curve[-1]), where="post", color=colour, lw=0.8, alpha=0.6, label="curve")
        values.append(curve)
    _minutes(axis, level.meter, _METER, label="minutes")
    _minutes(axis, level.reference, _REFERENCE)
    axis.set_xlim(0, MINUTES)
    axis.set_ylim(*_limits(np.concatenate(values)))
    axis.set_ylabel("W")
    title = (
        f"{shown(level.name, 30)}: meter {figure_text(level.meter.olympic, level.meter.expanded, 'W')}, "
        f"reference {figure_text(level.reference.olympic, level.reference.expanded, 'W')}"
    )
    axis.set_title(title, loc="left", pad=3)


def _minutes(axis: Any, measured: Measured, colour: str, label: str = "") -> None:
    """Means; those that the Olympic mean drops dotted."""
    for dropped, style in ((False, "-"), (True, ":")):
        at = [minute for minute in range(MINUTES) if (minute in measured.dropped) == dropped]
        watts = [measured.minutes[minute] for minute in at]
        axis.hlines(watts, at, [minute + 1 for minute in at], color=colour, lw=2, linestyles=style, label=label)


def _limits(watts: Floats) -> tuple[float, float]:
    low, high = float(np.nanmin(watts)), float(np.nanmax(watts))
    room = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _differences(axis: Any, found: Qualification) -> None:
    limit = found.limit_percent
    axis.axhspan(-limit, limit, color=_WITHIN, alpha=0.12, lw=0)
    axis.axhline(0, color="#888888", lw=0.8)
    largest = limit
    for at, level in enumerate(found.levels):
        colour = _WITHIN if level.passes else _BEYOND
        axis.errorbar(at, level.difference_percent, level.expanded_percent, color=colour, marker="o", capsize=4)
        text = f"{level.difference_percent:+.2f} ± {level.expanded_percent:.2f} %{'' if level.passes else ': beyond'}"
        axis.annotate(text, (at, level.difference_percent), xytext=(8, 0), textcoords="offset points", va="center")
        largest = max(largest, abs(level.difference_percent) + level.expanded_percent)
    axis.set_xticks(range(len(found.levels)), [shown(level.name, 30) for level in found.levels])
    axis.set_xlim(-0.5, len(found.levels) - 0.2)
    axis.set_ylim(-1.15 * largest, 1.15 * largest)
    axis.set_ylabel("difference, %")
    lacking = "" if found.accuracy_known else ", without the error of a meter itself"
    axis.set_title(f"difference of the Olympic means ± U (k = 2{lacking}); shaded: ± {limit:g} %", loc="left", pad=3)
