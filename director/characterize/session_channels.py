"""What a session with loads tells of each power and energy channel of a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from director.characterize.load import Load
from director.characterize.square_wave import PHASE
from director.characterize.step_response import CannotTell, StepResponse, step_response
from director.energy.cells import unwrap
from director.energy.channel_timing import timing_of
from director.session.files import SessionError, load_manifest
from director.session.manifest import Host, Manifest, StreamFile
from director.session.session_clocks import SessionClocks
from drivers.contract import Channel, Status
from power_agent.characteristics import Characteristic

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """Of one channel: how it follows the load, or why that cannot be told."""

    channel: Channel
    rate_hz: float
    response: StepResponse | None
    reason: str = ""


@dataclass(frozen=True)
class Characterisation:
    """All channels of a device, from one session."""

    session: Path
    device: str
    wall_ns: int
    findings: list[Finding]

    def to_store(self) -> list[Characteristic]:
        """What later measurements can use."""
        return [
            Characteristic(
                channel=finding.channel.name,
                model=finding.channel.model,
                update_period_s=finding.response.update_period_s,
                window_s=finding.response.window_s if finding.channel.kind == "gauge" else None,
                delay_s=finding.response.delay_s,
                delay_u_s=finding.response.delay_u_s,
                noise=finding.response.noise,
                wall_ns=self.wall_ns,
                session=str(self.session),
            )
            for finding in self.findings
            if finding.response is not None
        ]


def read_session(session: Path, device: str | None = None, channels: list[str] | None = None) -> Characterisation:
    """Work out what a session tells of a device's channels.

    Args:
        session: its directory.
        device: name of the driver, where the session has several; None: the only one with power or energy.
        channels: only these; None: all.

    Raises:
        SessionError: it cannot be read, has no loads, or has no such device or channel.
    """
    session = session.resolve()
    manifest = load_manifest(session)
    if len(manifest.hosts) != 1:
        raise SessionError(f"{session} is of {len(manifest.hosts)} hosts; a session of one is needed")
    host = manifest.hosts[0]
    load = _load_of(session)
    files = {
        channel.name: (file, channel)
        for file in host.streams
        for channel in file.stream.channels
        if is_wanted(channel) and device in (None, file.stream.driver)
    }
    drivers = {file.stream.driver for file, _ in files.values()}
    if len(drivers) != 1:
        there = ", ".join(sorted(drivers)) or "none"
        raise SessionError(
            f"{session} has power or energy readings of these drivers: {there}"
            + (f", and none of {device}" if device else "; a session of one is needed")
        )
    check_names(channels, list(files))
    findings = [
        _finding(session, manifest, host, *files[name], load)
        for name in (files if channels is None else dict.fromkeys(channels))
    ]
    return Characterisation(session, drivers.pop(), manifest.created_wall_ns, findings)


def is_wanted(channel: Channel) -> bool:
    """Whether it measures power or energy."""
    return channel.quantity in ("power", "energy") and channel.kind in ("gauge", "counter") and not channel.estimate


def check_names(wanted: list[str] | None, there: list[str]) -> None:
    """Whether the channels are there that somebody names.

    Raises:
        SessionError: one is not.
    """
    for name in wanted or []:
        if name not in there:
            raise SessionError(f"there is no power or energy channel {name}; there are: {', '.join(sorted(there))}")


def _load_of(session: Path) -> Load:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = session / "phases.parquet"
    try:
        table = pq.read_table(path, columns=["begin_ns", "end_ns"], filters=[("name", "=", PHASE)])
    except (OSError, pa.ArrowException) as error:
        raise SessionError(f"{path} cannot be read: {error}; power-director report {session} writes it anew") from error
    edges = np.column_stack([table["begin_ns"].to_numpy(), table["end_ns"].to_numpy()])
    edges_ns = edges[np.argsort(edges[:, 0])].reshape(-1).astype(np.int64)
    if not len(edges_ns):
        raise SessionError(f"{session} has no phases {PHASE!r}: it is not a session of power-director characterize")
    if not (np.diff(edges_ns) > 0).all():
        raise SessionError(f"{session} has phases {PHASE!r} that overlap, so that they do not tell when it was on")
    return Load(edges_ns)


def _finding(session: Path, manifest: Manifest, host: Host, file: StreamFile, channel: Channel, load: Load) -> Finding:
    rate_hz = file.stream.rate_hz
    pieces = [piece for piece in SessionClocks(session, manifest).pieces(host.name, file, [channel]) if len(piece.t_ns)]
    if not pieces:
        return Finding(channel, rate_hz, None, "it was never read")
    t_ns = np.concatenate([piece.t_ns for piece in pieces])
    raw = np.concatenate([piece.values[0] for piece in pieces])
    statuses = np.concatenate([piece.statuses[0] for piece in pieces])
    # What came long before the first load is of the load's own start, which no phase tells of.
    half_ns = np.median(np.diff(load.edges_ns)) if len(load.edges_ns) > 1 else 0.0
    kept = (t_ns >= load.edges_ns[0] - half_ns) & ((statuses == Status.NEW) | (statuses == Status.STALE))
    kept &= np.concatenate([[True], np.diff(t_ns) > 0])
    t_ns, raw, statuses = t_ns[kept], raw[kept], statuses[kept]
    if not len(t_ns):
        return Finding(channel, rate_hz, None, "none of its readings while the load was switched had a value")
    values = raw * channel.scale
    if channel.kind == "counter":
        delta, known = unwrap(channel, timing_of(channel, rate_hz), t_ns.astype(np.float64), raw)
        if not known.all():
            return Finding(channel, rate_hz, None, "it was reset meanwhile: try again")
        values = np.concatenate([[0.0], np.cumsum(delta) * channel.scale])
    try:
        response = step_response(
            t_ns,
            values,
            statuses,
            kind=channel.kind,
            stamped=channel.stamped,
            told_period_s=channel.update_period_s,
            load=load,
        )
    except CannotTell as error:
        return Finding(channel, rate_hz, None, str(error))
    return Finding(channel, rate_hz, response)


def remarks(finding: Finding) -> Iterator[str]:
    """What the reader should know of a channel's figures."""
    found, channel = finding.response, finding.channel
    if found is None:
        return
    if found.update_period_s is None:
        yield (
            f"{channel.name}: it had a new value at nearly every reading, {found.poll_s:.3g} s apart: polling is too "
            "slow to tell its update period. A higher --rate, where the device allows it"
        )
    elif (
        channel.update_period_s is not None
        and abs(found.update_period_s - channel.update_period_s) > 0.1 * channel.update_period_s
    ):
        yield (
            f"{channel.name}: its driver says that it has a new value every {channel.update_period_s:.3g} s, which is "
            f"not what was seen, {found.update_period_s:.3g} s; the driver's word is used"
        )
    if (
        channel.window_s is not None
        and found.shape == "mean"
        and abs(found.window_s - channel.window_s) > found.window_u_s + 0.05 * channel.window_s
    ):
        yield (
            f"{channel.name}: its driver says that it averages over {channel.window_s:.3g} s, which is not what was "
            f"seen, {found.window_s:.3g} ± {found.window_u_s:.2g} s; the driver's word is used"
        )
    if found.shape == "low-pass":
        yield (
            f"{channel.name}: it averages as a low-pass filter does, with a time constant of {found.window_s / 2:.3g} "
            "s; the window is that of a mean that lags as much"
        )
