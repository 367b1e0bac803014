"""Writes `report.html`: a session's answers and what they rest on, in one file that opens offline."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from director.answers.host_text import common_host
from director.answers.number_text import watts_text
from director.answers.summary import OverHosts, Scaling, Summary
from director.report_page import host_data, page_data
from director.report_page.embed import Header, encode, json_in_html
from director.report_page.headline import chief_phase, headline
from director.report_page.phase_strip import Block, Strip, phase_strip
from director.report_page.plot_data import CAUSES, Envelope, PlotData, plot_data
from director.report_page.straggler_plot import Lateness, lateness
from director.report_page.template import render, shown
from director.session.files import write_durably
from director.session.manifest import Manifest

REPORT = "report.html"
MOST_PHASES = 12  # shown at once; the rest is folded away
MOST_DEVICES = 512  # in the table of readings
LONGEST_NAME = 120
COLOURS = 10  # of lines, in page.css
PARTS = (
    ("main", "Answer"),
    ("time", "Power"),
    ("energy", "Energy"),
    ("metrics", "Metrics"),
    ("uncertainty", "Uncertainty"),
    ("sampling", "Sampling"),
    ("again", "Reproduce"),
)


def write_page(session: Path, manifest: Manifest, summary: Summary) -> Path:
    """Write the page of a session whose results have just been computed, and return its path.

    The same session gives the same bytes.

    Raises:
        SessionError: a trace is missing or damaged.
        OSError: it cannot be written.
    """
    path = session / REPORT
    write_durably(path, session_html(session, manifest, summary).encode("utf-8", "backslashreplace"))
    return path


def session_html(session: Path, manifest: Manifest, summary: Summary) -> str:
    """The page as text."""
    data = plot_data(session, manifest)
    strip = phase_strip(session, data.origin_ns)
    over = summary.over_hosts
    late = lateness(session, over, data) if isinstance(over, OverHosts) else None
    panels = _panels(data, late, common_host(summary.phases))
    drawn = [*data.power, *(late.envelopes if late else []), *data.meters, *data.temperatures, *data.clocks]
    headers, values = encode(drawn)
    return render(
        "session.html",
        scripts=bool(panels),
        parts=_parts(summary),
        title=summary.label or summary.session,
        version=summary.tool_version,
        when=page_data.when_text(manifest),
        answer=headline(summary),
        ending=page_data.ending_text(summary),
        tiles=page_data.tiles(summary),
        warnings=summary.warnings,
        ran=manifest.workload is not None,
        panels=panels,
        rows_left_out=strip.rows_left_out,
        left_out=data.left_out,
        causes=CAUSES,
        throttling=[t for t in data.throttling if any(t.seconds.values())],
        phases=page_data.phase_bars(summary),
        most_phases=MOST_PHASES,
        phases_left_out=summary.phases_left_out,
        hosts=host_data.host_section(summary),
        scaling=host_data.scaling_rows(summary),
        metrics=summary.metrics,
        meanings=page_data.WHAT_METRICS_MEAN,
        part_label="ESTIMATE" if summary.estimate_only else "ESTIMATE in part",
        idle=[(name, watts_text(watts)) for name, watts in sorted(summary.idle_watts.items())],
        budgets=page_data.budgets(summary),
        sampling=summary.sampling,
        readings=page_data.component_readings(summary),
        most_devices=MOST_DEVICES,
        chief=chief_phase(summary).name,
        command=shlex.join(summary.command),
        own_command=page_data.own_command(summary, manifest),
        session=summary.session,
        facts=page_data.facts(summary, manifest),
        plots_json=json_in_html(_plots(data, strip, panels, headers)),
        values=values,
    )


def _parts(summary: Summary) -> list[tuple[str, str]]:
    """Anchors and names of the page's parts."""
    parts = list(PARTS)
    parts[1:1] = [("warnings", "Warnings")] if summary.warnings else []
    place = parts.index(("metrics", "Metrics"))
    parts[place:place] = [
        *([("hosts", "Hosts")] if isinstance(summary.over_hosts, OverHosts) else []),
        *([("scaling", "Scaling")] if isinstance(summary.scaling, Scaling) else []),
    ]
    return parts


@dataclass(frozen=True)
class Line:
    """One envelope in a plot."""

    line: int  # which of the embedded ones
    label: str
    channel: str
    colour: int


@dataclass(frozen=True)
class Panel:
    """One plot."""

    kind: str  # "power", "lateness", "meter", "temperature", "clock"
    title: str
    unit: str
    estimate: bool
    lines: list[Line]

    @property
    def part(self) -> str:
        """Which part of the page it begins or goes on: "heat" is about temperature and clocks."""
        return {"temperature": "heat", "clock": "heat", "meter": "meter"}.get(self.kind, "")

    @property
    def description(self) -> str:
        """For those who do not see it."""
        return f"{self.title} in {self.unit} over time of {', '.join(line.label for line in self.lines)}"


def _panels(data: PlotData, late: Lateness | None, host: str) -> list[Panel]:
    """Plots in the order of the page: power by scope, what meters tell besides, temperatures and clocks by unit."""
    groups: dict[tuple[str, str, str], list[tuple[int, Envelope]]] = {}
    kinds = [("power", data.power), ("lateness", late.envelopes if late else [])]
    kinds += [("meter", data.meters), ("temperature", data.temperatures), ("clock", data.clocks)]
    all_of_them = [(kind, envelope) for kind, envelopes in kinds for envelope in envelopes]
    for number, (kind, envelope) in enumerate(all_of_them):
        title = page_data.SCOPES.get(envelope.scope, envelope.scope) if kind == "power" else kind
        if kind == "meter":
            title = page_data.BESIDE_POWER[envelope.quantity]
        elif kind == "lateness" and late is not None:
            title = f"{shown(late.phase, 40)}: end after the median rank's"
        groups.setdefault((kind, title, envelope.unit), []).append((number, envelope))
    return [
        Panel(
            kind=kind,
            title=title[:1].upper() + title[1:],
            unit=unit,
            estimate=any(e.estimate for _, e in found),
            lines=[
                Line(number, e.name.removeprefix(host), e.channel, i % COLOURS) for i, (number, e) in enumerate(found)
            ],
        )
        for (kind, title, unit), found in groups.items()
    ]


def _plots(data: PlotData, strip: Strip, panels: Sequence[Panel], headers: Sequence[Header]) -> dict[str, object]:
    """What the page's script reads besides the values."""
    names: dict[str, int] = {}

    def block(b: Block) -> list[object]:
        code = names.setdefault(shown(b.name, LONGEST_NAME), len(names)) if b.name or b.count == 1 else -1
        return [round(b.begin_s, 6), round(b.end_s, 6), code, b.count, b.index]

    rows = [[block(b) for b in row] for row in strip.rows]
    return {
        "begin": data.begin_ns * 1e-9,
        "end": data.end_ns * 1e-9,
        "lines": headers,
        "panels": [
            {
                "kind": "power" if p.kind == "lateness" else p.kind,
                "unit": p.unit,
                "lines": [{"line": n.line, "colour": n.colour} for n in p.lines],
            }
            for p in panels
        ],
        "strip": rows,
        "who": [shown(name, LONGEST_NAME) for name in strip.who],
        "names": list(names),
        "throttling": [
            {cause: [[round(a, 3), round(b, 3)] for a, b in runs] for cause, runs in t.intervals.items() if runs}
            for t in data.throttling
        ],
    }
