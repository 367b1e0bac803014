"""Bytes to and from a device over a serial line, TCP, USB-TMC or VXI-11, each wait with a limit.

A place is written `/dev/ttyUSB0` or `serial:/dev/ttyUSB0`, `tcp:HOST:PORT`, `/dev/usbtmc0` or `usbtmc:/dev/usbtmc0`,
`vxi11:HOST` (with `:PORT` where a port mapper cannot be reached).
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from drivers.contract import Unavailable

CONNECT_S = 3.0
MOST_MESSAGE_BYTES = 8192
_AT_ONCE = 4096
_USBTMC_CLEAR = 0x5B02  # of linux/usb/tmc.h: USBTMC_IOCTL_CLEAR
_USBTMC_CLEAR_IN_HALT = 0x5B07
_USBTMC_SET_TIMEOUT = 0x40045B0A  # milliseconds as u32
_USBTMC_ATTRIBUTES = 0x80015B18  # USBTMC_IOCTL_MSG_IN_ATTR, u8
_USBTMC_END = 1  # of a message
_INSTALL = "pip install 'ml-power-agent[meters]'"


class LinkLost(Exception):
    """The line to the device is gone: unplugged, switched off, or closed by the other end."""


class Link(Protocol):
    """Bytes to and from a device."""

    by_message: bool  # what `receive` gives is a whole message, and asking for one that is not there is a mistake

    def clear(self) -> None:
        """Where it goes by messages: forget what is under way. Does not raise."""

    def send(self, data: bytes) -> None:
        """Raises LinkLost."""

    def receive(self, timeout_s: float) -> bytes:
        """What has come, at least a byte, or nothing after `timeout_s`. Raises LinkLost."""

    def close(self) -> None:
        """Does not raise."""


class SerialSettings(NamedTuple):
    """How a serial line is set: 8 bits a character. `rtscts`: hardware flow control."""

    baud: int = 9600
    rtscts: bool = False
    parity: Literal["N", "E", "O"] = "N"  # none, even, odd
    stop_bits: Literal[1, 2] = 1


def open_link(place: str, serial: SerialSettings, *, tcp_port: int | None = None) -> Link:
    """Open the way to a device.

    Args:
        place: see the module.
        serial: of a serial line.
        tcp_port: where `place` names none.

    Raises:
        Unavailable: it cannot be opened: why, and what to do.
    """
    kind, colon, rest = place.partition(":")
    if place.startswith("/"):
        kind, rest = ("usbtmc" if place.startswith("/dev/usbtmc") else "serial"), place
    elif not colon or kind not in ("serial", "tcp", "usbtmc", "vxi11") or not rest:
        raise Unavailable(
            f"{place!r} is no place of a device",
            "write /dev/ttyUSB0, tcp:HOST:PORT, /dev/usbtmc0 or vxi11:HOST",
        )
    if kind == "serial":
        return SerialLink(rest, serial)
    if kind == "tcp":
        return _TcpLink(*_host_and_port(place, rest, tcp_port))
    if kind == "usbtmc":
        return _UsbTmcLink(rest)
    return _Vxi11Link(*_host_and_port(place, rest, None)) if ":" in rest else _Vxi11Link(rest, None)


def _host_and_port(place: str, text: str, default: int | None) -> tuple[str, int]:
    host, colon, number = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon and default is not None:
        return text.strip("[]"), default
    if not (host and number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise Unavailable(f"{place!r} names no port", "write tcp:HOST:PORT, such as tcp:192.168.1.20:5025")
    return host.strip("[]"), int(number)


class SerialLink:
    """A device on a serial line."""

    by_message = False

    def __init__(self, path: str, settings: SerialSettings) -> None:
        try:
            import serial
        except ImportError as error:
            raise Unavailable("pyserial is not installed", _INSTALL) from error
        try:
            self._serial = serial.Serial(
                path,
                baudrate=settings.baud,
                rtscts=settings.rtscts,
                parity=settings.parity,
                stopbits=settings.stop_bits,
                timeout=0,
                write_timeout=2.0,
                exclusive=True,
            )
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise _no_serial(path, settings, error) from error
        self._errors = (OSError, serial.SerialTimeoutException)

    def send(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except self._errors as error:
            raise LinkLost(str(error)) from error

    def clear(self) -> None:
        pass

    def receive(self, timeout_s: float) -> bytes:
        try:
            ready, _, _ = select.select([self._serial.fileno()], [], [], timeout_s)
            return bytes(self._serial.read(_AT_ONCE)) if ready else b""
        except (OSError, ValueError, TypeError) as error:  # of a line that was unplugged, pyserial raises either
            raise LinkLost(str(error)) from error

    def close(self) -> None:
        with suppress(OSError):
            self._serial.close()


def _no_serial(path: str, settings: SerialSettings, error: Exception) -> Unavailable:
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        found = sorted(str(p) for pattern in ("ttyUSB*", "ttyACM*", "ttyS[0-9]") for p in Path("/dev").glob(pattern))
        return Unavailable(f"there is no {path}", f"plug the meter in; serial lines here: {', '.join(found) or 'none'}")
    if number in (errno.EACCES, errno.EPERM):
        return Unavailable(
            f"{path} may not be opened by this user", "sudo usermod -aG dialout $USER, then log in again"
        )
    if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "lock" in str(error):
        return _in_use(path)
    if isinstance(error, ValueError):
        return Unavailable(f"{path} cannot be set to {settings.baud} baud", "give a rate that the meter's menu offers")
    return Unavailable(f"{path} cannot be opened: {error}", "check that it is a serial line: stty -F " + path)


def _in_use(path: str) -> Unavailable:
    return Unavailable(f"{path} is in use by another program", f"end that program; it is named by: fuser -v {path}")


class _TcpLink:
    by_message = False

    def __init__(self, host: str, port: int) -> None:
        try:
            self._socket = socket.create_connection((host, port), timeout=CONNECT_S)
        except OSError as error:
            raise _no_connection(host, port, error) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)

    def send(self, data: bytes) -> None:
        try:
            while data:
                _, ready, _ = select.select([], [self._socket], [], CONNECT_S)
                if not ready:
                    raise LinkLost("the other end takes nothing any more")
                data = data[self._socket.send(data) :]
        except (OSError, ValueError) as error:
            raise LinkLost(str(error)) from error

    def clear(self) -> None:
        pass

    def receive(self, timeout_s: float) -> bytes:
        try:
            ready, _, _ = select.select([self._socket], [], [], timeout_s)
            data = self._socket.recv(_AT_ONCE) if ready else None
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:
            raise LinkLost(str(error)) from error
        if data == b"":
            raise LinkLost("the other end closed the connection")
        return data or b""

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()


def _no_connection(host: str, port: int, error: OSError) -> Unavailable:
    if isinstance(error, socket.gaierror):
        return Unavailable(f"no host is called {host!r}", "check the name, or give the address that the meter shows")
    if isinstance(error, ConnectionRefusedError):
        return Unavailable(
            f"{host} refuses connections to port {port}",
            "check the port in the meter's menu; many meters take one connection only: end the other program",
        )
    if isinstance(error, TimeoutError):
        return Unavailable(f"{host} does not answer on port {port}", f"check cable and address: ping {host}")
    return Unavailable(f"{host}:{port} cannot be reached: {error}", f"check cable and address: ping {host}")


class _UsbTmcLink:
    """A meter behind the kernel's usbtmc driver."""

    by_message = True

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Unavailable(
                f"there is no {path}", "plug the meter in; then: sudo modprobe usbtmc; ls /dev/usbtmc*"
            ) from error
        except PermissionError as error:
            raise Unavailable(
                f"{path} may not be opened by this user",
                f'sudo chmod a+rw {path}, or a udev rule: SUBSYSTEM=="usbmisc", KERNEL=="usbtmc*", MODE="0666"',
            ) from error
        except OSError as error:
            raise Unavailable(f"{path} cannot be opened: {error}", "unplug the meter and plug it in again") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise _in_use(path) from error
        self._timeout_ms = 0
        self._is_clear = True  # nothing was asked for that did not come

    def send(self, data: bytes) -> None:
        if not self._is_clear:
            self.clear()
        self._set_timeout(CONNECT_S)
        try:
            try:
                os.write(self._fd, data)
            except BrokenPipeError:  # the meter halted: a program was killed between its question and the answer
                self.clear()
                os.write(self._fd, data)
        except OSError as error:
            raise LinkLost(str(error)) from error

    def receive(self, timeout_s: float) -> bytes:
        """A message may come in several parts, each of which is asked for.

        Nothing, before the time is over: the kernel threw away an answer to what was asked for earlier.
        """
        if not self._is_clear:
            self.clear()
        self._set_timeout(timeout_s)
        message = b""
        try:
            while part := os.read(self._fd, _AT_ONCE):
                message += part
                if self._was_last():
                    return message
                if len(message) > MOST_MESSAGE_BYTES:
                    self._is_clear = False  # more would come
                    return message
        except OSError as error:
            if error.errno not in (errno.ETIMEDOUT, errno.EAGAIN, errno.EPIPE):
                raise LinkLost(str(error)) from error
            # What was asked for may still come, and until then the meter may take nothing else.
            self._is_clear = False
        return b""

    def clear(self) -> None:
        with suppress(OSError):
            fcntl.ioctl(self._fd, _USBTMC_CLEAR)
            fcntl.ioctl(self._fd, _USBTMC_CLEAR_IN_HALT)
        self._is_clear = True

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._fd)

    def _was_last(self) -> bool:
        attributes = bytearray(1)
        try:
            fcntl.ioctl(self._fd, _USBTMC_ATTRIBUTES, attributes)
        except OSError:  # kernels before 4.20 do not tell: they join the parts themselves
            return True
        return bool(attributes[0] & _USBTMC_END)

    def _set_timeout(self, timeout_s: float) -> None:
        timeout_ms = max(100, math.ceil(timeout_s * 1000))  # the least that the kernel takes
        if timeout_ms != self._timeout_ms:
            with suppress(OSError):  # kernels before 4.20 have none to set: it is 5 s there
                fcntl.ioctl(self._fd, _USBTMC_SET_TIMEOUT, struct.pack("I", timeout_ms))
            self._timeout_ms = timeout_ms


class _Vxi11Link:
    """A meter behind VXI-11: each read is a call to it."""

    by_message = True

    def __init__(self, host: str, port: int | None) -> None:
        try:
            import vxi11
        except ImportError as error:
            raise Unavailable("secbench-vxi11 is not installed", _INSTALL) from error
        self._instrument: Any = vxi11.Instrument(host)
        self._timed_out: type[Exception] = vxi11.vxi11.Vxi11Exception
        self._instrument.timeout = CONNECT_S
        try:
            if port is not None:
                self._instrument.client = vxi11.vxi11.CoreClient(host, port)
            self._instrument.open()
        except Exception as error:  # its own classes, and those of sockets
            raise Unavailable(
                f"no VXI-11 device answers at {host}: {error}", f"check cable and address: ping {host}"
            ) from error

    def send(self, data: bytes) -> None:
        try:
            self._instrument.write_raw(data)
        except Exception as error:
            raise LinkLost(str(error)) from error

    def receive(self, timeout_s: float) -> bytes:
        self._instrument.timeout = max(0.1, timeout_s)
        try:
            return bytes(self._instrument.read_raw())
        except self._timed_out as error:
            if getattr(error, "err", None) == 15:  # I/O timeout
                return b""
            raise LinkLost(str(error)) from error
        except Exception as error:
            raise LinkLost(str(error)) from error

    def clear(self) -> None:
        with suppress(Exception):
            self._instrument.clear()

    def close(self) -> None:
        with suppress(Exception):
            self._instrument.close()
        self._instrument.link = None  # else its end tries once more, and complains
