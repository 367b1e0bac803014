"""Puts a simulated meter behind USB-TMC, as a device that the kernel's usbtmc driver binds: /dev/usbtmc0 is real.

By the USB Test and Measurement Class specification 1.0 and its USB488 subclass, as strictly as these allow: whoever
asks for a message while the one that was asked for is not fetched yet finds the endpoint halted until it is cleared.
"""

from __future__ import annotations

import struct
from pathlib import Path

from meter_wire import Meter
from usbip_device import Setup, Stalled, UsbPlug, wait_until

_OUT_ENDPOINT, _IN_ENDPOINT, _PACKET = 0x01, 0x82, 512
_HEADER = struct.Struct("<BBBxIB3x")  # message, tag, its complement, size, attributes
_MESSAGE_OUT, _REQUEST_IN, _MESSAGE_IN = 1, 2, 2
_END_OF_MESSAGE = 1
_SUCCESS, _PENDING, _FAILED, _NOT_IN_PROGRESS = 0x01, 0x02, 0x80, 0x81
_TEXTS = ("", "Yokogawa", "Simulated meter", "C2WA21018V")
_DEVICE = struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x0200, 0, 0, 0, 64, 0x0B21, 0x0025, 0x0100, 1, 2, 3, 1)
_CONFIGURATION = (
    struct.pack("<BBHBBBBB", 9, 2, 9 + 9 + 7 + 7, 1, 1, 0, 0xC0, 50)
    + struct.pack("<BBBBBBBBB", 9, 4, 0, 0, 2, 0xFE, 3, 1, 0)  # application specific, test and measurement, USB488
    + struct.pack("<BBBBHB", 7, 5, _OUT_ENDPOINT, 2, _PACKET, 0)
    + struct.pack("<BBBBHB", 7, 5, _IN_ENDPOINT, 2, _PACKET, 0)
)
_CAPABILITIES = struct.pack("<BxHBB6xHBB8x", _SUCCESS, 0x0100, 0, 0, 0x0100, 0x06, 0x0F)


class UsbTmcMeter:
    """Plugged in from the start. Faults are attributes that a test sets."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.heard: list[str] = []
        self.clears = 0
        self.halts = 0
        self.mute = False  # it takes what it is told, and has no answer
        self.most_bytes = 1 << 20  # of one transfer; what is longer comes in several
        self.plug_in()

    def plug_in(self) -> None:
        """Into a port; returns when the device file is there."""
        self._forget()
        self._halted = False
        before = set(_device_files())
        self._plug = UsbPlug(self)
        wait_until(lambda: set(_device_files()) - before, "the kernel's driver binds the meter")
        (self.path,) = set(_device_files()) - before

    def unplug(self) -> None:
        """The device file goes away."""
        self._plug.pull()
        wait_until(lambda: not self.path.exists(), "the device file is gone")

    def control(self, setup: Setup) -> bytes:
        """See UsbDevice."""
        kind, request, value = setup.request_type, setup.request, setup.value
        if kind == 0x80 and request == 6:
            return self._descriptor(value >> 8, value & 0xFF)
        if kind == 0x80 and request == 0:  # GET_STATUS: powered by itself
            return b"\x01\x00"
        if kind & 0x60 == 0:  # SET_CONFIGURATION, SET_INTERFACE, CLEAR_FEATURE (halt)
            self._halted = self._halted and not (request == 1 and setup.index == _OUT_ENDPOINT)
            return b""
        if kind == 0xA1 and request == 7:
            return _CAPABILITIES
        if kind == 0xA1 and request == 5:  # INITIATE_CLEAR
            self.clears += 1
            self._forget()
            return bytes([_SUCCESS])
        if kind == 0xA1 and request == 6:  # CHECK_CLEAR_STATUS
            return bytes([_SUCCESS, 0])
        if kind == 0xA2 and request in (1, 3):  # INITIATE_ABORT of either direction
            return bytes([_NOT_IN_PROGRESS if self.asked is not None else _FAILED, 0])
        raise Stalled

    def bulk_out(self, data: bytes) -> None:
        """See UsbDevice."""
        if self._halted:
            raise Stalled
        if self._missing:
            self._take(data)
            return
        message, tag, complement, size, attributes = _HEADER.unpack(data[: _HEADER.size])
        is_known = message in (_MESSAGE_OUT, _REQUEST_IN) and tag == ~complement & 0xFF != 0
        if not is_known or (message == _REQUEST_IN and self.asked is not None):
            self._halted = True
            self.halts += 1
            raise Stalled
        if message == _REQUEST_IN:
            self.asked = tag, size
            return
        self._missing, self._ends = size, bool(attributes & _END_OF_MESSAGE)
        self._take(data[_HEADER.size :])

    def bulk_in(self, length: int) -> bytes | None:
        """See UsbDevice. A transfer ends with a packet that is not full, be it an empty one."""
        if self._transfer is None:
            if self.asked is None or not self._reply:
                return None
            (tag, size), self.asked = self.asked, None
            size = min(size, self.most_bytes, len(self._reply))
            part, self._reply = self._reply[:size], self._reply[size:]
            header = _HEADER.pack(_MESSAGE_IN, tag, ~tag & 0xFF, size, 0 if self._reply else _END_OF_MESSAGE)
            self._transfer = header + part + bytes(-size % 4)
        sent, rest = self._transfer[:length], self._transfer[length:]
        self._transfer = rest if rest or len(sent) == length else None
        return sent

    def _take(self, data: bytes) -> None:
        """Of a message's text: what exceeds it is padding."""
        self._text += data[: self._missing]
        self._missing -= min(len(data), self._missing)
        if self._missing or not self._ends:
            return
        text, self._text = self._text.decode("latin-1"), b""
        self._reply = b""  # what nobody fetched is lost
        for line in filter(None, text.splitlines()):
            self.heard.append(line)
            answer = self.meter.handle(line)
            if answer is not None and not self.mute:
                self._reply += answer.encode("latin-1") + b"\n"

    def _forget(self) -> None:
        self.asked: tuple[int, int] | None = None  # tag, and how much at most
        self._reply = self._text = b""
        self._transfer: bytes | None = None  # what is left of one that has begun
        self._missing, self._ends = 0, False

    def _descriptor(self, kind: int, number: int) -> bytes:
        if kind == 1:
            return _DEVICE
        if kind == 2:
            return _CONFIGURATION
        if kind == 3 and number == 0:
            return b"\x04\x03\x09\x04"
        if kind == 3 and number < len(_TEXTS):
            text = _TEXTS[number].encode("utf-16-le")
            return bytes([len(text) + 2, 3]) + text
        raise Stalled


def _device_files() -> list[Path]:
    return list(Path("/dev").glob("usbtmc*"))
