"""A session with a BMC over UDP port 623, kept open ("lanplus")."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import Any

from drivers.contract import Unavailable
from drivers.credentials import Credentials
from drivers.host_list import Host
from drivers.ipmi import rmcp_plus
from drivers.ipmi.rmcp_plus import Handshake, SecureChannel, Suite
from drivers.polling import LinkLost, NotReached
from drivers.udp import BadPacket, Conversation, Sockets

SECRETS = ("user", "password", "kg")
_ROLES = (2, 3, 4)  # user, operator, administrator
_NAME_ONLY = 0x10  # look up the user by the name alone
_NETFN_APPLICATION, _CLOSE_SESSION = 0x06, 0x3C

# RMCP+ status codes, IPMI 2.0 table 13-15
_NO_SUITE = frozenset((0x04, 0x05, 0x10, 0x11))
_NO_ROOM, _WRONG_CODE = 0x01, 0x0F
_STATUS = {
    _NO_ROOM: ("it has no room for another session", "close some: ipmitool session info all; they end after a minute"),
    0x09: ("the user has no such role here", "give it the role USER: ipmitool channel setaccess"),
    0x0A: ("the user has no such role here", "give it the role USER: ipmitool channel setaccess"),
    0x0D: ("it does not know the user, or the user may not log in over the LAN", "ipmitool channel setaccess"),
    _WRONG_CODE: ("the password is wrong, or its key kg", "correct the credentials before the BMC locks the user out"),
}
_FIX_SILENT = "see whether IPMI over LAN is enabled and UDP port {} is open: ipmitool -I lanplus -H {} … mc info"


class LanLink:
    """A session with one BMC, with the lowest role that will do."""

    def __init__(self, host: Host, credentials: Credentials, sockets: Sockets) -> None:
        self._host = host
        self._user = _bounded(credentials, "user", rmcp_plus.MAX_USER_BYTES)
        self._password = _bounded(credentials, "password", rmcp_plus.MAX_PASSWORD_BYTES)
        self._bmc_key = credentials.get("kg").encode()
        self._sockets = sockets
        self._conversation: Conversation | None = None
        self._channel: SecureChannel | None = None
        self._bmc = 0
        self._numbers = itertools.cycle(range(64))
        self._tag = secrets.randbelow(256)
        self._role = _ROLES[0]

    async def connect(self) -> None:
        """Open a session.

        Raises:
            NotReached, Unavailable: no answer, or the BMC refuses.
        """
        self._conversation = await self._sockets.resolve(self._host.address, self._host.port)
        status = 0x11
        for suite in rmcp_plus.SUITES:
            if status in _NO_SUITE:
                status = await self._open(suite)
        if status in _NO_SUITE:
            reason, fix = (
                "it offers neither cipher suite 17 nor 3",
                "allow one of them: ipmitool lan set 1 cipher_privs",
            )
        elif status:
            reason, fix = _STATUS.get(status, (f"RMCP+ status 0x{status:02x}", "see its log"))
        else:
            return
        refusal = NotReached if status == _NO_ROOM else Unavailable
        raise refusal(f"the BMC at {self._host.address} refuses the session: {reason}", fix)

    async def raise_role(self) -> bool:
        """Open the session again with the next higher role; False: there is none.

        Raises:
            Unavailable: see `connect`.
        """
        place = _ROLES.index(self._role) + 1
        if place == len(_ROLES):
            return False
        self._role = _ROLES[place]
        await self.close()
        await self.connect()
        return True

    async def request(self, netfn: int, command: int, data: bytes) -> bytes:
        """The answer from its completion code on.

        Raises:
            LinkLost: none came in time; the BMC may have been restarted, and the session with it.
        """
        channel, conversation = self._channel, self._conversation
        if channel is None or conversation is None:
            raise LinkLost(f"there is no session with {self._host.address}")
        number = next(self._numbers)
        message = rmcp_plus.request(netfn, command, data, number)
        try:
            return await conversation.ask(
                lambda: channel.seal(message),
                lambda packet: rmcp_plus.parse_response(channel.open(packet), netfn, command, number),
                self._host.timeout_s,
            )
        except TimeoutError:
            raise LinkLost(f"no answer from {self._host.address} within {self._host.timeout_s:g} s") from None

    async def close(self) -> None:
        """Close the session, so that the BMC has room for another."""
        channel, self._channel = self._channel, None
        conversation, self._conversation = self._conversation, None
        if conversation is None:
            return
        if channel is not None:
            data = self._bmc.to_bytes(4, "little")
            message = rmcp_plus.request(_NETFN_APPLICATION, _CLOSE_SESSION, data, next(self._numbers))
            conversation.send(channel.seal(message))
        conversation.close()

    async def _open(self, suite: Suite) -> int:
        """The RMCP+ status; 0: the session is open."""
        console, tag = secrets.randbelow(2**32 - 1) + 1, self._tag
        self._tag = (tag + 1) % 256
        opening = rmcp_plus.open_request(tag, self._role, console, suite)
        status, bmc, chosen = await self._step(
            (rmcp_plus.OPEN_REQUEST, opening, rmcp_plus.OPEN_RESPONSE),
            lambda payload: rmcp_plus.parse_open_response(payload, tag, console),
        )
        if chosen is None:
            return int(status)
        role = _NAME_ONLY | self._role
        handshake = Handshake(chosen, console, bmc, self._user, self._password, self._bmc_key, role)
        try:
            status = await self._step(
                (rmcp_plus.RAKP1, handshake.rakp1(tag), rmcp_plus.RAKP2),
                lambda payload: handshake.take_rakp2(payload, tag),
            ) or await self._step(
                (rmcp_plus.RAKP3, handshake.rakp3(tag), rmcp_plus.RAKP4),
                lambda payload: handshake.take_rakp4(payload, tag),
            )
        except PermissionError:
            return _WRONG_CODE
        if not status:
            self._channel, self._bmc = handshake.channel(), bmc
        return int(status)

    async def _step(self, step: tuple[int, bytes, int], take: Callable[[bytes], Any]) -> Any:
        asked, payload, due = step
        assert self._conversation is not None

        def parse(packet: bytes) -> Any:
            kind, inner = rmcp_plus.parse_plain(packet)
            if kind != due:
                raise BadPacket("not the message that is due")
            return take(inner)

        try:
            return await self._conversation.ask(
                lambda: rmcp_plus.plain_packet(asked, payload), parse, self._host.timeout_s
            )
        except TimeoutError:
            place = f"{self._host.address} port {self._host.port}"
            if asked == rmcp_plus.OPEN_REQUEST:
                fix = _FIX_SILENT.format(self._host.port, self._host.address)
                raise NotReached(f"no BMC answers at {place} within {self._host.timeout_s:g} s", fix) from None
            reason = f"the BMC at {place} answers, but not to this user"
            raise Unavailable(reason, "see whether the user exists and its password is right") from None


def _bounded(credentials: Credentials, name: str, most: int) -> bytes:
    secret = credentials.need(name).encode()
    if len(secret) > most:
        raise Unavailable(
            f"{name} in {credentials.place} is longer than IPMI's {most} bytes", "give the BMC's user another"
        )
    return secret
