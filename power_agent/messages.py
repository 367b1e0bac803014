"""What the agent's processes tell each other and leave on disk: typed, versioned, validated on reading."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from drivers.contract import Channel

SPOOL_VERSION = 1


class ReplayClockSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The session runs on a replayed trace's own clock: monotonic and wall time start at the trace's first row.

    session_ns = monotonic_origin_ns + (real_monotonic_ns - monotonic_origin_ns) × speed
    wall_ns = wall_origin_ns + (session_ns - monotonic_origin_ns)
    """

    monotonic_origin_ns: int
    wall_origin_ns: int
    speed: float


class SamplerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a sampler process needs to know, given as one JSON file."""

    spool: str  # path of the spool to create, or to go on in
    host: str
    drivers: list[str] | None = None  # names to open; None: all that work here
    rates_hz: dict[str, float] = {}  # by driver name, "nvml" → 20.0, or by group, "nvml.power"
    settings: dict[str, dict[str, str]] = {}  # by driver name
    root: str = "/"
    replay_clock: ReplayClockSpec | None = None
    characteristics: str | None = None  # file of what was found out about channels; None: the user's; "": none
    resume: bool = False  # an earlier sampler died: go on in its spool, where it left off
    alone_s: float = 0.0  # go on for so long when whoever gives the orders is gone: he may come back


class DriverState(msgspec.Struct, frozen=True, kw_only=True):
    """How one driver came up: usable (reason empty), or why not and what would fix it."""

    driver: str
    usable: bool
    reason: str = ""
    fix: str = ""
    notes: list[tuple[str, str]] = []  # (reason, fix) of parts that cannot be used


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One group of one driver as it is sampled: the schema of its rows in the spool.

    A row is little-endian and unpadded: t_ns i64, read_ns i64, one i64 (counter, state) or f64 (gauge) per channel,
    then one status byte per channel. In a value that is not NEW or STALE, a gauge holds NaN and a counter 0.
    """

    id: int
    driver: str
    group: str
    rate_hz: float
    channels: list[Channel]


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The sampler's first and only line on its stdout: every stream has its first row, or its driver is not usable."""

    version: str
    streams: list[Stream]
    drivers: list[DriverState]
    tail_s: float  # keep sampling this long after the work, so that delayed and averaging sensors have seen its end


class TickCount(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger of one stream: due = taken + late + missed."""

    stream: int
    due: int
    taken: int  # read started within a tenth of the period (at least 1 ms) after its deadline
    late: int  # read started later than that, but before the next deadline
    missed: int  # the next deadline had come before this read could start
    extra: int  # reads out of turn: at the start and end of the work and when sampling stops
    dropped_rows: int  # rows that found no place in the spool
    lateness_log2_us: list[int]  # histogram: reads that were late by < 2^k microseconds, k = 0 … 31


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something a reader of the report should know, with its instant."""

    t_ns: int
    level: Literal["info", "warning", "error"]
    source: str  # "nvml", "spool", "clock"
    text: str  # what, where, what to do


class MarkEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One mark: opens a phase, closes it, or names an instant."""

    t_ns: int  # in `clock`
    clock: Literal["monotonic", "wall"]  # monotonic of this host, or ns since the epoch (UTC)
    op: Literal["begin", "end", "point"]
    name: str
    index: int | None = None  # which of the phases of this name: epoch 3
    key: str = ""  # pairs an end with its begin; empty: the innermost open phase of that name in the same lane
    host: str = ""  # whose clock; empty: the session's own
    lane: str = ""  # who marked: phases nest within a lane ("pid:tid", "rank0")
    rank: int | None = None
    work: dict[str, float] = {}  # what the phase did: samples, tokens, queries, streams
    attributes: dict[str, Any] = {}
    source: str = ""  # file and line
