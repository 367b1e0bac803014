"""What one client says, and what is answered: MLPerf's power protocol, version 3."""

from __future__ import annotations

import math
import time
import uuid

from director.mlperf.protocol.desk import Busy, Desk
from director.mlperf.protocol.meter import RangesAsked
from director.mlperf.protocol.session import Session
from director.mlperf.protocol.session_log import SessionLog
from drivers.line_socket import LineSocket
from power_agent.mlperf_protocol import (
    CLIENT_GREETING,
    MAX_MESSAGES,
    OK,
    SEND_S,
    SERVER_GREETING,
    STAGES,
    Record,
    is_label,
    send_file,
)

GREETING_S = 10.0
IDLE_S = 120.0  # of a client without a session
IDLE_IN_SESSION_S = 600.0  # of one with a session, while no stage runs
MAX_MISTAKES = 20
_SHOWN = 200


class Conversation:
    """One client, in a thread of its own."""

    def __init__(self, lines: LineSocket, peer: str, desk: Desk) -> None:
        self._lines = lines
        self._peer = peer
        self._desk = desk
        self._log = SessionLog()
        self._record = Record()
        self._session: Session | None = None
        self._stops_server = False
        self._mistakes = 0

    def run(self) -> None:
        """Answer until the client leaves.

        Raises:
            Closed, TimeoutError: it is gone, or silent for too long.
        """
        why = "it closed the connection"
        try:
            if self._greet():
                while self._mistakes < MAX_MISTAKES:
                    self._answer(self._lines.read_line(self._patience_s()))
                why = "too many mistakes"
        except OSError as error:
            why = str(error)
            raise
        finally:
            self._desk.leave(self, why)
            if self._stops_server:
                self._desk.close_if_idle()

    def _greet(self) -> bool:
        line = self._lines.read_line(GREETING_S)
        received_s = time.time()
        self._lines.send_line(SERVER_GREETING, SEND_S)
        self._record.add_message(line[:_SHOWN], received_s, SERVER_GREETING)
        return line == CLIENT_GREETING

    def _patience_s(self) -> float | None:
        if self._session is None:
            return IDLE_S
        return None if self._session.measures else IDLE_IN_SESSION_S

    def _answer(self, line: str) -> None:
        received_s = time.time()
        self._log.info(f"the client said {line[:_SHOWN]!r}")
        if line.startswith("download,"):
            self._download(line.split(","))
            return
        had_session = self._session is not None
        reply = self._reply(line)
        if reply.startswith("Error"):
            self._mistakes += 1
        is_done = had_session and self._session is None  # server.json is written: its messages end before this one
        if not is_done and len(self._record.messages) < MAX_MESSAGES:
            self._record.add_message(line[:_SHOWN], received_s, reply)
        self._log.info(f"it is answered {reply!r}")
        self._lines.send_line(reply, SEND_S)

    def _reply(self, line: str) -> str:
        words = line.split(",")
        if words == ["time"]:
            return str(time.time())
        if words == ["set_ntp"]:
            self._log.warn("set_ntp was answered OK and nothing was done: power-director never sets a clock")
            return OK
        if words == ["stop"]:
            self._stops_server = True
            return OK
        if words[0] == "new" and len(words) == 3:
            return self._new(words[1], words[2])
        if words[0] == "session" and len(words) >= 3:
            return self._of_session(words[1], words[2:])
        if words[0] == "cleanup" and len(words) == 2:
            # Files stay: they are the run. Whoever measures removes them by hand.
            return OK if self._desk.is_finished(words[1]) else "Error: unknown session"
        return "Error: unknown command"

    def _new(self, label: str, client_uuid: str) -> str:
        if not is_label(label):
            return "Error: invalid label: letters, digits, - and _, at most 100"
        try:
            client = str(uuid.UUID(client_uuid))
        except ValueError:
            return "Error: the client's UUID is none"
        try:
            self._session = self._desk.new_session(self, self._peer, label, client, self._log, self._record)
        except Busy as error:
            return f"Error: {error}"
        except OSError as error:
            return f"Error: the session's folder cannot be made: {error.strerror or error}"
        return f"OK {self._session.name},{self._session.server_uuid}"

    def _of_session(self, name: str, words: list[str]) -> str:
        session = self._session if self._session is not None and name in ("*", self._session.name) else None
        if session is None:
            rejoined = self._desk.rejoin(self, self._peer, name, self._record)
            if rejoined is None:
                return "Error: unknown session"
            session, self._record = rejoined
            self._session, self._log = session, session.log
        if words == ["done"]:
            self._desk.finish(session)
            greeting = self._record.messages[:1]
            self._session, self._log, self._record = None, SessionLog(), Record()
            self._record.messages.extend(greeting)
            return OK
        with self._desk.held(session) as is_current:
            if not is_current:
                self._session = None
                return "Error: the session was ended"
            if len(words) >= 2 and words[1] in STAGES:
                if words[0] == "stop" and len(words) == 2:
                    return session.stop(words[1], self._record)
                if words[0] == "start" and len(words) == 2:
                    return session.start(words[1], None, self._record)
                if words[0] == "start" and words[1] == "testing" and len(words) == 4:
                    ranges = _ranges(words[2], words[3])
                    return session.start("testing", ranges, self._record) if ranges else "Error: no such ranges"
        return "Error: unknown command of a session"

    def _download(self, words: list[str]) -> None:
        path = self._desk.file_of(words[1], words[2]) if len(words) == 3 else None
        if path is None:
            self._mistakes += 1
            self._lines.send_line("Error: no such file of a finished session", SEND_S)
            return
        send_file(self._lines, path)


def _ranges(volts: str, amperes: str) -> RangesAsked | None:
    for text in (volts, amperes):
        try:
            number = float(text)
        except ValueError:
            return None
        if not (math.isfinite(number) and 0 < number < 1e6):
            return None
    return RangesAsked(f"{float(volts):g}", f"{float(amperes):g}")
