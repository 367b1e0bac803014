"""The state machine of one session: what is asked of its agents, when it goes on, and what is told of them.

Nothing here waits, reads a clock or touches a file. Each call changes `fleet`, the durable record, and collects in
`out` what to send. Who calls writes the record first and sends then; what was not sent comes again, because it follows
from the record and not from the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from director.fleet.ranging_settings import range_settings
from director.session.fleet_record import (
    MOST_EVENTS,
    AgentEvent,
    AgentEventKind,
    AgentRecord,
    Fleet,
    FleetState,
    StageSpan,
    Transition,
)
from power_agent.wire.messages import SamplerChoices, SamplingState, StartSampling, StopSampling

_S: Final = 1_000_000_000


@dataclass(frozen=True)
class Bounds:
    """How long agents are waited for, in seconds."""

    ready_s: float = 30.0  # until they sample
    stop_s: float = 20.0  # until they have stopped, beyond the time that their devices need
    hand_over_s: float = 60.0  # without anything new coming in
    silent_s: float = 15.0  # the same, from one that is not heard
    repeat_s: float = 2.0  # until a request is sent again
    last_rows_s: float = 5.0  # for what was read at the end of the ranging stage to come in
    away_s: float = 5.0  # without a message of it, an agent counts as silent


@dataclass(frozen=True)
class Presence:
    """An agent as the director's control socket shows it now."""

    agent: str
    boot_id: str
    silent: bool = False
    system: Mapping[str, str] = field(default_factory=dict)


class FleetSession:
    """One session. All instants are the director's monotonic nanoseconds, all `progress` from the store, by host."""

    def __init__(self, name: str, fleet: Fleet, bounds: Bounds, wall_offset_ns: int, now_ns: int) -> None:
        """`wall_offset_ns`: wall clock minus monotonic clock, for the reader of the record."""
        self.name = name
        self.fleet = fleet
        self.out: list[tuple[str, StartSampling | StopSampling]] = []
        self.dirty = False  # the record is to be written
        self.changed = False  # who asked is to be told
        self.ranges_known = bool(fleet.ranges) or "ranging" not in fleet.stages
        self._bounds = bounds
        self._wall_offset_ns = wall_offset_ns
        self._entered_ns = now_ns  # into this state, or the instant of the director's start
        self._sent_ns: dict[str, int] = {}  # by host: the last request
        self._progress: dict[str, tuple[int, int]] = {}  # by host: the number, and since when it stands
        self._came: dict[str, tuple[int, int]] = {}  # by host, since this state: the number, and how often it rose

    @property
    def hosts(self) -> list[str]:
        """All hosts to be measured."""
        return [record.host for record in self.fleet.agents]

    @property
    def ending(self) -> bool:
        """Whether its end was asked for."""
        return self.fleet.state in ("stopping", "collecting", "ingesting", "complete")

    @property
    def whole(self) -> list[str]:
        """Hosts that have handed over all."""
        return [record.host for record in self.fleet.agents if record.whole]

    def agent(self, host: str) -> AgentRecord | None:
        """What is known of a host's agent."""
        return next((record for record in self.fleet.agents if record.host == host), None)

    # --- what comes ----------------------------------------------------------------------------------------------

    def director_restarted(self, now_ns: int, boot_id: str) -> None:
        """A director takes the session up that an earlier one left."""
        self.fleet.director_restarts_ns.append(now_ns)
        self.dirty = True
        if boot_id != self.fleet.director_boot_id and not self.ending:
            self.stop(now_ns, "the director's machine was started again, and its clock with it")

    def hear(self, host: str, message: SamplingState, now_ns: int) -> None:
        """An agent tells how its sampling stands."""
        record = self.agent(host)
        if record is None or self.fleet.state == "ingesting":
            return
        before = (record.state, record.stage, record.drivers, record.tail_s)
        record.state, record.stage = message.state, message.stage
        if message.drivers:
            record.drivers = list(message.drivers)
        if message.state == "sampling":
            record.tail_s = message.tail_s
        if (record.state, record.stage, record.drivers, record.tail_s) != before:
            self.dirty = True
            if message.state == "failed":
                self._note(record, now_ns, "failed", "; ".join(message.problems)[:2000] or "the agent does not say why")

    def handed_over(self, host: str, now_ns: int) -> None:
        """All that a host recorded is durable."""
        record = self.agent(host)
        if record is not None and not record.whole:
            record.whole = True
            self._note(record, now_ns, "whole")
            if self.fleet.state == "complete":  # the results lack what came now
                self._enter("ingesting", now_ns)

    def stop(self, now_ns: int, why: str = "") -> None:
        """End the session. Repeated harmlessly."""
        if not self.ending:
            self._end_stage(now_ns)
            self._enter("stopping", now_ns, why)

    def next_stage(self, now_ns: int) -> bool:
        """Go on from ranging to testing; False where there is no next stage to go to. Repeated harmlessly."""
        if self.fleet.state == "ranging":
            self._end_stage(now_ns)
            self._enter("ranged", now_ns)
        return self.fleet.stages[-1] == "testing" and self.fleet.state in ("ranged", "measuring")

    def ranging_is_here(self, now_ns: int, progress: Mapping[str, int]) -> bool:
        """Whether what was read in the ranging stage is durable, or has been waited for long enough.

        The first that comes in after the stage may have been on its way at its end; the second was not.
        """
        for host, number in progress.items():
            before, times = self._came.get(host, (number, 0))
            self._came[host] = (number, times + (number != before))
        sending = [record.host for record in self._hopeful() if record.state == "sampling" and not record.silent]
        here = all(self._came.get(host, (0, 0))[1] >= 2 for host in sending)
        return here or self._waited_s(now_ns) > self._bounds.last_rows_s

    def set_ranges(self, ranges: dict[str, dict[str, float]]) -> None:
        """What the ranging stage saw at most; none where nothing was seen."""
        if not self.ranges_known:
            self.ranges_known = True
            self.fleet.ranges = ranges
            self.dirty = True

    def ingested(self, now_ns: int) -> None:
        """Traces and results are there."""
        self._enter("complete", now_ns)

    # --- time passes ---------------------------------------------------------------------------------------------

    def step(self, now_ns: int, present: Mapping[str, Presence], progress: Mapping[str, int]) -> None:
        """Ask what is due to be asked, and go on where all are ready or have been waited for long enough."""
        if self.fleet.state == "ingesting":
            return
        if self.fleet.state == "complete":  # some may not have heard of the end
            for record in self.fleet.agents:
                if record.agent:
                    self._ask(record, present.get(record.host), now_ns)
            return
        for record in self.fleet.agents:
            self._follow(record, present.get(record.host), now_ns)
            self._ask(record, present.get(record.host), now_ns)
        state = self.fleet.state
        if state in ("preparing", "ranged"):
            wanted = self.fleet.stage
            ready = all(self._is_settled(record, present) and record.stage == wanted for record in self._hopeful())
            if (ready and self.ranges_known) or (ready and state == "preparing") or self._is_late(now_ns):
                self.ranges_known = self.ranges_known or state == "ranged"
                self.fleet.spans.append(StageSpan(stage=wanted, begin_ns=now_ns))
                self._enter("ranging" if wanted == "ranging" else "measuring", now_ns)
        elif state == "stopping":
            tail_s = max((record.tail_s for record in self.fleet.agents), default=0.0)
            awaited = [record for record in self.fleet.agents if self._is_awaited(record)]
            ended = all(record.state == "stopped" or record.silent for record in awaited)
            if ended or self._waited_s(now_ns) > tail_s + self._bounds.stop_s:
                self._enter("collecting", now_ns)
        elif state == "collecting":
            for host, number in progress.items():
                if self._progress.get(host, (None, 0))[0] != number:
                    self._progress[host] = (number, now_ns)
            if not any(self._is_coming(record, now_ns) for record in self.fleet.agents):
                self._enter("ingesting", now_ns)

    def _follow(self, record: AgentRecord, presence: Presence | None, now_ns: int) -> None:
        """Notice an agent that comes, goes, or is another one than before."""
        if presence is None or presence.silent:
            # Just after the director's start nobody has had the time to come back.
            waited = presence is not None or self._waited_s(now_ns) > self._bounds.silent_s
            if record.agent and not record.silent and waited:
                record.silent = True
                self._note(record, now_ns, "silent")
            return
        if record.silent:
            record.silent = False
            self._note(record, now_ns, "heard again")
        if not record.agent:
            record.boot_id, record.system = presence.boot_id, dict(presence.system)
            self._note(record, now_ns, "late" if self.fleet.spans else "joined")
        elif record.boot_id != presence.boot_id:
            if record.state != "failed":
                record.state = "failed"
                self._note(record, now_ns, "rebooted")
        elif record.agent != presence.agent:
            if record.state != "stopped":
                record.state = "expected"
            self._note(record, now_ns, "restarted")
        if record.agent != presence.agent:
            record.agent = presence.agent
            self._sent_ns.pop(record.host, None)
            self.dirty = True

    def _ask(self, record: AgentRecord, presence: Presence | None, now_ns: int) -> None:
        """Send what this agent has not yet done, from time to time until it has."""
        if presence is None or presence.silent or record.whole:
            return
        message: StartSampling | StopSampling | None = None
        if self.ending:
            if record.state in ("expected", "starting", "sampling", "stopping"):
                message = StopSampling(session=self.name)
        elif record.state != "failed" and (self.ranges_known or self.fleet.state != "ranged"):
            wanted = self.fleet.stage
            if record.state != "sampling" or record.stage != wanted:
                message = StartSampling(session=self.name, stage=wanted, choices=self._choices())
        last_ns = self._sent_ns.get(record.host)
        if message is not None and (last_ns is None or now_ns - last_ns >= self._bounds.repeat_s * _S):
            self._sent_ns[record.host] = now_ns
            self.out.append((record.host, message))

    def _choices(self) -> SamplerChoices:
        """What was asked for; in the testing stage with the ranges that were found."""
        choices = self.fleet.choices
        if not self.fleet.ranges or self.fleet.stage != "testing":
            return choices
        settings: dict[str, dict[str, float | Literal["auto", "on", "off"]]] = {}
        for driver, found in self.fleet.ranges.items():
            probes = choices.settings.get(driver, {}).get("probe_s")  # then it finds its ranges by itself
            if not probes and (told := range_settings(driver, found)):
                settings[driver] = {**told}
        for driver, given in choices.settings.items():
            settings[driver] = {**settings.get(driver, {}), **given}
        return msgspec.structs.replace(choices, settings=settings)

    def _hopeful(self) -> list[AgentRecord]:
        """Those that can still become ready."""
        return [record for record in self.fleet.agents if record.state != "failed"]

    @staticmethod
    def _is_settled(record: AgentRecord, present: Mapping[str, Presence]) -> bool:
        presence = present.get(record.host)
        return record.state == "sampling" and presence is not None and not presence.silent

    @staticmethod
    def _is_awaited(record: AgentRecord) -> bool:
        """Whether something can be on its way from this host."""
        return bool(record.agent) and not record.whole and record.state != "failed"

    def _is_coming(self, record: AgentRecord, now_ns: int) -> bool:
        if not record.agent or record.whole:
            return False
        number, since_ns = self._progress.get(record.host, (None, self._entered_ns))
        if record.state in ("expected", "failed") and number is None:
            return False  # it never sampled
        limit_s = self._bounds.silent_s if record.silent else self._bounds.hand_over_s
        return not self.fleet.asker or (now_ns - max(since_ns, self._entered_ns)) < limit_s * _S

    def _is_late(self, now_ns: int) -> bool:
        return self._waited_s(now_ns) > self._bounds.ready_s

    def _waited_s(self, now_ns: int) -> float:
        return (now_ns - self._entered_ns) / _S

    def _end_stage(self, now_ns: int) -> None:
        spans = self.fleet.spans
        if spans and spans[-1].end_ns is None:
            spans[-1] = msgspec.structs.replace(spans[-1], end_ns=max(now_ns, spans[-1].begin_ns))

    def _enter(self, state: FleetState, now_ns: int, why: str = "") -> None:
        wall_ns = now_ns + self._wall_offset_ns
        self.fleet.state = state
        self.fleet.transitions.append(Transition(state=state, t_ns=now_ns, wall_ns=wall_ns, why=why))
        self._entered_ns = now_ns
        self._sent_ns.clear()
        self._came.clear()
        self.dirty = self.changed = True

    def _note(self, record: AgentRecord, now_ns: int, kind: AgentEventKind, text: str = "") -> None:
        if len(record.events) < MOST_EVENTS:
            record.events.append(AgentEvent(t_ns=now_ns, kind=kind, text=text))
        else:
            record.events_left_out += 1
        self.dirty = True
