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


class HostEnergy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Energy of a host's outermost devices over some time. `joules` is null where too little was measured."""

    seconds: float
    joules: float | None
    expanded_joules: float | None  # U, k = 2
    mean_watts: float | None
    coverage: float  # measured share of the time, the least of the devices
    estimate: bool = False
    accuracy_known: bool = True


class HostShare(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one host had to do with the phases of a name."""

    host: str
    energy: HostEnergy | None  # while any host was in a phase of the name; null: nothing was measured here
    phases: int = 0  # that were marked on this host
    own: HostEnergy | None = None  # in these
    waiting: HostEnergy | None = None  # after its own end of a joined phase, until the last one's
    times_last: int = 0  # how often one of its ranks was the last


class Imbalance(msgspec.Struct, frozen=True, kw_only=True):
    """How much more the one with most has than the mean: 1 is even."""

    ratio: float  # largest / mean
    expanded: float | None  # U, k = 2; null: not known
    host: str  # with the largest
    hosts: int  # compared


class Straggler(msgspec.Struct, frozen=True, kw_only=True):
    """A rank that others waited for."""

    host: str
    rank: int | None
    lane: str
    times_last: int  # later than the median by more than clocks may be off
    mean_late_s: float  # after the median end, where it was last
    most_late_s: float


class JoinedFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Phases of one name and index on several ranks, as one piece of work each. Medians are over these."""

    count: int  # with two ranks or more
    ranks: int
    incomplete: int  # in which ranks are missing
    apart: int  # in which one began after another had ended
    begin_spread_s: float  # median of last begin − first begin
    most_begin_spread_s: float
    least_s: float  # shortest duration of any
    median_s: float  # median of the medians over ranks
    most_s: float
    undecided: int  # all ended within what clocks may be off, so that none was the last
    late_s: float  # sum over all of last end − median end
    waiting: HostEnergy | None  # of all hosts; null: not measured on any
    stragglers: list[Straggler]  # those that cost most time first
    stragglers_left_out: int


class HostPhase(msgspec.Struct, frozen=True, kw_only=True):
    """A phase name over the hosts."""

    name: str
    hosts: list[HostShare]
    known: EnergyFigure | None  # the hosts whose energy is known, where that of others is not; else null
    known_hosts: int
    duration_imbalance: Imbalance | None  # of the time in own phases; null: fewer than two hosts have any
    energy_imbalance: Imbalance | None  # of the energy in own phases
    joined: JoinedFigures | None
    interconnect: EnergyFigure | None  # measured, and then in the total; or an estimate, which is not in it
    with_interconnect: EnergyFigure | None  # total and estimate, as MLPerf Training adds them


class HostGap(msgspec.Struct, frozen=True, kw_only=True):
    """A host of which nothing was measured."""

    host: str
    why: str


class OverHosts(msgspec.Struct, frozen=True, kw_only=True):
    """What a session of several hosts tells besides; also where the interconnect is asked for."""

    hosts: list[str]  # measured ones
    without_data: list[HostGap]
    interconnect: str  # where its figure comes from, in words; empty: not asked for
    phases: list[HostPhase]  # as in `Summary.phases`


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """This run against one on fewer ranks or hosts."""

    against: str  # session of the smaller run
    phase: str
    unit: str  # of N: "ranks", "hosts"
    smaller_n: int
    n: int
    work: str  # of which time and energy are taken per piece: "samples"; empty: per run
    assumed: list[str]  # in plain words
    speed_up: float
    speed_up_expanded: float  # U, k = 2
    efficiency: float
    efficiency_expanded: float
    energy_ratio: float | None  # null: see energy_note
    energy_ratio_expanded: float | None
    energy_estimate: bool
    energy_note: str


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
    notes: list[str] = []  # what is good to know and nothing is wrong with
    over_hosts: OverHosts | msgspec.UnsetType = msgspec.UNSET
    scaling: Scaling | msgspec.UnsetType = msgspec.UNSET
