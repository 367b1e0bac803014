"""docs/benchmarks.md and its figures, from the stored results and nothing else.

A result is benchmarks/results/NAME.json: what a benchmark printed, when, where and by which command, and for the error
curves their figures. `python benchmarks/all.py --only NAME` replaces one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import curve_plots
from error_curves import METHODS
from simulated_work import PLACES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results")
PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images" / "benchmarks"
CURVES = "curves"
SHOWN_S = (0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 600.0)  # columns of the tables

INTRODUCTION = """# Benchmarks

`make bench` runs every benchmark and writes this page; `python benchmarks/all.py --only NAME` runs one again and leaves
the rest. Each section says when and where it was measured. Ratios within one section hold better than single times.
Methods: the docstring of each command.
"""

CURVES_TEXT = """{phases} phases of each length and place, on simulated devices whose true energy is known; loads are
flat, square, sine, ramp and noise. A phase is either a whole work *between idle times*, so that power steps at both of
its edges, or lies *within a work* that goes on around it. The band is our stated U: a line above it is an error larger
than we would have said. All methods share the error of the device itself, up to ±5 % (the wall meter: ±0.25 %), and
none can fall below about half of that in the median.

- **Ours** polls at the default rate of each device. *counter* differences its energy counter, *integrated* is power
  over time, *padded* takes idle time around the phase along and its idle energy off; it needs idle time, and short
  phases. The report takes whichever has the smallest U.
- **zeus** and **codecarbon**: {peers}. On GPUs
  from Volta on both read the energy counter, as we do: see the GPU's counter. Where there is none, zeus polls power as
  fast as it can, keeps new values, and integrates by trapezoids between the samples within the window; codecarbon takes
  the mean of a reading a second, times the time, every 15 s, its default, and at the end. On an H100 zeus polls the
  instant power and codecarbon's call gives the average. zeus counts the wraps of RAPL in a process of its own, in real
  time; its rule is written down again here, as if it saw every wrap.
- The rest are rules written down here: **Σ P·Δt** of our own samples within the phase; **nvidia-smi -l 1**; the rules
  of **MLPerf** Inference (mean of the samples within × duration) and Training (each sample times the time since the one
  before), at 1 Hz. Those are made for minutes, and are right there.

Where we do worse than others, or than we say:

- Two reads of a counter, one at each edge of the phase, beat readings that are polled ten times a second for phases of
  less than a second between idle times: see RAPL. We poll, so that the workload never waits for a read.
- For phases between idle times U can be too small: for those shorter than the update or the averaging window of the
  device, and for *padded* energies of the 1 Hz wall meter up to a minute. U promises to hold the truth in 95 % of
  cases; the rows *within our U* say in how many it did.
"""


def load() -> dict[str, dict[str, Any]]:
    """All stored results by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def render(results: dict[str, dict[str, Any]], order: list[str]) -> str:
    """The page; sections in the given order, those without a result left out."""
    parts = [INTRODUCTION]
    for name in order:
        if name in results:
            result = results[name]
            parts.append(f"## {result['title']}\n\n{_origin(result)}\n")
            parts.append(_curves(result) if name == CURVES else _printed(result))
    return "\n".join(parts)


def figures(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    """SVG by file name."""
    found = results[CURVES]["figures"]
    return {f"{name}.svg": curve_plots.draw(device, found["lengths_s"]) for name, device in found["devices"].items()}


def write(order: list[str]) -> None:
    """Write the page and its figures."""
    results = load()
    PAGE.write_text(render(results, order), encoding="utf-8")
    if CURVES in results:
        IMAGES.mkdir(parents=True, exist_ok=True)
        for name, svg in figures(results).items():
            (IMAGES / name).write_text(svg, encoding="utf-8")


def _origin(result: dict[str, Any]) -> str:
    took = f" Took {result['seconds']:.0f} s." if result["seconds"] is not None else ""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    note = f" {result['note']}" if result.get("note") else ""
    return f"`{result['command']}`\n\n{result['date']}, {result['machine']}; {versions}.{took}{note}"


def _printed(result: dict[str, Any]) -> str:
    return "\n".join(["```", *result["printed"], "```", ""])


def _curves(result: dict[str, Any]) -> str:
    found = result["figures"]
    versions = result["versions"]
    peers = (
        f"their own code, zeus {versions['zeus']} and codecarbon {versions['codecarbon']}, on the simulated devices"
        if "zeus" in versions and "codecarbon" in versions
        else "left out of this run, which was not given `--peers-python`"
    )
    parts = [CURVES_TEXT.format(phases=found["phases"], peers=peers)]
    columns = [found["lengths_s"].index(s) for s in SHOWN_S]
    for name, device in found["devices"].items():
        parts.append(f"### {device['title']}\n")
        parts.append(f"![Error of the energy by length of the phase; figures below](images/benchmarks/{name}.svg)\n")
        for place in PLACES:
            parts.append(_table(device["places"][place], place, columns))
    return "\n".join(parts)


def _table(shown: dict[str, Any], place: str, columns: list[int]) -> str:
    """Median / 95th percentile by method and length."""
    heads = [f"{s * 1000:g} ms" if s < 0.5 else f"{s:g} s" for s in SHOWN_S]
    lines = [f"| {place}, % | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for key, method in shown["methods"].items():
        cells = [f"{_percent(method['median'][i])} / {_percent(method['p95'][i])}" for i in columns]
        cells = [cell if cell != "– / –" else "–" for cell in cells]
        lines.append(f"| {METHODS[key]} | {' | '.join(cells)} |")
    lines.append(f"| our U, median | {' | '.join(_percent(shown['U'][i]) for i in columns)} |")
    held = [f"{100 * shown['within_U'][i]:.0f}" for i in columns]
    lines.append(f"| within our U | {' | '.join(held)} |")
    return "\n".join([*lines, ""])


def _percent(fraction: float | None) -> str:
    if fraction is None:
        return "–"
    percent = 100 * fraction
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.1f}" if percent >= 1 else f"{percent:.2f}"
