"""Whether a manifest that is well formed can also be true: somebody may have edited it, or damaged it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import PurePosixPath

from director.session.manifest import Manifest

_LATEST_NS = 1 << 62  # 146 years after boot


def find_nonsense(manifest: Manifest) -> str:
    """The first value that no run can have written, in plain words; empty where there is none."""
    return next(_nonsense(manifest), "")


def _nonsense(manifest: Manifest) -> Iterator[str]:
    work, replay = manifest.workload, manifest.replay_clock
    instants = [instant for pair in manifest.idle_ns for instant in pair]
    instants += [] if work is None else [work.started_ns or 0, work.ended_ns or 0]
    instants += [] if replay is None else [replay.monotonic_origin_ns, replay.wall_origin_ns]
    yield from (f"{instant} ns is no instant" for instant in instants if abs(instant) >= _LATEST_NS)
    if replay is not None and not (math.isfinite(replay.speed) and replay.speed > 0):
        yield f"a replay cannot have the speed {replay.speed}"
    yield from _fleet_nonsense(manifest)
    files = [name for source in manifest.phase_sources for name in (source.file, source.arrival_file)]
    for host in manifest.hosts:
        files += [host.clock_file, host.sync_file, f"{host.name}.sqlite", *(file.file for file in host.streams)]
        if "/" in host.name:
            yield f"no host is called {host.name!r}"
        for file in host.streams:
            if not 1e-6 <= file.stream.rate_hz <= 1e6:
                yield f"{file.file} cannot have been read at {file.stream.rate_hz} Hz"
    for name in files:
        if "\0" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            yield f"{name!r} is not a file of the session"


def _fleet_nonsense(manifest: Manifest) -> Iterator[str]:
    names = []
    fleet = manifest.fleet
    if fleet is not None:
        names += [fleet.director_host, *(record.host for record in fleet.agents)]
        instants = [transition.t_ns for transition in fleet.transitions] + fleet.director_restarts_ns
        instants += [t_ns for span in fleet.spans for t_ns in (span.begin_ns, span.end_ns or 0)]
        yield from (f"{instant} ns is no instant" for instant in instants if abs(instant) >= _LATEST_NS)
        if not fleet.stages:
            yield "a session has a stage"
    yield from (f"no host is called {name!r}" for name in names if "/" in name or name.startswith("."))
