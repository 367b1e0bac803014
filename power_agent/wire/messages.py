"""The messages between agents and a director: typed, versioned, validated on reading. docs/protocol.md explains them.

Three sockets per agent, each opened by the agent: control (small messages), bulk (readings and files, acknowledged) and
clock. What arrives from the other end is data: no message holds a command, or a path outside a session's own folder.
Instants named `t_ns` are CLOCK_MONOTONIC of the sender's host, in nanoseconds.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from power_agent.messages import DriverState, Event, Stream, TickCount

PROTOCOL_VERSION = 1

# Names become names of files: ASCII, no separators, and none begins with a dot.
HostName: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}\Z")]
SessionName: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,127}\Z")]
HostFile: TypeAlias = Annotated[str, Meta(pattern=r"\A(marks|logs)(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,127}){1,4}\Z")]
DriverName: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9_-]{1,64})?\Z")]
RateName: TypeAlias = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9_-]{1,64})?(\.[A-Za-z0-9_-]{1,64})?\Z")
]
SettingName: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-z0-9_]{1,64}\Z")]
Text: TypeAlias = Annotated[str, Meta(max_length=2000)]
Word: TypeAlias = Annotated[str, Meta(max_length=200)]
MAX_META_CHARACTERS: Final = 100_000  # how each driver of a large machine came up is one text of a spool's table `meta`
MAX_EVENTS: Final = 1000
MetaText: TypeAlias = Annotated[str, Meta(max_length=MAX_META_CHARACTERS)]

Int64: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Pid: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
RateHz: TypeAlias = Annotated[float, Meta(gt=0, le=1e6)]

Stage: TypeAlias = Literal["ranging", "testing"]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A map with the name of the class under `type`. Unknown fields are ignored."""


# --- control -----------------------------------------------------------------------------------------------------


class Hello(_Message, frozen=True, kw_only=True):
    """Agent → director, first on the control socket and again after every reconnect."""

    protocol: int = PROTOCOL_VERSION  # another version is refused
    host: HostName
    agent: Word  # drawn anew at each start of the agent: tells a restart from a reconnect
    boot_id: Word
    tool_version: Word
    system: Annotated[dict[Word, Text], Meta(max_length=50)] = {}  # kernel, cpu, memory … as text for the reader
    recording: Annotated[list[SessionName], Meta(max_length=100)] = []  # sessions that it samples now
    unsent: Annotated[list[SessionName], Meta(max_length=10_000)] = []  # sessions that it keeps unacknowledged data of


class Welcome(_Message, frozen=True, kw_only=True):
    """Director → agent, the answer to Hello: the director knows this agent, and may send requests."""

    protocol: int = PROTOCOL_VERSION
    director: Word  # drawn anew at each start of the director
    boot_id: Word  # of the director's machine: its monotonic clock begins anew with another one
    heartbeat_s: Annotated[float, Meta(ge=0.1, le=2)] = (
        1.0  # how often to send Heartbeat; 5 without one count as silence
    )


class Refused(_Message, frozen=True, kw_only=True):
    """Director → agent: Hello was refused, and nothing else will be answered. Ask again after a pause."""

    reason: Text  # what, and what to do


class Heartbeat(_Message, frozen=True, kw_only=True):
    """Either → the other: I live. The director answers each one with its own, at once."""

    t_ns: Int64
    unsent_bytes: Count = 0  # of an agent: readings and files that are not acknowledged
    free_disk_bytes: Count | None = None  # of an agent: where its spools are; None: unknown
    recording: Annotated[list[SessionName], Meta(max_length=100)] = []
    clock_state: Annotated[dict[Word, Word], Meta(max_length=20)] = {}  # of an agent: what chrony and PTP say
    problems: Annotated[list[Text], Meta(max_length=20)] = []  # of either: what a person should look at


class SamplerChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What the director may choose of an agent's sampling: names and numbers, so that nothing here can be a path.

    Where the agent was started with settings or drivers of its own, these choices go on top of them.
    """

    drivers: Annotated[list[DriverName], Meta(max_length=100)] | None = None  # None: all that work there
    rates_hz: Annotated[dict[RateName, RateHz], Meta(max_length=200)] = {}  # "nvml" or "nvml.power" → Hz
    settings: Annotated[
        dict[DriverName, Annotated[dict[SettingName, float | Literal["auto", "on", "off"]], Meta(max_length=50)]],
        Meta(max_length=100),
    ] = {}  # such as estimate → idle_watts → 40.0


class StartSampling(_Message, frozen=True, kw_only=True):
    """Director → agent: sample for this session. Repeated harmlessly; answered with SamplingState."""

    session: SessionName
    stage: Stage = "testing"
    choices: SamplerChoices = SamplerChoices()


class StopSampling(_Message, frozen=True, kw_only=True):
    """Director → agent: end sampling for this session, after the tail that its devices need. Repeated harmlessly."""

    session: SessionName


class SamplingState(_Message, frozen=True, kw_only=True):
    """Agent → director: how sampling stands, at each change and when asked."""

    session: SessionName
    stage: Stage
    state: Literal["starting", "sampling", "stopping", "stopped", "failed"]
    t_ns: Int64  # when that state began
    drivers: list[DriverState] = []  # of "sampling": what its sampler's Ready said
    tail_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0  # to sample on after the work
    problems: Annotated[list[Text], Meta(max_length=20)] = []  # of "failed": why, and what to do


class WorkloadEvent(_Message, frozen=True, kw_only=True):
    """Agent → director: the workload that this agent runs (`power-agent run`) has started or ended."""

    session: SessionName
    event: Literal["started", "ended"]
    t_ns: Int64
    pid: Pid | None = None
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None
    signal: Annotated[int, Meta(ge=1, le=64)] | None = None


class SessionRequest(_Message, frozen=True, kw_only=True):
    """Agent → director: whoever runs a job on this host asks for a session, or for its end. Repeated harmlessly.

    "next" ends the ranging stage of a session of two stages, and prepares the testing stage.
    """

    request: Word  # drawn by the asker; the answer bears it
    want: Literal["start", "next", "stop", "state"]
    session: SessionName | None = None  # of all but "start", whose name the director chooses
    hosts: Annotated[list[HostName], Meta(max_length=10_000)] = []  # to measure; empty: the asker's host alone
    label: Word = ""
    argv: Annotated[
        list[Annotated[str, Meta(max_length=4096)]], Meta(max_length=1000)
    ] = []  # told in reports, never run
    cwd: Annotated[str, Meta(max_length=4096)] = ""
    stages: Annotated[list[Stage], Meta(max_length=2)] = []  # empty: testing alone
    choices: SamplerChoices = SamplerChoices()


class SessionAnswer(_Message, frozen=True, kw_only=True):
    """Director → agent: how the session that was asked for stands, at each change.

    "preparing" and "measuring" are of `stage`: a session of two stages comes to both twice.
    """

    request: Word
    state: Literal["preparing", "measuring", "stopping", "complete", "refused"]
    session: SessionName | None = None
    stage: Stage = "testing"
    reason: Text = ""  # of "refused": what, and what to do
    warnings: Annotated[list[Text], Meta(max_length=100)] = []  # hosts that are missing, and the like
    report: Annotated[str, Meta(max_length=100_000)] = ""  # of "complete": the table, as text


FromAgent: TypeAlias = Hello | Heartbeat | SamplingState | WorkloadEvent | SessionRequest
FromDirector: TypeAlias = Welcome | Refused | Heartbeat | StartSampling | StopSampling | SessionAnswer


# --- bulk --------------------------------------------------------------------------------------------------------


class StreamsDeclared(_Message, frozen=True, kw_only=True):
    """Agent → director: opens the hand-over of a session, after every connect and when a stream is added.

    The director answers with Credit and an Ack that says where to go on. A stream that it knows must be as it was.
    """

    session: SessionName
    host: HostName
    streams: list[Stream]
    meta: Annotated[dict[Word, MetaText], Meta(max_length=100)] = {}  # table `meta` of the spool


class BatchFrame(_Message, frozen=True, kw_only=True):
    """Agent → director: one batch of the spool, under its number there. Rows are packed as `Stream` describes."""

    session: SessionName
    host: HostName
    seq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    previous: Count  # number of the batch before it in the spool, 0: none. The director takes no batch after a gap
    stream: Count
    rows: Annotated[int, Meta(ge=1, le=2**31)]
    crc32: Annotated[int, Meta(ge=0, le=2**32 - 1)]  # of the payload
    payload: bytes  # whole rows, at most spool.MAX_BATCH_BYTES


class ClockPairRow(msgspec.Struct, frozen=True, array_like=True):
    """A pair of table `clock`: wall_ns was read within bracket_ns around monotonic_ns."""

    monotonic_ns: Int64
    wall_ns: Int64
    bracket_ns: Int64


class EventCount(msgspec.Struct, frozen=True, kw_only=True):
    """A row of table `events`: what happened, when first, how often."""

    event: Event
    count: Count = 1


class TablesUpdate(_Message, frozen=True, kw_only=True):
    """Agent → director: the small tables of the spool. Clock pairs are new ones; the others replace what was there."""

    session: SessionName
    host: HostName
    number: Count  # rises with each update of a connection; acknowledged by it
    clock: Annotated[list[ClockPairRow], Meta(max_length=10_000)] = []
    ticks: Annotated[list[TickCount], Meta(max_length=1000)] = []
    events: Annotated[list[EventCount], Meta(max_length=MAX_EVENTS)] = []
    meta: Annotated[dict[Word, MetaText], Meta(max_length=100)] = {}


class FileChunk(_Message, frozen=True, kw_only=True):
    """Agent → director: bytes to append to `marks/HOST/…` or `logs/HOST/…` of the session, at this offset and no other.

    `path` is "marks/NAME" or "logs/NAME", below the host's own folder.
    """

    session: SessionName
    host: HostName
    path: HostFile
    offset: Count
    content: bytes  # at most MAX_CHUNK_BYTES


class HandOver(_Message, frozen=True, kw_only=True):
    """Agent → director: sampling has ended, and this is all there is of the session. Answered with Ack; see `whole`."""

    session: SessionName
    host: HostName
    last_seq: Count
    tables: Count  # number of the last TablesUpdate
    files: Annotated[dict[HostFile, Count], Meta(max_length=10_000)] = {}  # sizes


class Ack(_Message, frozen=True, kw_only=True):
    """Director → agent: all this is durable at the director. Sent after each commit; the numbers only rise."""

    session: SessionName
    seq: Count  # all batches up to this one
    tables: Count = 0  # all updates of this connection up to this one
    clock_ns: Int64 | None = None  # the last clock pair's monotonic_ns; None: none yet
    files: Annotated[
        dict[HostFile, Count], Meta(max_length=10_000)
    ] = {}  # sizes; a file that is not named did not change
    resend: bool = False  # something was missing or damaged on the way: send again from here
    whole: bool = False  # all that HandOver named is durable; the agent may delete its spool


class Credit(_Message, frozen=True, kw_only=True):
    """Director → agent: how many bytes of payload and content may be on their way, sent and not acknowledged."""

    bytes: Count


class BulkRefused(_Message, frozen=True, kw_only=True):
    """Director → agent: it does not take this session's data now. The agent keeps all and asks again after a pause."""

    session: SessionName
    reason: Text  # the disk is full; no such session; not your host


BulkFromAgent: TypeAlias = StreamsDeclared | BatchFrame | TablesUpdate | FileChunk | HandOver
BulkFromDirector: TypeAlias = Ack | Credit | BulkRefused


# --- clock -------------------------------------------------------------------------------------------------------


class ClockExchange(msgspec.Struct, frozen=True, kw_only=True):
    """Four instants of one exchange, in ns of CLOCK_MONOTONIC: t1, t4 of the agent, t2, t3 of the director.

    The question leaves at t1, arrives at t2, the answer leaves at t3 and arrives at t4.
    """

    t1_ns: Int64
    t2_ns: Int64
    t3_ns: Int64
    t4_ns: Int64
    boot_id: Word = ""  # of the agent's machine: after a reboot its clock is another one


class ClockAsk(_Message, frozen=True, kw_only=True):
    """Agent → director. It brings the exchange before, which the agent alone has seen whole."""

    host: HostName
    number: Count
    t1_ns: Int64
    last: ClockExchange | None = None


class ClockAnswer(_Message, frozen=True, kw_only=True):
    """Director → agent, at once."""

    number: Count
    t1_ns: Int64  # as asked
    t2_ns: Int64
    t3_ns: Int64
