"""Draws the error curves of one kind of device as SVG: the same bytes from the same figures, light and dark.

Colours differ in lightness and each line has a mark of its own, so that they can be told apart without colour. An SVG
viewer that knows no style sheets shows the light one.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from html import escape
from typing import Any

from error_curves import METHODS, OURS
from simulated_work import PLACES

BACKGROUND, INK, GRID, BAND = "#fefefe", "#1f2328", "#d0d7de", "#dcebf5"
DARK = {BACKGROUND: "#0d1117", INK: "#e6edf3", GRID: "#30363d", BAND: "#12304a"}
# of each method: colour on light and on dark, mark, dash
LOOKS: dict[str, tuple[str, str, str, str]] = {
    "counter": ("#0072b2", "#56b4e9", "o", "-"),
    "integrated": ("#0072b3", "#56b4e8", "o", "-"),
    "padded": ("#00805d", "#2cc79a", "D", "-"),
    "zeus": ("#c04f00", "#ff8a3d", "^", "--"),
    "zeus-polled": ("#c04f02", "#ff8a3b", "^", "--"),
    "codecarbon": ("#a8437f", "#e59cc5", "v", "--"),
    "codecarbon-power": ("#a84380", "#e59cc6", "v", "--"),
    "sum": ("#7a6a00", "#e8d44d", "x", ":"),
    "smi": ("#5c5c5c", "#b5b5b5", "+", ":"),
    "inference": ("#000001", "#fffffe", "s", ":"),
    "training": ("#6a3d9a", "#c4a3f0", "*", ":"),
    "edges": ("#c04f01", "#ff8a3c", "^", "--"),
    "two-reads": ("#5c5c5d", "#b5b5b4", "+", ":"),
}
HIGHEST = 20.0  # of the axis, as a fraction of the energy
STYLE = {
    "svg.hashsalt": "error curves",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": BACKGROUND,
    "figure.facecolor": BACKGROUND,
    "savefig.facecolor": BACKGROUND,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
}


def digest(device: dict[str, Any]) -> str:
    """Of the figures that a drawing shows; the drawing carries it."""
    return hashlib.sha256(json.dumps(device, sort_keys=True).encode()).hexdigest()[:16]


def draw(device: dict[str, Any], lengths_s: list[float]) -> str:
    """The SVG of one kind of device: columns are places of a phase, rows median and 95th percentile."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(2, 2, figsize=(10, 8.2), sharex=True, sharey=True, layout="constrained")
        figure.get_layout_engine().set(wspace=0.05, rect=(0, 0, 0.985, 1))
        lowest = 5e-4 if _least(device) < 5e-3 else 5e-3
        lines: dict[str, Any] = {}
        for column, place in enumerate(PLACES):
            shown = device["places"][place]
            for row, (which, text) in enumerate((("median", "median error"), ("p95", "95th percentile of the error"))):
                axis = axes[row, column]
                lines |= _panel(axis, shown, which, lengths_s, lowest)
                if row == 0:
                    axis.set_title(f"phase {place}", fontsize=11)
                else:
                    axis.set_xlabel("length of the phase")
                if column == 0:
                    axis.set_ylabel(text)
        figure.suptitle(device["title"], fontsize=13, color=INK)
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
        pyplot.close(figure)
    return _finish(target.getvalue(), device)


def _least(device: dict[str, Any]) -> float:
    """The smallest error in the figure."""
    methods = [method for place in PLACES for method in device["places"][place]["methods"].values()]
    return min(v for method in methods for which in ("median", "p95") for v in method[which] if v is not None)


def _panel(axis: Any, shown: dict[str, Any], which: str, lengths_s: list[float], lowest: float) -> dict[str, Any]:
    """Draw one panel; returns its lines by what the legend calls them."""
    band = axis.fill_between(lengths_s, lowest, [max(u, lowest) for u in shown["U"]], color=BAND, lw=0, zorder=0)
    lines = {"our stated U (median)": band}
    for key, (colour, _, mark, dash) in LOOKS.items():
        values = shown["methods"].get(key, {}).get(which)
        if values is None:
            continue
        points = [(s, min(max(v, lowest), HIGHEST)) for s, v in zip(lengths_s, values, strict=True) if v is not None]
        (line,) = axis.plot(
            *zip(*points, strict=True),
            color=colour,
            linestyle=dash,
            marker=mark,
            markersize=5.5,
            linewidth=2.4 if key in OURS else 1.4,
            zorder=3 if key in OURS else 2,
        )
        lines[METHODS[key]] = line
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([0.05, 0.2, 1, 5, 20, 60, 600], ["50 ms", "0.2 s", "1 s", "5 s", "20 s", "1 min", "10 min"])
    axis.set_yticks([1e-3, 1e-2, 1e-1, 1, 10], ["0.1 %", "1 %", "10 %", "100 %", "1000 %"])
    axis.set_xlim(0.04, 750)
    axis.set_ylim(lowest, HIGHEST)
    axis.minorticks_off()
    axis.grid(linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return lines


def _finish(svg: str, device: dict[str, Any]) -> str:
    """Add what a reader without eyes gets, where the figures come from, and the dark colours."""
    pairs = {**DARK, **{light: dark for light, dark, _, _ in LOOKS.values()}}
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in pairs.items()
        for kind in ("fill", "stroke")
    )
    title = f"<title>{escape(device['title'])}: error of the energy by length of the phase</title>"
    source = f"<desc>Figures: benchmarks/results/curves.json, {digest(device)}</desc>"
    head = f"{title}{source}<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(<svg\b)([^>]*>)", rf'\1 role="img"\2\n {head}', svg, count=1)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
