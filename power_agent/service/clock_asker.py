"""The thread that owns an agent's clock socket: asks the director for its time, in bursts.

A burst of exchanges has a fast one among them even where the machine or the network is busy, and the faster the next
one follows, the more awake are all who take part. t1 and t4 are read next to the socket. The agent alone sees an
exchange whole, and tells it with the next question. Nothing waits for an answer that does not come, and one that comes
late only makes a wide exchange.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from power_agent import host_facts
from power_agent.mark_file import say
from power_agent.service.own_thread import OwnThread
from power_agent.wire.messages import ClockAnswer, ClockAsk, ClockExchange
from power_agent.wire.sockets import AgentSocket

ASKS: Final = 12  # of a burst, each as soon as the one before is answered
PERIOD_S: Final = 3.0  # from burst to burst; each agent's own is up to a tenth more or less, so that they spread
FIRST_PERIODS: Final = 4  # of half a second, so that there is a drift to see soon
ANSWER_S: Final = 0.5  # waited for an answer
BURST_S: Final = 3.0  # the longest that a burst may take
RETRY_S: Final = 0.2  # while there is no connection
MOST_OPEN: Final = 64  # questions whose answer may still come


class ClockAsker:
    """Runs from `start` to `close`."""

    def __init__(
        self,
        socket: AgentSocket[ClockAnswer],
        host: str,
        tell: Callable[[str], None] = say,
        *,
        boot_id: str | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`boot_id`: of the machine whose clock `monotonic_ns` is; None: this one."""
        self._socket = socket
        self._host = host
        self._boot_id = host_facts.boot_id() if boot_id is None else boot_id
        self._monotonic_ns = monotonic_ns
        self._thread = OwnThread("clock", self._turn, tell)
        self._periods = 0
        self._number = random.getrandbits(32)  # answers to an agent that was here before bear other numbers
        self._open: dict[int, int] = {}  # t1 by number
        self._last: ClockExchange | None = None
        self.exchanges = 0

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Tell the last exchange, and end. The socket may be closed after that."""
        self._thread.close()
        if self._last is not None:
            self._ask()

    def _turn(self) -> None:
        self._socket.keep()
        asked = self._burst()
        if not asked:
            pause_s = RETRY_S
        elif self._periods < FIRST_PERIODS:
            pause_s = 0.5
        else:
            pause_s = PERIOD_S * random.uniform(0.9, 1.1)
        self._periods += asked
        self._thread.sleep(pause_s)

    def _burst(self) -> bool:
        """Ask a few times. False: there is no connection. The last exchange is told with the next burst."""
        end_s = time.monotonic() + BURST_S
        for number in range(ASKS):
            if number and (self._thread.is_ending or time.monotonic() >= end_s):
                break
            if not self._ask():
                return False
            self._await(time.monotonic() + ANSWER_S)
        return True

    def _ask(self) -> bool:
        self._number += 1
        number, last = self._number, self._last
        t1_ns = self._monotonic_ns()
        if not self._socket.send(ClockAsk(host=self._host, number=number, t1_ns=t1_ns, last=last)):
            return False
        self._last = None
        while len(self._open) >= MOST_OPEN:
            del self._open[next(iter(self._open))]
        self._open[number] = t1_ns
        return True

    def _await(self, end_s: float) -> None:
        """Take answers until the one to the last question has come."""
        while self._number in self._open:
            if not self._socket.wait(max(0, round((end_s - time.monotonic()) * 1000))):
                return
            t4_ns = self._monotonic_ns()
            for answer in self._socket.received(1):
                t1_ns = self._open.get(answer.number)
                if t1_ns is not None and t1_ns == answer.t1_ns:
                    del self._open[answer.number]
                    self.exchanges += 1
                    self._last = ClockExchange(
                        t1_ns=t1_ns, t2_ns=answer.t2_ns, t3_ns=answer.t3_ns, t4_ns=t4_ns, boot_id=self._boot_id
                    )
