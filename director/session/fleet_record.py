"""The part `fleet` of a manifest: how a session of several machines went, stage by stage and agent by agent.

Instants are CLOCK_MONOTONIC of the director's host, in nanoseconds. It is written before what it tells takes effect, so
that a director that was killed finds in it where to go on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

import msgspec

from power_agent.messages import DriverState
from power_agent.wire.messages import SamplerChoices, Stage

FleetState = Literal[
    "preparing",  # agents are asked to sample
    "ranging",  # the first stage of two: meters learn which ranges they need
    "ranged",  # between the stages: agents are asked to sample for the second one
    "measuring",
    "stopping",  # agents are asked to end
    "collecting",  # what they recorded comes in
    "ingesting",
    "complete",
]
AgentState = Literal["expected", "starting", "sampling", "stopping", "stopped", "failed"]
AgentEventKind = Literal["joined", "late", "silent", "heard again", "restarted", "rebooted", "failed", "whole"]

RUNNING: frozenset[FleetState] = frozenset({"preparing", "ranging", "ranged", "measuring", "stopping", "collecting"})
MOST_EVENTS = 100  # of an agent; later ones are counted


class StageSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A stage: from when all agents that could be had were sampling, to when its end was asked for."""

    stage: Stage
    begin_ns: int
    end_ns: int | None = None


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """The session came into a state."""

    state: FleetState
    t_ns: int
    wall_ns: int
    why: str = ""


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a reader of the report should know of an agent."""

    t_ns: int
    kind: AgentEventKind
    text: str = ""


class AgentRecord(msgspec.Struct, kw_only=True):
    """One host of the session and its agent."""

    host: str
    agent: str = ""  # drawn at each start of the agent; empty: it never came
    boot_id: str = ""
    system: dict[str, str] = {}
    drivers: list[DriverState] = []
    state: AgentState = "expected"
    stage: Stage = "testing"  # that it samples for
    tail_s: float = 0.0
    whole: bool = False  # it has handed over all that it recorded
    silent: bool = False
    events: list[AgentEvent] = []
    events_left_out: int = 0


class Fleet(msgspec.Struct, kw_only=True):
    """Part `fleet` of a manifest."""

    state: FleetState
    director_host: str  # under this name: the director's clock, and what ran on its machine
    director_boot_id: str
    director_clock_file: str = ""  # as of a host
    asker: str = (
        ""  # who asked for the session: "local", or a host; empty: nobody, an agent brought what it had recorded
    )
    request: str = ""  # drawn by the asker: who asks again gets the same session
    stages: list[Stage] = msgspec.field(default_factory=lambda: ["testing"])  # planned
    choices: SamplerChoices = SamplerChoices()
    ranges: dict[str, dict[str, float]] = {}  # by driver: what the ranging stage saw at most, such as volts, amps
    spans: list[StageSpan] = []
    transitions: list[Transition] = []
    director_restarts_ns: list[int] = []
    agents: list[AgentRecord] = []

    @property
    def stage(self) -> Stage:
        """The stage that is being prepared or measured, or was last."""
        done = sum(span.end_ns is not None for span in self.spans)
        return self.stages[min(done, len(self.stages) - 1)]


def fleet_notices(fleet: Fleet, told_hosts: Collection[str] = ()) -> list[str]:
    """What a reader of the report must know of the agents and the director, in plain words.

    That an agent was never heard is left out of `told_hosts`.
    """
    origin_ns = fleet.spans[0].begin_ns if fleet.spans else fleet.transitions[0].t_ns if fleet.transitions else 0
    notices = [
        f"the director was started again {_at(t_ns, origin_ns)}; the agents went on meanwhile"
        for t_ns in fleet.director_restarts_ns
    ]
    for transition in fleet.transitions:
        if transition.why:
            notices.append(
                f"the session came to {transition.state} {_at(transition.t_ns, origin_ns)}: {transition.why}"
            )
    for record in fleet.agents if fleet.state != "preparing" else ():
        if not record.agent and record.host in told_hosts:
            continue
        notices += _agent_notices(record, origin_ns, ended=fleet.state == "complete" or fleet.state == "ingesting")
    return notices


def stage_notes(fleet: Fleet) -> list[str]:
    """Of a job that was run in several stages, which of them the figures are of."""
    earlier = [span for span in fleet.spans[:-1] if span.end_ns is not None]
    return [
        f"stage {span.stage} came first and lasted {((span.end_ns or 0) - span.begin_ns) * 1e-9:.1f} s; no figure here "
        f"is of it, all are of stage {fleet.spans[-1].stage}"
        for span in earlier
    ]


def _agent_notices(record: AgentRecord, origin_ns: int, *, ended: bool) -> Iterator[str]:
    if not record.agent:
        yield f"{record.host}: its agent was never heard; nothing of this host was measured"
        return
    silent_ns: int | None = None
    for event in record.events:
        at = _at(event.t_ns, origin_ns)
        if event.kind == "late":
            yield f"{record.host}: its agent joined late, {at}; nothing before that was measured there"
        elif event.kind == "silent":
            silent_ns = event.t_ns
        elif event.kind == "heard again" and silent_ns is not None:
            lasted_s = (event.t_ns - silent_ns) * 1e-9
            yield f"{record.host}: its agent was not heard for {lasted_s:.1f} s, {_at(silent_ns, origin_ns)}; {_ALONE}"
            silent_ns = None
        elif event.kind == "restarted":
            yield f"{record.host}: its agent was started again {at}; readings around that instant may be missing"
        elif event.kind == "rebooted":
            yield f"{record.host}: the machine was started again {at}; nothing after that was measured there"
        elif event.kind == "failed":
            yield f"{record.host}: sampling failed {at}: {event.text}"
    if silent_ns is not None:
        yield f"{record.host}: its agent was not heard from {_at(silent_ns, origin_ns)} on"
    if record.events_left_out:
        yield f"{record.host}: {record.events_left_out} more events of its agent are not listed"
    if ended and not record.whole and record.state != "failed":
        yield (
            f"{record.host}: its agent has not handed over all that it recorded; when it does, the director computes "
            "the results again"
        )


_ALONE = "an agent samples on by itself"


def _at(t_ns: int, origin_ns: int) -> str:
    return f"at {(t_ns - origin_ns) * 1e-9:+.1f} s"
