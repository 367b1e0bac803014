"""The BMC of the emulated machine that tests run in: the kernel's ipmi_si asks it through the machine's KCS interface.

qemu's ipmi-bmc-extern hands over each request in the protocol that OpenIPMI's ipmi_sim calls VM, and kernel_machine.py
leads that back into the machine, to a virtio port.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

PORT = "bmc"  # its name in kernel_machine.py
DEVICE_FILE = Path("/dev/ipmi0")
DEADLINE_S = 60.0
_END_OF_MESSAGE, _END_OF_COMMAND, _ESCAPE = 0xA0, 0xA1, 0xAA
_SPECIAL = (_END_OF_MESSAGE, _END_OF_COMMAND, _ESCAPE)
_ESCAPED = 0x10
_INVALID_COMMAND = b"\xc1"
_GET_DEVICE_ID = 0x06, 0x01
_GET_POWER_READING = 0x2C, 0x02
# Device 0x20, firmware 1.0, IPMI 2.0, of a maker with the number 0x1234.
_DEVICE_ID = bytes((0x00, 0x20, 0x01, 0x01, 0x00, 0x02, 0x00, 0x34, 0x12, 0x00, 0x01, 0x00))


def why_no_bmc() -> str:
    """Why this machine cannot have this BMC; empty: it can."""
    if "KERNEL_MACHINE" not in os.environ:
        return "simulating the machine's own BMC is for make test-machine"
    subprocess.run(["modprobe", "virtio_console"], capture_output=True, check=False)
    return "" if _port() else "the machine has no port to a BMC, or the kernel no module virtio_console"


class MachineBmc:
    """Answers from the start until `close`; returns when the kernel's drivers have found it."""

    def __init__(self, power: Callable[[], bytes | None]) -> None:
        """`power`: the answer to DCMI's Get Power Reading, from the completion code on; None: it keeps silent."""
        path = _port()
        assert path is not None
        self._power = power
        self._port = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._closing = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        for module in ("ipmi_si", "ipmi_devintf"):
            subprocess.run(["modprobe", module], check=True)
        end_s = time.monotonic() + DEADLINE_S
        while not DEVICE_FILE.exists():
            assert time.monotonic() < end_s, "the kernel finds no BMC"
            time.sleep(0.05)

    def close(self) -> None:
        """End."""
        self._closing = True
        self._thread.join()
        os.close(self._port)

    def _serve(self) -> None:
        message, is_escaped = bytearray(), False
        while not self._closing:
            ready, _, _ = select.select([self._port], [], [], 0.05)
            for byte in os.read(self._port, 4096) if ready else b"":
                if byte == _ESCAPE:
                    is_escaped = True
                elif byte == _END_OF_MESSAGE:
                    self._take(bytes(message))
                    message.clear()
                elif byte == _END_OF_COMMAND:  # qemu's version and abilities
                    message.clear()
                else:
                    message.append(byte & ~_ESCAPED if is_escaped else byte)
                    is_escaped = False

    def _take(self, message: bytes) -> None:
        """Number, NetFn and LUN, command, data, checksum."""
        assert sum(message) & 0xFF == 0, message.hex()
        number, function, command = message[:3]
        what = function >> 2, command
        answer: bytes | None = _INVALID_COMMAND
        if what == _GET_DEVICE_ID:
            answer = _DEVICE_ID
        elif what == _GET_POWER_READING and message[3:-1] == b"\xdc\x01\x00\x00":
            answer = self._power()
        if answer is None:
            return
        reply = bytes((number, function | 4, command)) + answer
        reply += bytes((-sum(reply) & 0xFF,))
        sent = bytearray()
        for byte in reply:
            sent += bytes((_ESCAPE, byte | _ESCAPED)) if byte in _SPECIAL else bytes((byte,))
        os.write(self._port, bytes(sent) + bytes((_END_OF_MESSAGE,)))


def _port() -> Path | None:
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text().strip() == PORT:
            return Path("/dev", name.parent.name)
    return None
