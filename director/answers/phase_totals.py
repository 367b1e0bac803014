"""The totals of single phases, from the tables of a finished session: `summary.json` has sums over names only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from director.answers.summary import EnergyFigure
from director.energy.channel_check import find_flaw
from director.energy.components import build_tree, roots
from director.energy.group_energy import total_figure
from director.energy.interval_energy import TERMS
from director.session.manifest import Manifest


def phase_totals(session: Path, manifest: Manifest, wanted: Sequence[tuple[str, int]]) -> list[EnergyFigure | None]:
    """The total energy of each phase that is named, over the outermost measured devices.

    Args:
        session: a session whose results have been computed.
        manifest: of that session.
        wanted: name and begin of each phase (monotonic ns).

    Returns:
        A figure for each; None: there is no such phase, or nothing was measured that may be added up.
    """
    import pyarrow.parquet as pq

    if not wanted:
        return []
    table = pq.read_table(session / "phases.parquet", columns=["name", "begin_ns"])
    keys = zip(table["name"].to_pylist(), table["begin_ns"].to_pylist(), strict=True)
    row_of = {key: row for row, key in enumerate(keys)}
    rows = [row_of.get(key) for key in wanted]
    channels = [(h.name, channel) for h in manifest.hosts for file in h.streams for channel in file.stream.channels]
    accurate = {channel.name for _, channel in channels if channel.accuracy is not None}
    cut = roots(build_tree([(host, channel) for host, channel in channels if not find_flaw(channel)]))
    found = pq.read_table(
        session / "energies.parquet",
        filters=[("phase", "in", {row for row in rows if row is not None}), ("component", "in", [c.name for c in cut])],
    )
    figures = {(row["phase"], row["component"]): _figure(row, accurate) for row in found.to_pylist()}
    return [
        None
        if row is None or any((row, c.name) not in figures for c in cut)  # one that stands for its own host
        else total_figure("total", [(c, figures[row, c.name], c.channels[0].model) for c in cut])
        for row in rows
    ]


def _figure(row: dict[str, Any], accurate: set[str]) -> EnergyFigure:
    known = row["joules"] is not None
    return EnergyFigure(
        name=row["component"],
        scope=row["scope"],
        method=row["method"],
        joules=row["joules"],
        expanded_joules=row["expanded_joules"],
        mean_watts=row["mean_watts"],
        peak_watts=row["peak_watts"],
        coverage=row["coverage"],
        estimate=row["estimate"],
        accuracy_known=row["channel"] in accurate,
        readings=row["readings"],
        stale=row["stale"],
        missing=row["missing"],
        terms={term: row[f"u_{term}_joules"] for term in TERMS} if known else {},
        channels=[row["channel"]],
    )
