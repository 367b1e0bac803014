"""One page about what measured a system's power: hosts, meters, rates, accuracy, coverage and what the total covers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from director.answers.number_text import figure_text
from director.answers.report_command import SUMMARY
from director.answers.summary import Summary
from director.mlperf.export.new_folder import ExportRefused
from director.mlperf.export.power_readings import finished_manifest
from director.session.manifest import Host, Manifest, StreamFile
from drivers.contract import Channel

PAGE = "power-description.md"
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|])")


def write_power_description(folder: Path, session: Path) -> Path:
    """Write the page.

    Raises:
        ExportRefused: the session was not finished, or its results were not computed.
    """
    manifest = finished_manifest(session)
    path = session / SUMMARY
    try:
        summary = msgspec.json.decode(path.read_bytes(), type=Summary)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        again = f"compute it with `power-director report {session}`"
        raise ExportRefused(f"{path} cannot be read; {again}") from error
    page = folder / PAGE
    page.write_text("\n".join(_lines(manifest, summary)) + "\n", encoding="utf-8")
    return page


def _lines(manifest: Manifest, summary: Summary) -> Iterator[str]:
    yield f"# Power measurement of {_plain(manifest.label or manifest.session)}"
    yield ""
    yield f"Session {_plain(manifest.session)}, written by power-director {_plain(manifest.tool_version)}."
    if summary.estimate_only:
        yield "\n**ESTIMATE: nothing here was measured.**"
    if manifest.replay_clock is not None:
        yield "\nReadings were replayed from a recording."
    yield f"\nThe total covers {_plain(summary.scope_of_total)}."
    for host in manifest.hosts:
        yield f"\n## {_plain(host.name)}\n"
        yield from _table(("", ""), [(key, value) for key, value in sorted(host.system.items())])
        yield "\n### Meters\n"
        yield from _table(("channel", "what", "sees", "readings/s", "accuracy of the meter (limits)"), _meters(host))
    yield "\n## Phases\n"
    yield from _table(("phase", "seconds", "energy ± U (k = 2)", "coverage"), _phases(summary))
    if any(f.total is not None and not f.total.accuracy_known for f in summary.phases):
        yield "\nU leaves out the meter's own accuracy where nobody states it."
    yield "\n## Sampling\n"
    rows = [(s.stream, f"{s.rate_hz:g}", s.due, s.taken, s.late, s.missed, s.dropped_rows) for s in summary.sampling]
    yield from _table(("stream", "Hz", "due", "on time", "late", "missed", "dropped"), rows)
    if summary.warnings or manifest.missing:
        yield "\n## Warnings\n"
        yield from (f"- {_plain(text)}" for text in [*summary.warnings, *manifest.missing])


def _meters(host: Host) -> list[tuple[str, ...]]:
    return [
        (channel.name, _what(channel), channel.scope, _rate(file), _accuracy(channel))
        for file in host.streams
        for channel in file.stream.channels
        if channel.quantity in ("power", "energy") and channel.kind != "state"
    ]


def _what(channel: Channel) -> str:
    words = [channel.model or channel.description or channel.device, "ESTIMATE" if channel.estimate else ""]
    return ", ".join(word for word in words if word)


def _rate(file: StreamFile) -> str:
    return f"{file.stream.rate_hz:g}"


def _accuracy(channel: Channel) -> str:
    if channel.accuracy is None:
        return "not stated"
    parts = []
    if channel.accuracy.reading_fraction:
        parts.append(f"{channel.accuracy.reading_fraction * 100:g} % of reading")
    if channel.accuracy.absolute:
        parts.append(f"{channel.accuracy.absolute:g} {channel.unit}")
    source = f" ({channel.accuracy.source})" if channel.accuracy.source else ""
    return f"±{' + '.join(parts) or '0'}{source}"


def _phases(summary: Summary) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for phase in summary.phases:
        total = phase.total
        energy, coverage = "not known", "–"
        if total is not None and total.joules is not None:
            energy = figure_text(total.joules, total.expanded_joules, "J") + (" ESTIMATE" if total.estimate else "")
            coverage = f"{total.coverage:.2%}"
        rows.append((phase.name, f"{phase.duration_s:.3f}", energy, coverage))
    return rows


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(_plain(str(cell)) for cell in row)} |"


def _plain(text: str) -> str:
    """Text of others, which is no Markdown: one line, without markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
