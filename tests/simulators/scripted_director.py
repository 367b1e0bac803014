"""A director's real sockets and store, whose answers to an agent are a test's."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from director.fleet.listener import Listener
from director.fleet.store import FleetStore
from power_agent.messages import Stream
from power_agent.row_format import row_struct
from power_agent.spool import SpoolReader
from power_agent.wire.keys import KeyPair, Keyring
from power_agent.wire.messages import (
    ClockExchange,
    FromAgent,
    FromDirector,
    Hello,
    SamplerChoices,
    SamplingState,
    SessionAnswer,
    SessionRequest,
    StartSampling,
    StopSampling,
)
from power_agent.wire.sockets import Address, AddressProblem

DEADLINE_S = 30.0


def free_ports() -> int:
    """The first of three ports in a row that nobody listens on.

    Below those that the kernel gives to who connects, and far from those of a process with the next number.
    """
    for port in range(12_000 + os.getpid() * 97 % 18_000, 32_700, 7):
        try:
            for offset in range(3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
            return port
        except OSError:
            continue
    raise AssertionError("no free ports")


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Until it is so; an AssertionError that says what never came about."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, what
        time.sleep(0.02)


class ScriptedDirector:
    """Admits sessions into `folder`, remembers what it heard, and answers requests as `decide` says."""

    def __init__(
        self, folder: Path, address: Address, *, own: KeyPair | None = None, keyring: Keyring | None = None
    ) -> None:
        self.folder = folder
        self.address = address
        self.told: list[str] = []
        self.heard: list[FromAgent] = []
        self.exchanges: list[tuple[str, ClockExchange]] = []
        self.decide: Callable[[str, SessionRequest], Sequence[FromDirector]] = self._serve_request
        self.choices = SamplerChoices()
        self.store = FleetStore(self.told.append)
        end_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                self.listener = Listener(
                    address,
                    self.store,
                    own=own,
                    keyring=keyring,
                    on_control=self._hear,
                    on_exchange=lambda host, exchange: self.exchanges.append((host, exchange)),
                    tell=self.told.append,
                )
                break
            except AddressProblem:  # the one before is not quite gone
                assert time.monotonic() < end_s
                time.sleep(0.05)
        self.listener.start()
        self._requests: dict[str, tuple[str, str]] = {}  # by session: host, request

    def admit(self, session: str) -> Path:
        """Take the data of a session."""
        (self.folder / session).mkdir(parents=True, exist_ok=True)
        self.store.admit(session, self.folder / session)
        return self.folder / session

    def start_session(self, host: str, session: str, stage: str = "testing") -> None:
        """Have a host sample."""
        self.admit(session)
        self.listener.send(host, StartSampling(session=session, stage=stage, choices=self.choices))  # type: ignore[arg-type]

    def stop_session(self, host: str, session: str) -> None:
        """Have it end that."""
        self.listener.send(host, StopSampling(session=session))

    def states(self, session: str) -> list[str]:
        """What was told of a session's sampling, in order."""
        return [m.state for m in self.heard if isinstance(m, SamplingState) and m.session == session]

    def of(self, kind: type) -> list[FromAgent]:
        """What came of one kind."""
        return [message for message in self.heard if isinstance(message, kind)]

    def close(self) -> None:
        """Go away, as a killed director does."""
        self.listener.close()
        self.store.close()

    def _hear(self, host: str, message: FromAgent) -> Sequence[FromDirector]:
        self.heard.append(message)
        if isinstance(message, Hello):
            for session in (*message.unsent, *message.recording):
                self.admit(session)
        if isinstance(message, SessionRequest):
            return self.decide(host, message)
        if isinstance(message, SamplingState) and message.session in self._requests:
            _, request = self._requests[message.session]
            if message.state == "sampling":
                answer = SessionAnswer(request=request, state="measuring", session=message.session, stage=message.stage)
                return [answer]
            if message.state in ("stopped", "failed"):
                return [SessionAnswer(request=request, state="complete", session=message.session, report="the table\n")]
        return []

    def _serve_request(self, host: str, request: SessionRequest) -> Sequence[FromDirector]:
        session = request.session or f"job-{request.request[:8]}"
        self._requests[session] = (host, request.request)
        self.admit(session)
        if request.want == "state":
            return []
        if request.want == "next":
            return [SessionAnswer(request=request.request, state="measuring", session=session, stage="testing")]
        if request.want == "start":
            return [
                SessionAnswer(request=request.request, state="preparing", session=session, warnings=["not ready yet"]),
                StartSampling(session=session, stage=sorted(request.stages or ["testing"])[0], choices=self.choices),
            ]
        return [
            SessionAnswer(request=request.request, state="stopping", session=session),
            StopSampling(session=session),
        ]


def rows(spool: Path) -> list[bytes]:
    """Every row of a spool, of all streams, as its bytes; the stream's number first."""
    reader = SpoolReader(spool)
    try:
        found = []
        for stream in reader.streams():
            size = row_struct(stream.channels).size
            for _, payload in reader.batches(stream.id):
                found += [b"%d:" % stream.id + payload[at : at + size] for at in range(0, len(payload), size)]
        assert not any(reader.damaged.values())
        return found
    finally:
        reader.close()


def instants(spool: Path) -> dict[str, list[int]]:
    """The instants (ns) of each stream's rows in the order of the spool."""
    reader = SpoolReader(spool)
    try:
        return {_name(stream): list(_instants(reader, stream)) for stream in reader.streams()}
    finally:
        reader.close()


def _name(stream: Stream) -> str:
    return f"{stream.driver}.{stream.group}"


def _instants(reader: SpoolReader, stream: Stream) -> list[int]:
    layout = row_struct(stream.channels)
    return [row[0] for _, payload in reader.batches(stream.id) for row in layout.iter_unpack(payload)]
