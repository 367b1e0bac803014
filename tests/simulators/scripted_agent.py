"""An agent as the director sees it, on real sockets and with a real spool, whose behaviour a test chooses."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import zmq

from drivers.contract import Channel
from power_agent.clock import ClockPair
from power_agent.messages import Stream
from power_agent.row_format import row_struct
from power_agent.service.bulk_sender import BulkSender
from power_agent.spool import Batch, SpoolWriter
from power_agent.wire.messages import (
    Heartbeat,
    Hello,
    Refused,
    SamplingState,
    SessionAnswer,
    SessionRequest,
    StartSampling,
    StopSampling,
    Welcome,
    WorkloadEvent,
)
from power_agent.wire.sockets import Address, connect

PERIOD_S = 0.05


class ScriptedAgent:
    """Samples 100 W, one reading each 50 ms, for each session that the director starts. A thread of its own."""

    def __init__(
        self,
        address: Address,
        folder: Path,
        host: str,
        *,
        boot_id: str = "",
        obeys: bool = True,
        hands_over: bool = True,
        fails: str = "",
        meter: bool = False,
    ) -> None:
        self.host = host
        self.folder = folder / host
        self.folder.mkdir(parents=True, exist_ok=True)
        self.heard: list[Any] = []
        self.answers: list[SessionAnswer] = []
        self.rows: dict[str, int] = {}  # recorded by this agent, by session
        self._address = address
        self._boot_id = boot_id or f"boot of {host}"
        self.obeys = obeys
        self.hands_over = hands_over
        self._fails = fails
        self._values = (230.0, 2.0, 100.0) if meter else (100.0,)
        self.stages: list[str] = []  # that it was asked for
        self._agent = f"{host} {time.monotonic_ns()}"
        self._spools: dict[str, SpoolWriter] = {}
        self._sampling: dict[str, str] = {}  # stage by session
        self._ended: set[str] = set()  # not sampled any more, nor handed over yet
        self._finished: set[str] = set()
        self._mute = threading.Event()
        self._stop = threading.Event()
        self._requests: list[Any] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ask(self, message: SessionRequest | WorkloadEvent) -> None:
        """Send this on the control connection."""
        self._requests.append(message)

    def mute(self, silent: bool) -> None:
        """Neither speak nor listen, but sample on."""
        self._mute.set() if silent else self._mute.clear()

    def close(self) -> None:
        """End as SIGKILL would: spools stay."""
        self._stop.set()
        self._thread.join()

    def sampled(self, session: str) -> bool:
        """Whether it samples for a session now."""
        return session in self._sampling

    def _run(self) -> None:
        context: zmq.Context[Any] = zmq.Context()
        sockets = connect(context, self._address, None, None)
        sender = BulkSender(sockets.bulk, self.host)
        sender.start()
        control = sockets.control
        for spool in self.folder.glob("*.sqlite"):
            sender.add(spool.stem, spool, {"marks": self._marks(spool.stem)})
            self._ended.add(spool.stem)
        welcomed, spoke_s = False, 0.0
        while not self._stop.is_set():
            self._sample()
            if self._mute.is_set():
                time.sleep(0.02)
                continue
            now_s = time.monotonic()
            if now_s - spoke_s > 0.2 and control.is_connected:
                spoke_s = now_s
                control.send(Heartbeat(t_ns=time.monotonic_ns()) if welcomed else self._hello())
            while welcomed and self._requests:
                control.send(self._requests.pop(0))
            control.wait(20)
            for message in control.received(1000):
                if isinstance(message, (Welcome, Refused)):
                    welcomed = isinstance(message, Welcome)
                elif not isinstance(message, Heartbeat):
                    self.heard.append(message)
                for answer in self._obey(message, sender):
                    control.send(answer)
            for session in list(self._ended if self.hands_over else ()):
                sender.finish(session)
                self._ended.discard(session)
                self._finished.add(session)
            for session in list(self._finished):
                if sender.is_whole(session):
                    sender.forget(session)
                    self._finished.discard(session)
                    for path in self.folder.glob(f"{session}.sqlite*"):
                        path.unlink()
        sender.close()
        sockets.close()
        context.term()
        for spool in self._spools.values():
            spool.close()

    def _hello(self) -> Hello:
        unsent = [path.stem for path in self.folder.glob("*.sqlite")]
        return Hello(
            host=self.host,
            agent=self._agent,
            boot_id=self._boot_id,
            tool_version="1",
            recording=list(self._sampling),
            unsent=unsent,
        )

    def _obey(self, message: Any, sender: BulkSender) -> list[Any]:
        if isinstance(message, SessionAnswer):
            self.answers.append(message)
        if isinstance(message, StartSampling) and self.obeys:
            if self._fails:
                return [self._state(message.session, message.stage, "failed")]
            if message.session not in self._spools:
                path = self.folder / f"{message.session}.sqlite"
                resume = path.exists()
                spool = self._spools[message.session] = SpoolWriter(path, {"host": self.host}, resume=resume)
                if not resume:
                    spool.write(streams=[self._stream()])
                self._marks(message.session).mkdir(parents=True, exist_ok=True)
                sender.forget(message.session)
                self._ended.discard(message.session)
                sender.add(message.session, path, {"marks": self._marks(message.session)})
            self._sampling[message.session] = message.stage
            if message.stage not in self.stages:
                self.stages.append(message.stage)
            return [self._state(message.session, message.stage, "sampling")]
        if isinstance(message, StopSampling) and self.obeys:
            stage = self._sampling.pop(message.session, "testing")
            if message.session in self._spools:
                self._spools.pop(message.session).close()
                self._ended.add(message.session)
            return [self._state(message.session, stage, "stopped")]
        return []

    def _stream(self) -> Stream:
        if len(self._values) == 1:
            power = Channel(name="made/power", device="d", quantity="power", unit="W", kind="gauge", scope="node")
            return Stream(id=0, driver="made", group="g0", rate_hz=20.0, channels=[power])
        kinds: tuple[tuple[Any, str, Any], ...] = (
            ("voltage", "V", "none"),
            ("current", "A", "none"),
            ("power", "W", "wall"),
        )
        channels = [
            Channel(name=f"meter/{quantity}", device="meter", quantity=quantity, unit=unit, kind="gauge", scope=scope)
            for quantity, unit, scope in kinds  # as the drivers of meters say
        ]
        return Stream(id=0, driver="wt310e", group="element1", rate_hz=20.0, channels=channels)

    def _state(self, session: str, stage: Any, state: Any) -> SamplingState:
        problems = [self._fails] if state == "failed" else []
        t_ns = time.monotonic_ns()
        return SamplingState(session=session, stage=stage, state=state, t_ns=t_ns, problems=problems)

    def _marks(self, session: str) -> Path:
        return self.folder / "marks" / session

    def _sample(self) -> None:
        for session in self._sampling:
            pack = row_struct(self._stream().channels).pack
            t_ns = time.monotonic_ns()
            row = pack(t_ns, 1000, *self._values, bytes(len(self._values)))
            pair = ClockPair(t_ns, time.time_ns(), 50)
            self._spools[session].write(batches=[Batch(0, 1, row)], clock=[pair])
            self.rows[session] = self.rows.get(session, 0) + 1
        if self._sampling:
            time.sleep(PERIOD_S / 2)
