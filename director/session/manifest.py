"""`manifest.json`: what was measured, on what, with what; everything a report needs that is not a reading or a mark."""

from __future__ import annotations

from typing import Literal

import msgspec

from director.session.fleet_record import Fleet
from power_agent.messages import DriverState, Event, ReplayClockSpec, Stream, TickCount

SCHEMA_VERSION = 1

State = Literal["measuring", "ingesting", "complete", "recovered"]


class StreamFile(msgspec.Struct, frozen=True, kw_only=True):
    """A stream and the Parquet file that holds its rows."""

    stream: Stream
    file: str  # relative to the session directory: "traces/node0/nvml.power.parquet"
    rows: int
    damaged_batches: int = 0  # batches of the spool that could not be read back


_STEERERS = ("chrony", "ptp", "kernel")  # names in Host.clock_state


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One measured machine."""

    name: str
    boot_id: str = ""
    system: dict[str, str] = {}  # kernel, cpu, memory, python … as text for the reader
    streams: list[StreamFile] = []
    drivers: list[DriverState] = []
    ticks: list[TickCount] = []
    events: list[Event] = []
    clock_file: str = ""  # Parquet: monotonic_ns, wall_ns, bracket_ns, once a second
    sync_file: str = ""  # Parquet: exchanges that tie its monotonic clock to the reference; see session/sync_file.py
    clock_state: dict[str, str] = {}  # what chrony, PTP and the kernel last said of its wall clock

    @property
    def wall_clock(self) -> str:
        """Who steers its wall clock, by each that was asked; empty: nobody was."""
        return "; ".join(f"{name}: {self.clock_state[name]}" for name in _STEERERS if name in self.clock_state)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """The measured command. Instants are monotonic nanoseconds of its host."""

    argv: list[str]
    cwd: str
    host: str
    started_ns: int | None = None
    ended_ns: int | None = None  # None: its end was not seen
    exit_code: int | None = None
    signal: int | None = None
    user_cpu_s: float | None = None
    system_cpu_s: float | None = None
    max_rss_bytes: int | None = None


class PhaseSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where phases come from. Files are copied into the session directory when the run ends."""

    kind: Literal["marks", "mllog", "loadgen", "regex"]
    file: str  # relative to the session directory: "marks" (a directory), "logs/stdout.log", …
    pattern: str = ""  # of a regex source
    arrival_file: str = ""  # for lines without a time stamp: monotonic arrival of each line
    origin: str = ""  # the path as the user gave it
    host: str = ""  # whose clock stamped it; empty: the first host's


class Factors(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says a kWh costs and emits. None is assumed."""

    cost_per_kwh: float | None = None
    currency: str = ""
    carbon_g_per_kwh: float | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Schema of `manifest.json`."""

    schema_version: int = SCHEMA_VERSION
    tool_version: str
    session: str  # its identifier, also the directory's name by default
    label: str = ""
    state: State
    created_wall_ns: int
    hosts: list[Host] = []
    reference_boot_id: str = ""  # whose monotonic clock is the session's: the director's; empty: that of all hosts
    workload: Workload | None = None  # None: nothing was run, as in a replay
    idle_ns: list[tuple[int, int]] = []  # baseline intervals before and after the work, on the session's clock
    phase_sources: list[PhaseSource] = []
    environment: dict[str, str] = {}  # the few variables that change results: CUDA_VISIBLE_DEVICES, OMP_NUM_THREADS …
    replay_clock: ReplayClockSpec | None = None
    factors: Factors = Factors()
    repeat_index: int | None = None  # position in a series of repeats
    fleet: Fleet | None = None  # of a session that `power-director serve` kept: its agents, stages and states
    missing: list[str] = []  # in plain words, what a crash took
    checksums: dict[str, str] = {}  # sha256 of every raw file, by relative path

    @property
    def director(self) -> Host | None:
        """The director's machine, which is none of the measured hosts; a job, marks and logs may be of it."""
        fleet = self.fleet
        if fleet is None or not fleet.asker:
            return None
        return Host(name=fleet.director_host, boot_id=fleet.director_boot_id, clock_file=fleet.director_clock_file)
