"""Questions and answers over UDP: one socket serves all devices, and each question waits for its own answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeVar, cast

from drivers.contract import Unavailable

RESEND_S = 1.0
_RECEIVE_BYTES = 4 << 20

Address = tuple[Any, ...]  # host and port; of IPv6 also flow and scope
T = TypeVar("T")


class BadPacket(ValueError):
    """A packet that is not what is waited for, or was damaged."""


class Sockets:
    """One socket for IPv4 and one for IPv6, opened when they are needed, closed when nobody uses them any more."""

    def __init__(self) -> None:
        self._by_family: dict[int, asyncio.Task[_Socket]] = {}

    async def resolve(self, host: str, port: int) -> Conversation:
        """What talks with this device.

        Raises:
            Unavailable: the name means nothing, or there is no such network here.
        """
        loop = asyncio.get_running_loop()
        try:
            family, _, _, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
            opening = self._by_family.get(family)
            if opening is None or (opening.done() and _is_useless(opening)):
                opening = self._by_family[family] = loop.create_task(_open_socket(family))
            shared = await asyncio.shield(opening)  # others may wait for it too
        except (OSError, UnicodeError) as error:  # the latter of names that no host can have
            reason = getattr(error, "strerror", None) or error
            raise Unavailable(f"{host} cannot be reached: {reason}", "correct its address") from None
        return Conversation(shared, tuple(address))


class Conversation:
    """With one device; one question at a time."""

    def __init__(self, shared: _Socket, address: Address) -> None:
        self._shared = shared
        self._address = address
        self._parse: Callable[[bytes], Any] | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        shared.takers.setdefault(address[:2], []).append(self._take)

    async def ask(
        self, make: Callable[[], bytes], parse: Callable[[bytes], T], timeout_s: float, resend_s: float = RESEND_S
    ) -> T:
        """Send what `make` gives, again each `resend_s`, until a packet comes that `parse` takes.

        Raises:
            TimeoutError: none did.
            Exception: whatever else than BadPacket `parse` raises; that one means to wait for another packet.
        """
        loop = asyncio.get_running_loop()
        self._answer, self._parse = loop.create_future(), parse
        deadline_s = loop.time() + timeout_s
        self._resend_at(resend_s, make, self._answer, deadline_s)
        try:
            self.send(make())
            answer: T = await self._answer
            return answer
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._answer = self._parse = None

    def send(self, packet: bytes) -> None:
        self._shared.transport.sendto(packet, self._address)

    def close(self) -> None:
        """End it; the socket closes with the last one."""
        takers = self._shared.takers.get(self._address[:2], [])
        if self._take in takers:
            takers.remove(self._take)
        if not takers:
            self._shared.takers.pop(self._address[:2], None)
        if not self._shared.takers:
            self._shared.transport.close()

    def _resend_at(
        self, pause_s: float, make: Callable[[], bytes], answer: asyncio.Future[Any], deadline_s: float
    ) -> None:
        loop = asyncio.get_running_loop()
        at_s = min(loop.time() + pause_s, deadline_s)
        self._timer = loop.call_at(at_s, self._resend, pause_s, make, answer, deadline_s)

    def _resend(
        self, pause_s: float, make: Callable[[], bytes], answer: asyncio.Future[Any], deadline_s: float
    ) -> None:
        if answer.done():
            return
        if asyncio.get_running_loop().time() >= deadline_s:
            answer.set_exception(TimeoutError())
            return
        self.send(make())
        self._resend_at(pause_s, make, answer, deadline_s)

    def _take(self, packet: bytes) -> None:
        if self._answer is None or self._parse is None or self._answer.done():
            return
        try:
            self._answer.set_result(self._parse(packet))
        except BadPacket:  # late, repeated, damaged or from someone else
            pass
        except Exception as error:
            self._answer.set_exception(error)


class _Socket(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def __init__(self) -> None:
        # Several for one address where two names lead there: each knows its own packets.
        self.takers: dict[Address, list[Callable[[bytes], None]]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # which Python 3.10's is no subclass of

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        for taker in tuple(self.takers.get((addr[0], addr[1]), ())):
            taker(data)

    def error_received(self, exc: Exception) -> None:
        """An ICMP message about some packet; whoever waits for its answer runs into a timeout."""


async def _open_socket(family: int) -> _Socket:
    any_address = ("::" if family == socket.AF_INET6 else "0.0.0.0", 0)
    transport, shared = await asyncio.get_running_loop().create_datagram_endpoint(_Socket, local_addr=any_address)
    # Hundreds of answers may wait while this process gets no processor. The kernel gives as much of it as it allows.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    return shared


def _is_useless(opening: asyncio.Task[_Socket]) -> bool:
    return opening.cancelled() or opening.exception() is not None or opening.result().transport.is_closing()
