"""The machine's own BMC through the kernel's /dev/ipmi0. The structures are those of linux/ipmi.h."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from drivers.contract import ReadFailed, Unavailable
from drivers.polling import LinkLost

_MOST_BYTES = 272  # IPMI_MAX_MSG_LENGTH
_SYSTEM_INTERFACE, _BMC_CHANNEL = 0x0C, 0x0F
_RESPONSE = 1


class Address(ctypes.Structure):
    """struct ipmi_system_interface_addr."""

    _fields_ = (("type", ctypes.c_int), ("channel", ctypes.c_short), ("lun", ctypes.c_ubyte))


class Message(ctypes.Structure):
    """struct ipmi_msg."""

    _fields_ = (
        ("netfn", ctypes.c_ubyte),
        ("command", ctypes.c_ubyte),
        ("data_length", ctypes.c_ushort),
        ("data", ctypes.c_void_p),
    )


class Request(ctypes.Structure):
    """struct ipmi_req."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("address_length", ctypes.c_uint),
        ("number", ctypes.c_long),
        ("message", Message),
    )


class Received(ctypes.Structure):
    """struct ipmi_recv."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("address", ctypes.c_void_p),
        ("address_length", ctypes.c_uint),
        ("number", ctypes.c_long),
        ("message", Message),
    )


def _ioctl_number(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("i") << 8 | number


SEND_COMMAND = _ioctl_number(2, 13, ctypes.sizeof(Request))  # _IOR
RECEIVE_TRUNCATED = _ioctl_number(3, 11, ctypes.sizeof(Received))  # _IOWR


class InBandLink:
    """Requests through the device file."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._descriptor = -1
        self._number = 0

    async def connect(self) -> None:
        """Open the device file.

        Raises:
            Unavailable: this user may not, or it is gone.
        """
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            fix = f"let this user in: sudo chgrp power {self._path} && sudo chmod g+rw {self._path}"
            denied = isinstance(error, PermissionError)
            raise Unavailable(f"{self._path}: {error.strerror}", fix if denied else "") from None

    async def raise_role(self) -> bool:
        return False  # the kernel asks as administrator

    async def request(self, netfn: int, command: int, data: bytes) -> bytes:
        """The answer from its completion code on.

        Raises:
            LinkLost: the device file does not work any more.
            ReadFailed: no answer in time.
        """
        self._number += 1
        try:
            send(self._descriptor, netfn, command, data, self._number)
            loop = asyncio.get_running_loop()
            deadline_s = loop.time() + self._timeout_s
            while loop.time() < deadline_s:
                await self._readable(deadline_s - loop.time())
                number, answer = receive(self._descriptor)
                if number == self._number:
                    return answer
        except asyncio.TimeoutError:
            pass
        except OSError as error:
            raise LinkLost(f"the IPMI device fails: {error.strerror}") from None
        raise ReadFailed(f"no answer from the BMC within {self._timeout_s:g} s")

    async def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    async def _readable(self, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._descriptor, _settle, ready)
        try:
            await asyncio.wait_for(ready, within_s)
        finally:
            loop.remove_reader(self._descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def send(descriptor: int, netfn: int, command: int, data: bytes, number: int) -> None:
    """Hand a request to the kernel.

    Raises:
        OSError: it refuses.
    """
    address = Address(_SYSTEM_INTERFACE, _BMC_CHANNEL, 0)
    content = ctypes.create_string_buffer(data, len(data))
    message = Message(netfn, command, len(data), ctypes.addressof(content))
    request = Request(ctypes.addressof(address), ctypes.sizeof(address), number, message)
    fcntl.ioctl(descriptor, SEND_COMMAND, request)


def receive(descriptor: int) -> tuple[int, bytes]:
    """Number of the request, and the answer from its completion code on; empty for what is no answer.

    Raises:
        OSError: there is nothing.
    """
    address = ctypes.create_string_buffer(64)
    content = ctypes.create_string_buffer(_MOST_BYTES)
    message = Message(0, 0, _MOST_BYTES, ctypes.addressof(content))
    received = Received(0, ctypes.addressof(address), 64, 0, message)
    fcntl.ioctl(descriptor, RECEIVE_TRUNCATED, received)
    answer = content.raw[: received.message.data_length] if received.kind == _RESPONSE else b""
    return received.number, answer
