"""Plugs a simulated USB device into the kernel's virtual host controller (vhci_hcd) by the USB/IP protocol.

The kernel's own drivers then bind it as they would a real one. What the kernel would send over the wire comes through
a socket pair, in messages of Documentation/usb/usbip_protocol.rst, and is answered here.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

VHCI = Path("/sys/devices/platform/vhci_hcd.0")
DEADLINE_S = 60.0
_SUBMIT, _UNLINK, _SUBMITTED, _UNLINKED = 1, 2, 3, 4
_IN = 1
_HIGH_SPEED = 3
_HEADER = struct.Struct(">5I")  # command, number, device, direction, endpoint
_SUBMIT_REST = struct.Struct(">IiiIi8s")  # flags, length, frame, packets, interval, setup
_UNLINK_REST = struct.Struct(">I24x")
_SUBMITTED_REST = struct.Struct(">iiIIi8x")  # status, length, frame, packets, errors
_UNLINKED_REST = struct.Struct(">i24x")


class Stalled(Exception):
    """The device refuses: the host gets EPIPE."""


class Setup(NamedTuple):
    """Of a control request."""

    request_type: int
    request: int
    value: int
    index: int
    length: int


class UsbDevice(Protocol):
    """What is plugged in. Called from one thread. All may raise Stalled."""

    def control(self, setup: Setup) -> bytes:
        """What it answers; empty where nothing is asked for."""

    def bulk_out(self, data: bytes) -> None:
        """Take data of its one bulk-out endpoint."""

    def bulk_in(self, length: int) -> bytes | None:
        """What its bulk-in endpoint has, at most so much; None: nothing yet."""


def why_no_usb() -> str:
    """Why nothing can be plugged in here; empty: it can."""
    if "KERNEL_MACHINE" not in os.environ:  # nobody wants tests to load modules into the kernel that he works with
        return "plugging in a simulated USB device is for make test-machine"
    for module in ("vhci-hcd", "usbtmc"):
        done = subprocess.run(["modprobe", module], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"the kernel has no module {module}: {done.stderr.strip()}"
    return ""


class UsbPlug:
    """A device in a free port from the start until `pull`."""

    def __init__(self, device: UsbDevice) -> None:
        self._device = device
        self._socket, theirs = socket.socketpair()
        self._waiting: deque[tuple[int, int]] = deque()  # number and length of reads that have no answer yet
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._port = _free_port()
        (VHCI / "attach").write_text(f"{self._port} {theirs.fileno()} {1 << 16 | self._port + 1} {_HIGH_SPEED}")
        theirs.close()

    def pull(self) -> None:
        """Unplug it; returns when the kernel knows."""
        (VHCI / "detach").write_text(str(self._port))
        self._thread.join()
        wait_until(lambda: self._port in _free_ports(), "the port is free again")
        self._socket.close()

    def _serve(self) -> None:
        while True:
            header = self._receive(_HEADER.size)
            if not header:
                return
            command, number, _, direction, endpoint = _HEADER.unpack(header)
            if command == _UNLINK:
                (other,) = _UNLINK_REST.unpack(self._receive(_UNLINK_REST.size))
                was_waiting = any(waiting == other for waiting, _ in self._waiting)
                self._waiting = deque(each for each in self._waiting if each[0] != other)
                status = -errno.ECONNRESET if was_waiting else 0
                self._send(_HEADER.pack(_UNLINKED, number, 0, 0, 0) + _UNLINKED_REST.pack(status))
                continue
            _, length, _, _, _, setup = _SUBMIT_REST.unpack(self._receive(_SUBMIT_REST.size))
            data = self._receive(length) if direction != _IN else b""
            if endpoint == 0:
                request = Setup(*struct.unpack("<BBHHH", setup))
                self._answer(number, lambda request=request: self._device.control(request)[: request.length])
            elif direction == _IN:
                self._waiting.append((number, length))
            else:
                self._answer(number, lambda data=data: self._device.bulk_out(data), taken=length)
            self._feed()

    def _feed(self) -> None:
        """Answer reads that wait, as far as the device has anything."""
        while self._waiting:
            number, length = self._waiting[0]
            try:
                data = self._device.bulk_in(length)
            except Stalled:
                self._reply(number, -errno.EPIPE, b"", 0)
            else:
                if data is None:
                    return
                self._reply(number, 0, data, len(data))
            self._waiting.popleft()

    def _answer(self, number: int, act: Callable[[], bytes | None], taken: int = 0) -> None:
        try:
            data = act() or b""
        except Stalled:
            self._reply(number, -errno.EPIPE, b"", 0)
        else:
            self._reply(number, 0, data, taken or len(data))

    def _reply(self, number: int, status: int, data: bytes, length: int) -> None:
        rest = _SUBMITTED_REST.pack(status, length, 0, 0, 0)
        self._send(_HEADER.pack(_SUBMITTED, number, 0, 0, 0) + rest + data)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:  # the kernel has let go; the next read tells
            return

    def _receive(self, size: int) -> bytes:
        """So many bytes, or fewer at the end."""
        got = b""
        while len(got) < size:
            try:
                more = self._socket.recv(size - len(got))
            except OSError:
                return b""
            if not more:
                return b""
            got += more
        return got


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Wait, but not for ever."""
    end_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < end_s, f"waited for: {what}"
        time.sleep(0.01)


def _free_ports() -> list[int]:
    lines = (VHCI / "status").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]  # hub, port, state, …
    return [int(port) for hub, port, state, *_ in fields if hub == "hs" and int(state) == 4]


def _free_port() -> int:
    return min(_free_ports())
