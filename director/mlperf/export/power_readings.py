"""The readings of a whole machine in wall time, as exports for MLPerf need them; refuses what would not be honest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from director.energy.components import Component, build_tree, roots
from director.mlperf.export.new_folder import ExportRefused
from director.session.clock_pairs import ClockFileError, WallClock
from director.session.files import load_manifest, lost_files
from director.session.manifest import Host, Manifest, StreamFile
from director.session.trace_store import iter_pieces
from drivers.contract import Channel, Scope, Status

LONGEST_GAP_S = 2.5  # of readings that come every second; docs/formulas/coverage.md calls more a gap


@dataclass(frozen=True)
class PowerReadings:
    """Power of one host, one row per reading in ascending order; of several channels their sum."""

    host: str
    channels: tuple[Channel, ...]
    t_ns: npt.NDArray[np.int64]  # monotonic
    wall_ms: npt.NDArray[np.int64]  # since the epoch, rounded
    watts: npt.NDArray[np.float64]  # of rows that are not new: anything
    statuses: npt.NDArray[np.uint8]  # the worst `Status` of the channels

    @property
    def is_new(self) -> npt.NDArray[np.bool_]:
        """Which rows hold a value that the device had not told before."""
        new: npt.NDArray[np.bool_] = self.statuses == Status.NEW
        return new


def finished_manifest(session: Path) -> Manifest:
    """The manifest of a session that is complete.

    Raises:
        ExportRefused: it was not finished, or a raw file is gone.
        SessionError: it is no session.
    """
    manifest = load_manifest(session)
    if manifest.state not in ("complete", "recovered"):
        raise ExportRefused(f"{session} was not finished: run `power-director recover {session}` first")
    if lost := lost_files(session, manifest):
        raise ExportRefused(f"{lost[0]}: put the file back")
    return manifest


def power_readings(
    session: Path, host: Host, scopes: Collection[Scope], wanted: str | None, wall_span_ms: tuple[float, float] | None
) -> PowerReadings:
    """Readings of the channels that see the whole host, in a span of wall time or all.

    Args:
        scopes: those that are enough, such as wall and node.
        wanted: the channel to take where a device has several of power.

    Raises:
        ExportRefused: no measured power channel sees the whole host, or the wall clock was set while it was read.
        SessionError: a trace is damaged.
    """
    file, channels = _choose(session, host, scopes, wanted)
    try:
        clock = WallClock.from_file(session / host.clock_file)
    except ClockFileError as error:
        raise ExportRefused(f"{error}; without it no reading has a wall time") from error
    t_parts, watt_parts, status_parts = [], [], []
    for piece in iter_pieces(session / file.file, list(channels)):
        t_parts.append(piece.t_ns)
        scaled = [values * channel.scale for values, channel in zip(piece.values, channels, strict=True)]
        watt_parts.append(np.sum(np.asarray(scaled, dtype=np.float64), axis=0))
        status_parts.append(np.max(np.asarray(piece.statuses), axis=0))
    if not t_parts:
        raise ExportRefused(f"{session}: {file.file} holds no readings")
    t_ns = np.concatenate(t_parts)
    order = np.argsort(t_ns, kind="stable")
    t_ns = t_ns[order]
    wall_ms = np.rint(clock.to_wall(t_ns)[0] / 1e6).astype(np.int64)
    near = np.ones(len(t_ns), dtype=bool)
    if wall_span_ms is not None:
        near = (wall_ms >= wall_span_ms[0]) & (wall_ms <= wall_span_ms[1])
    _refuse_steps(session, host, clock, t_ns[near])
    watts, statuses = np.concatenate(watt_parts)[order], np.concatenate(status_parts)[order]
    statuses = np.where(np.isfinite(watts) | (statuses != Status.NEW), statuses, np.uint8(Status.INVALID))
    return PowerReadings(host.name, channels, t_ns[near], wall_ms[near], watts[near], statuses[near])


def _choose(
    session: Path, host: Host, scopes: Collection[Scope], wanted: str | None
) -> tuple[StreamFile, tuple[Channel, ...]]:
    """The stream to read, and its channels that add up to the host."""
    all_channels = [channel for file in host.streams for channel in file.stream.channels]
    if wanted is not None and wanted not in {channel.name for channel in all_channels}:
        powers = ", ".join(channel.name for channel in all_channels if channel.quantity == "power") or "none"
        raise ExportRefused(f"{session} has no channel {wanted} of {host.name}; of power there are: {powers}")
    outermost = roots(build_tree([(host.name, channel) for channel in all_channels]))
    where = f"{session}, {host.name}"
    if not outermost or any(c.scope not in scopes for c in outermost):
        seen = ", ".join(f"{c.device} ({c.scope})" for c in outermost) or "nothing outermost"
        raise ExportRefused(
            f"{where}: MLPerf asks for the power of the whole machine ({' or '.join(scopes)}); seen is {seen}. "
            "Measure with a meter at the plug, or a sensor of the whole node"
        )
    channels = tuple(_power_channel(where, component, wanted) for component in outermost)
    files = [file for file in host.streams if set(channels) & set(file.stream.channels)]
    if len(files) != 1:
        names = ", ".join(channel.name for channel in channels)
        raise ExportRefused(f"{where}: {names} were not read together, so no reading of their sum exists")
    return files[0], channels


def _power_channel(where: str, component: Component, wanted: str | None) -> Channel:
    found = [c for c in component.channels if c.quantity == "power" and c.kind == "gauge"]
    found = [c for c in found if c.name == wanted] or found
    if not found:
        raise ExportRefused(f"{where}: {component.device} tells energy only, and MLPerf's logs hold power readings")
    if len(found) > 1:
        names = ", ".join(channel.name for channel in found)
        raise ExportRefused(f"{where}: {component.device} has several powers; name one with --channel: {names}")
    if found[0].estimate:
        raise ExportRefused(
            f"{where}: {found[0].name} is an ESTIMATE, not a measurement, and no result may rest on it. Measure with a "
            "meter; `power-agent devices` says what can be read"
        )
    return found[0]


def _refuse_steps(session: Path, host: Host, clock: WallClock, t_ns: Sequence[int] | npt.NDArray[np.int64]) -> None:
    for step in clock.steps:
        if len(t_ns) and t_ns[0] < step.before_ns and step.after_ns < t_ns[-1]:
            raise ExportRefused(
                f"{session}: the wall clock of {host.name} was set by {step.jump_ns * 1e-9:+.3f} s while this was "
                "measured; readings cannot be placed in wall time. Measure again without setting the clock"
            )
