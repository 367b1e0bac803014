"""`summary.json`: the answers of one session, each energy with method, coverage and U (k = 2)."""

from __future__ import annotations

import msgspec

SUMMARY_VERSION = 1


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """What another channel or method says of the same energy."""

    channel: str
    method: str
    joules: float | None
    expanded_joules: float | None
    difference: float | None  # (this − chosen) / chosen
    not_used_because: str = ""


class EnergyFigure(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of a component, of a total, or of what no component explains.

    `joules` is null where too little was measured; nothing is ever counted as zero for want of readings.
    """

    name: str  # "node0/gpu0", "total", "node0/wall not explained"
    scope: str
    method: str  # "counter", "integrated", "padded", "sum", "difference"; several: joined by " + "
    joules: float | None
    expanded_joules: float | None  # U, k = 2
    mean_watts: float | None
    peak_watts: float | None  # highest reading; of a sum: not given
    coverage: float  # measured share of the time, the least of the parts
    estimate: bool  # true: modelled in whole or in part, not measured
    accuracy_known: bool  # false: U holds no term for the device's own error, because nobody states it
    readings: int = 0
    stale: int = 0
    missing: int = 0
    above_idle_joules: float | None = None  # energy minus baseline power × duration, where a baseline was taken
    terms: dict[str, float] = {}  # standard uncertainties in joules: meter, edge, sync, window, step, gap
    channels: list[str] = []
    alternatives: list[Alternative] = []


class PhaseGroup(msgspec.Struct, frozen=True, kw_only=True):
    """All phases of one name. Where they overlap (ranks, threads), their time is counted once."""

    name: str
    count: int
    lane_count: int  # in the lane that has most of them: ranks mark the same epochs, each in a lane of its own
    duration_s: float  # of the union of the phases
    first_begin_s: float  # from the command's begin
    work: dict[str, float]  # samples, tokens, queries, streams: summed over the phases that say so
    flagged: int  # phases never closed, never opened, clamped or crossing
    total: EnergyFigure | None  # over the outermost measured devices
    components: list[EnergyFigure]
    not_explained: list[EnergyFigure]
    attributes: dict[str, str] = {}  # of the first phase of the name


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One answer with its unit and uncertainty."""

    name: str  # "joules-to-train"
    value: float
    expanded: float | None  # U, k = 2; null: not known
    unit: str
    phase: str
    estimate: bool
    note: str = ""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How well one stream was sampled: due = taken + late + missed."""

    stream: str
    rate_hz: float
    due: int
    taken: int
    late: int
    missed: int
    extra: int
    dropped_rows: int
    damaged_batches: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Schema of `summary.json`."""

    summary_version: int = SUMMARY_VERSION
    session: str
    label: str
    tool_version: str
    command: list[str]
    exit_code: int | None
    signal: int | None
    estimate_only: bool  # nothing here was measured
    scope_of_total: str  # what the total covers, in words
    metrics: list[Metric]
    phases: list[PhaseGroup]
    phases_left_out: int  # names beyond the most that are listed; all are in energies.parquet
    idle_watts: dict[str, float]
    sampling: list[Sampling]
    points: list[str]
    warnings: list[str]
