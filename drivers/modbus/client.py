"""Reads registers through pymodbus: its requests, frames and checks, on this project's own lines.

pymodbus's own lines measure their deadlines in wall time, which may step, and look for a reply at intervals.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from pymodbus import FramerType
from pymodbus.client import ModbusTcpClient
from pymodbus.pdu import ExceptionResponse

from drivers.links import Link, LinkLost

_NEVER = 1 << 62
_QUIET_S = 0.05
_ILLEGAL_ADDRESS = 2
_MEANINGS = {
    1: "it does not know the function",
    2: "it has no such register",
    3: "it does not give that many",
    4: "it failed",
    6: "it is busy",
    10: "the gateway has no path to it",
    11: "the gateway hears nothing from it",
}

logging.getLogger("pymodbus").addHandler(logging.NullHandler())
logging.getLogger("pymodbus").propagate = False  # a reading that failed is told by whoever reads


class BadAnswer(Exception):
    """No answer came, or none that makes sense. `silent`: nothing at all came."""

    def __init__(self, text: str, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent


class Refusal(Exception):
    """The meter answered that it will not. `no_such_register`: because of the address."""

    def __init__(self, text: str, no_such_register: bool) -> None:
        super().__init__(text)
        self.no_such_register = no_such_register


class _Client(ModbusTcpClient):
    """pymodbus's client, whatever the line and the framing. A request's deadline starts when it is sent."""

    def __init__(self, link: Link, framer: FramerType, reply_s: float) -> None:
        super().__init__("", framer=framer, timeout=reply_s, retries=0)
        self.transaction.count_until_disconnect = self.transaction.max_until_disconnect = _NEVER
        self.heard = 0  # bytes since the request
        self._link = link
        self._echoes = framer == FramerType.RTU
        self._reply_s = reply_s
        self._until_s = 0.0
        self._sent = b""  # while it may still come back as an echo
        self._held = b""

    def connect(self) -> bool:
        return True

    def close(self) -> None:
        self._link.close()

    def is_socket_open(self) -> bool:
        return True

    def send(self, request: bytes, addr: Any = None) -> int:
        self._link.send(request)
        self._until_s = time.monotonic() + self._reply_s
        self._sent, self._held, self.heard = (request if self._echoes else b""), b"", 0
        return len(request)

    def recv(self, size: int | None) -> bytes:
        while True:
            data = self._link.receive(max(self._until_s - time.monotonic(), 0.0))
            if not data:
                return b""
            self.heard += len(data)
            if not self._sent:
                return data
            self._held += data
            if self._sent.startswith(self._held) and self._held != self._sent:
                continue  # an echo, or a reply that begins like one
            data, self._sent = self._held.removeprefix(self._sent), b""
            if data:
                return data


class RegisterReader:
    """One meter on a line. Belongs to one thread."""

    def __init__(self, link: Link, unit: int, reply_s: float, *, tcp: bool, pause_s: float = 0.0) -> None:
        """`tcp`: Modbus TCP, else RTU. `pause_s`: silence that RTU has between frames."""
        self._client = _Client(link, FramerType.SOCKET if tcp else FramerType.RTU, reply_s)
        self._link = link
        self._unit = unit
        self._pause_s = pause_s
        self._reply_s = reply_s
        self._in_step = False

    def read(self, function: int, address: int, count: int) -> Sequence[int]:
        """These registers.

        Raises:
            LinkLost: see there.
            BadAnswer, Refusal: see there.
        """
        if not self._in_step:
            self._find_step()
        if self._pause_s:
            time.sleep(self._pause_s)
        self._in_step = False
        ask = self._client.read_input_registers if function == 4 else self._client.read_holding_registers
        try:
            reply = ask(address, count=count, device_id=self._unit)
        except LinkLost:
            raise
        except Exception as error:  # pymodbus's own, and what broken frames make it stumble over
            if not self._client.heard:
                raise BadAnswer(f"unit {self._unit} did not answer within {self._reply_s:g} s", silent=True) from error
            raise BadAnswer("what came is not an answer to what was asked, or was broken on its way") from error
        if reply.function_code != function and reply.function_code != function | 0x80:
            raise BadAnswer("the answer is to another question")
        if isinstance(reply, ExceptionResponse) or reply.isError():
            self._in_step = True
            code = getattr(reply, "exception_code", 0)
            text = f"the meter refuses registers {address:#x} to {address + count - 1:#x}: {_MEANINGS.get(code, code)}"
            raise Refusal(text, code == _ILLEGAL_ADDRESS)
        if len(reply.registers) != count:
            raise BadAnswer(f"{len(reply.registers)} registers came for {count}")
        self._in_step = True
        return list(reply.registers)

    def close(self) -> None:
        """Release the line."""
        self._link.close()

    def _find_step(self) -> None:
        """Throw away what still comes: a late answer is not one to the next question."""
        until_s = time.monotonic() + self._reply_s
        while self._link.receive(_QUIET_S) and time.monotonic() < until_s:
            pass
