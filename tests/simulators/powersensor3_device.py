"""A simulated PowerSensor3 behind a real pty: its commands, and a stream by its own clock, which drifts.

Written from its firmware's behaviour; no real device was at hand. Run as a program it serves one until its input ends:

    python powersensor3_device.py LINK [DRIFT_PPM [usb]]

With `usb` the line holds as little as the kernel does of a terminal on USB, and the program runs before all others
where it may, as a device has its own processor.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import termios
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from raw_pty import raw_pty

INTERVAL_US = 50
MIDDLE = 512  # level of a current sensor at no current
MOST_AT_ONCE = 60
LINE_BYTES = 48 * 1024  # beside the 16 KiB of a pty: so much that a busy machine does not spoil a test
# What the kernel keeps of a terminal on USB at full speed (cdc-acm, n_tty): not read yet, and in 16 transfers.
TERMINAL_BYTES, TRANSFER_BYTES = 4096 - 128, 16 * 128
STOP = b"\xff\x3f\xff\x3f"


@dataclass(frozen=True)
class SimRail:
    """A pair of sensors, and what they see: the current is a square wave of these levels, the voltage stands still."""

    name: str = "12V"
    voltage_level: int = 620  # 12 V
    low: int = 540
    high: int = 800
    period: int = 200  # samples
    amperes_reference: float = 3.3 * MIDDLE / 1023
    amperes_sensitivity: float = 0.1
    volts_sensitivity: float = 2.0 / 12
    in_use: bool = True

    def level(self, sample: int) -> int:
        return self.high if sample % self.period >= self.period // 2 else self.low

    def amperes(self, level: int) -> float:
        return (3.3 * level / 1023 - self.amperes_reference) / self.amperes_sensitivity

    @property
    def volts(self) -> float:
        return 3.3 * self.voltage_level / 1023 / self.volts_sensitivity

    @property
    def mean_watts(self) -> float:
        """Over whole periods."""
        return self.volts * (self.amperes(self.low) + self.amperes(self.high)) / 2

    def config(self) -> bytes:
        name = self.name.encode()
        current = struct.pack(
            "<16s16sff?", b"MLX91221-20", name, self.amperes_reference, self.amperes_sensitivity, self.in_use
        )
        return current + struct.pack("<16s16sff?", b"12V", name, 0.0, self.volts_sensitivity, self.in_use)


UNUSED = SimRail(name="", in_use=False, amperes_sensitivity=0.0, volts_sensitivity=0.0)


def packet(sensor: int, level: int, marker: bool = False) -> bytes:
    return bytes((0x80 | sensor << 4 | level >> 6, marker << 6 | level & 0x3F))


_STAMPS = [bytes((0xF0 | stamp >> 6, 0x40 | stamp & 0x3F)) for stamp in range(1024)]


@dataclass
class SimDevice:
    """The firmware. `rails` are up to four."""

    rails: list[SimRail] = field(default_factory=lambda: [SimRail()])
    version: bytes = b"F411-1.5.0\r\n"
    drift: float = 0.0  # of its clock against the host's
    made: int = 0  # samples since the stream began
    began_s: float = 0.0  # on the host's clock
    overrun_bytes: int = 0  # that the line did not take in time
    skip: int = 0  # samples to leave out next
    cut: int = 0  # bytes to leave out next
    insert: bytes = b""  # bytes to put in next
    markers: int = 0
    usb: bool = False  # see above
    stuck: bool = False
    streaming: bool = False
    _bodies: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        rails = [*self.rails, *[UNUSED] * (4 - len(self.rails))]
        self.config = [part for rail in rails for part in (rail.config()[:41], rail.config()[41:])]
        period = max(rail.period for rail in rails)
        self._bodies = [
            b"".join(
                packet(2 * place, rail.level(sample)) + packet(2 * place + 1, rail.voltage_level)
                for place, rail in enumerate(rails)
            )
            for sample in range(period)
        ]

    def frame(self, sample: int) -> bytes:
        body = self._bodies[sample % len(self._bodies)]
        if self.markers:
            self.markers -= 1
            body = body[:1] + bytes([body[1] | 0x40]) + body[2:]
        return _STAMPS[(sample * INTERVAL_US) & 1023] + body

    def due(self, now_s: float) -> bytes:
        """The frames since this was asked; after a pause of this process some at a time, as no real device pauses."""
        target = int((now_s - self.began_s) * (1 + self.drift) * 1e6 / INTERVAL_US)
        self.made, skipped = self.made + self.skip, self.skip
        self.skip -= skipped
        target = min(target, self.made + MOST_AT_ONCE)
        data = b"".join(map(self.frame, range(self.made, target)))
        self.made = max(target, self.made)
        if self.cut and len(data) > 900:
            data = data[:455] + data[455 + self.cut :]
            self.cut = 0
        if self.insert and len(data) > 900:
            data, self.insert = data[:455] + self.insert + data[455:], b""
        return data


class PtyDevice:
    """Serves a device at `path` until closed."""

    def __init__(self, device: SimDevice, path: Path) -> None:
        self.device = device
        self.path = path
        self.plug_in()

    def plug_in(self) -> None:
        self._closing = False
        self._waiting = bytearray()
        self._master, self._slave = raw_pty(self.path)
        os.set_blocking(self._master, False)
        self.device.streaming = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """The device file goes away, with whatever has it open."""
        self._closing = True
        self._thread.join()
        self.path.unlink(missing_ok=True)
        os.close(self._slave)
        os.close(self._master)

    def close(self) -> None:
        if not self._closing:
            self.unplug()

    def _serve(self) -> None:
        device = self.device
        chunk = -1  # of the configuration that was sent last
        while not self._closing:
            ready, _, _ = select.select([self._master], [], [], 0.001 if device.streaming else 0.02)
            for command in os.read(self._master, 4096) if ready else b"":
                if chunk >= 0:
                    chunk += 1
                    self._send(device.config[chunk] if chunk < 8 else b"D")
                    chunk = chunk if chunk < 8 else -1
                elif command == ord("R"):
                    chunk = 0
                    self._send(device.config[0])
                elif command == ord("V"):
                    self._send(device.version)
                elif command == ord("S"):
                    device.began_s, device.made, device.streaming = time.monotonic(), 0, True
                elif command == ord("M"):
                    device.markers += 1
                elif command in b"TX":
                    device.streaming = False
                    if command == ord("X"):
                        self._send(STOP)
            if device.streaming and not device.stuck:
                self._send(device.due(time.monotonic()))

    def _send(self, data: bytes) -> None:
        """What does not fit into the line at once waits, as it does in the kernel's buffers of a real USB line."""
        room = (TRANSFER_BYTES if self.device.usb else LINE_BYTES) - len(self._waiting)
        free = TERMINAL_BYTES - self._unread_bytes() if self.device.usb else 4096
        self.device.overrun_bytes += max(len(data) - room - max(free, 0), 0)
        self._waiting += data[: room + max(free, 0)]
        try:
            while self._waiting and free > 0 and (sent := os.write(self._master, self._waiting[: min(free, 4096)])):
                del self._waiting[:sent]
                free -= sent if self.device.usb else 0
        except BlockingIOError:
            pass

    def _unread_bytes(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self._slave, termios.FIONREAD, bytes(4)))[0])


if __name__ == "__main__":
    drift = float(sys.argv[2]) * 1e-6 if len(sys.argv) > 2 else 0.0
    as_usb = sys.argv[3:] == ["usb"]
    if as_usb:
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    rails = [SimRail("slot_3V3", 300, 520, 560), SimRail("slot_12V"), SimRail("ext_1"), SimRail("ext_2", high=900)]
    served = PtyDevice(SimDevice(rails, drift=drift, usb=as_usb), Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.read()
    made, overrun = served.device.made, served.device.overrun_bytes
    served.close()
    print(made, overrun, sum(rail.mean_watts for rail in rails), flush=True)
