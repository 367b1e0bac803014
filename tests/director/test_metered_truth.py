"""A simulated WT310E at 1 Hz, read over a real line, sampled, spooled and ingested: are true energies within ±U?

Time is simulated: the meter, the line's bytes at 9600 baud and the sampling loop share one clock. The load is a square
wave whose energy is known in closed form; the meter's errors are drawn from its specification.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from analyzer_helpers import opened
from made_session import HOST, made_manifest
from meter_core import MeterCore
from meter_wire import PtyMeter
from metered_load import SquareLoad
from simulated_clock import SimulatedClock
from yokogawa_meter import Wt300

from director.energy.component_energy import Intervals, Source, component_energy
from director.energy.components import build_tree
from director.session.files import spool_path
from director.session.ingest import ingest
from director.session.manifest import Host
from director.session.trace_store import Piece, iter_pieces
from drivers.discovery import Opened
from power_agent.event_log import EventLog
from power_agent.messages import Stream
from power_agent.sampled_driver import SampledDriver
from power_agent.sampled_group import SampledGroup
from power_agent.sampling_thread import SamplingThread
from power_agent.spool import Batch, SpoolWriter

S = 1_000_000_000
TRACE_S = 130.0
PER_TRACE = 10
BITS_PER_BYTE = 10
BAUD = 9600
ANSWER_NS = 2_000_000


def sample(found: Opened, clock: SimulatedClock, spool: Path) -> None:
    """Sample the driver for a trace, as the sampler's own loop does, and write its spool."""
    groups = []
    for number, group in enumerate(found.driver.groups):
        stream = Stream(
            id=number, driver=found.name, group=group.name, rate_hz=group.default_hz, channels=list(group.channels)
        )
        groups.append(SampledGroup(stream, group, start_ns=clock.now_ns, limit_bytes=64 << 20))

    def lost() -> Opened:
        raise AssertionError("the meter was lost")

    log = EventLog(clock.monotonic_ns)
    driver = SampledDriver(found.name, found.driver, groups, clock=clock, log=log, reopen=lost, notify=lambda: None)
    thread = SamplingThread([driver], clock=clock)
    clock.at.append((clock.now_ns + round(TRACE_S * S), thread.stop))
    thread.run()
    assert not [event for event in log.snapshot() if event.level == "error"]
    spool.parent.mkdir(parents=True)
    writer = SpoolWriter(spool, {"host": HOST})
    writer.write(
        streams=[group.stream for group in groups],
        batches=[Batch(group.stream.id, *group.buffer.take()) for group in groups],
    )
    writer.close()


def figures(tmp_path: Path, seed: int, number: int, integrate: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """|error| / U of the phases of one trace, U / E, and the method of each."""
    rng = np.random.default_rng([seed, number])
    low, high = sorted(rng.uniform(150.0, 700.0, 2))
    load = SquareLoad(
        low, high, 10 ** rng.uniform(-1.0, 1.3), rng.uniform(0.1, 0.9), begin_s=rng.uniform(-20, 0), power_factor=0.98
    )
    clock = SimulatedClock(round(rng.uniform(1, 2) * S))
    phase_error = 0.002 * math.tan(math.acos(0.98))
    meter = MeterCore(
        lambda: clock.now_ns / S,
        [load],
        period_s=1.0,
        phase_s=rng.uniform(0, 1),
        reading_error=rng.uniform(-1, 1) * (0.001 + phase_error),
        range_error=rng.uniform(-1, 1) * 0.0005,
    )

    def pass_time(size: int) -> None:
        clock.now_ns += size * BITS_PER_BYTE * S // BAUD + ANSWER_NS

    line = PtyMeter(Wt300(meter), tmp_path / f"tty{number}", on_exchange=pass_time)
    try:
        settings = {"integrate": "on"} if integrate else {}
        found = opened("wt310e", clock.monotonic_ns, port=str(line.path), volts="230", amps="3.5", **settings)
        begin_s = clock.now_ns / S
        session = tmp_path / f"session{number}"
        session.mkdir()
        sample(found, clock, spool_path(session, HOST))
    finally:
        line.close()
    made_manifest(session, [], None)
    manifest = ingest(session, "complete")
    ((file,),) = [host.streams for host in manifest.hosts if isinstance(host, Host)]
    channels = file.stream.channels
    (component,) = [part for part in build_tree([(HOST, channel) for channel in channels]) if part.device == "wall"]
    length_s = 10 ** rng.uniform(np.log10(0.2), np.log10(100.0), PER_TRACE)
    first_s = begin_s + rng.uniform(3.0, TRACE_S - 5.0 - length_s)
    intervals = Intervals(
        np.round(first_s * S).astype(np.int64),
        np.round((first_s + length_s) * S).astype(np.int64),
        np.zeros(PER_TRACE),
        [],
    )
    sources = [
        Source(
            channel,
            file.stream.rate_hz,
            lambda place=place: (
                Piece(piece.t_ns, piece.read_ns, [piece.values[place]], [piece.statuses[place]])
                for piece in iter_pieces(session / file.file, list(channels))
            ),
        )
        for place, channel in enumerate(channels)
        if channel.quantity in ("power", "energy")
    ]
    found_energy = component_energy(component, sources, intervals, 0)
    assert not found_energy.warnings
    truth = np.array([load.energy(a + b) - load.energy(a) for a, b in zip(first_s, length_s, strict=True)])
    expanded = found_energy.energies.expanded_joules
    names = [found_energy.methods[at].name for at in found_energy.chosen]
    return np.abs(found_energy.energies.joules - truth) / expanded, expanded / truth, names


def check(tmp_path: Path, phases: int, seed: int, integrate: bool = False) -> None:
    parts = [figures(tmp_path, seed, number, integrate) for number in range(phases // PER_TRACE)]
    ratio = np.concatenate([part[0] for part in parts])
    assert len(ratio) == phases
    assert (ratio <= 1).mean() >= 0.95, np.sort(ratio)[-phases // 10 :]
    assert 0.02 <= np.median(ratio) <= 0.7, np.median(ratio)  # at 1 Hz and 9600 baud most phases are short for it
    if integrate:
        assert any(name == "counter" for part in parts for name in part[2])


def test_true_energies_lie_within_u_of_a_wall_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    check(tmp_path, phases=100, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("integrate", [False, True], ids=["power", "integrator"])
def test_a_thousand_true_energies_lie_within_u(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, integrate: bool
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    check(tmp_path, phases=1000, seed=2, integrate=integrate)
