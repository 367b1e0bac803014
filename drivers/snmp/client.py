"""SNMP v2c and v3 to one device. One socket serves all devices of a driver.

Own code, because hundreds of PDUs with dozens of outlets are read each second: pysnmp takes 3 ms of processor for an
answer of 24 objects, and the fast libraries do not look at v3's authentication codes. Tests hold it against pysnmp.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from drivers.contract import ReadFailed, Unavailable
from drivers.credentials import Credentials
from drivers.host_list import Host
from drivers.polling import LinkLost
from drivers.snmp import pdu
from drivers.snmp.ber import Oid, decode_oid, encode_oid
from drivers.snmp.metrics import Table
from drivers.snmp.pdu import Answer, Value
from drivers.snmp.security import ClockSet, CommunitySecurity, Reported, Security
from drivers.udp import Conversation, Sockets

if TYPE_CHECKING:  # v2c does without cryptography
    from drivers.snmp.user_security import UserSecurity

SECRETS = ("community", "user", "auth_password", "privacy_password", "auth_protocol", "privacy_protocol")
_AT_ONCE = 32  # objects in a request, whose answer is less than 1 kB: agents of PDUs have small buffers
_ROWS_AT_ONCE = 20
_MOST_ROWS = 4096
_LEAST_PASSWORD = 8
_TRIES = 3  # of an agent whose clock we have to learn
_NUMBERS = 1 << 31  # of requests
_SILENT_TO_COMMUNITY = "; to a wrong community it gives none"

T = TypeVar("T")


class Client:
    """Asks one device."""

    def __init__(self, host: Host, credentials: Credentials, sockets: Sockets) -> None:
        """Raises Unavailable: the credentials cannot be used."""
        self._host = host
        self._where = f"{host.address} port {host.port}"
        self._sockets = sockets
        self._user: UserSecurity | None = None if "community" in credentials else _user(credentials)
        self._security: Security = self._user or CommunitySecurity(credentials.need("community"))
        self._conversation: Conversation | None = None
        self._number = secrets.randbelow(_NUMBERS)
        self._at_once = _AT_ONCE

    async def connect(self) -> None:
        """Find the address; over v3, learn the engine's identity.

        Raises:
            Unavailable: the name means nothing.
            ReadFailed: no answer.
        """
        self._conversation = await self._sockets.resolve(self._host.address, self._host.port)
        user = self._user
        if user is not None:
            number = self._next_number()
            await self._ask(lambda: user.discovery(number), lambda packet: user.take_discovery(packet, number))

    def close(self) -> None:
        """Forget the address. SNMP has no sessions."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.close()

    async def get(self, oids: list[Oid]) -> dict[Oid, Value]:
        """These objects.

        Raises:
            ReadFailed, LinkLost: no answer, or the device refuses.
        """
        values: dict[Oid, Value] = {}
        while len(values) < len(oids):
            asked = oids[len(values) : len(values) + self._at_once]
            answer = await self._exchange(lambda number, asked=asked: pdu.get(number, asked))  # type: ignore[misc]
            if answer.status == pdu.TOO_BIG and len(asked) > 1:
                self._at_once = len(asked) // 2
                continue
            self._check(answer)
            if [name for name, _ in answer.values] != [encode_oid(oid) for oid in asked]:
                raise ReadFailed(f"{self._host.address} answers with other objects than were asked for")
            values.update(zip(asked, (value for _, value in answer.values), strict=True))
        return values

    async def walk(self, column: Oid) -> Table:
        """A column of a table, by index; empty where the device has no such table.

        Raises:
            ReadFailed, LinkLost: no answer, or the device refuses.
        """
        rows: Table = {}
        last, count = column, _ROWS_AT_ONCE
        while len(rows) < _MOST_ROWS:
            answer = await self._exchange(lambda number: pdu.get_bulk(number, last, count))  # noqa: B023  # at once
            if answer.status == pdu.TOO_BIG and count > 1:
                count //= 2
                continue
            self._check(answer)
            if not answer.values:
                break
            for name, value in answer.values:
                oid = decode_oid(name)
                if oid[: len(column)] != column or oid <= last or value is None:
                    return rows
                rows[oid[len(column) :]] = value
                last = oid
        return rows

    async def _exchange(self, make: Callable[[int], bytes]) -> Answer:
        security = self._security
        for _ in range(_TRIES):
            number = self._next_number()
            seal, take = partial(security.seal, make(number), number), partial(security.open, number=number)
            try:
                return await self._ask(seal, take)
            except ClockSet:
                continue
        raise LinkLost(f"{self._where} does not keep to its own clock")

    async def _ask(self, make: Callable[[], bytes], parse: Callable[[bytes], T]) -> T:
        if self._conversation is None:
            raise LinkLost(f"there is no connection with {self._host.address}")
        try:
            return await self._conversation.ask(make, parse, self._host.timeout_s, self._host.timeout_s / 2)
        except TimeoutError:
            silent = "" if self._user is not None else _SILENT_TO_COMMUNITY
            raise ReadFailed(f"no answer from {self._where} within {self._host.timeout_s:g} s{silent}") from None
        except Reported as error:  # also of an agent that was replaced: it has another engine
            raise LinkLost(f"{self._where} does not let this user in ({error.name})") from None

    def _next_number(self) -> int:
        self._number = (self._number + 1) % _NUMBERS
        return self._number

    def _check(self, answer: Answer) -> None:
        if answer.status == pdu.AUTHORIZATION_ERROR:
            raise ReadFailed(f"{self._where} does not let this user read (AuthorizationError)")
        if answer.status:
            raise ReadFailed(f"{self._where} answers with the SNMP error {answer.status} for object {answer.position}")


def _user(credentials: Credentials) -> UserSecurity:
    from drivers.snmp.user_security import AUTHENTICATIONS, ENCRYPTION_KEY_BYTES, UserSecurity

    user = credentials.need("user")
    passwords = [credentials.need(name) for name in ("auth_password", "privacy_password")]
    for name, password in zip(("auth_password", "privacy_password"), passwords, strict=True):
        if len(password) < _LEAST_PASSWORD:
            raise Unavailable(
                f"{name} in {credentials.place} is shorter than {_LEAST_PASSWORD} characters", "SNMP v3 demands them"
            )
    auth = credentials.get("auth_protocol", "SHA256")
    privacy = credentials.get("privacy_protocol", "AES128")
    if auth not in AUTHENTICATIONS or privacy not in ENCRYPTION_KEY_BYTES:
        raise Unavailable(
            f"auth_protocol or privacy_protocol in {credentials.place} is unknown or too weak",
            f"use one of {', '.join(AUTHENTICATIONS)}, and one of {', '.join(ENCRYPTION_KEY_BYTES)}",
        )
    auth_password, privacy_password = (password.encode() for password in passwords)
    return UserSecurity(user, AUTHENTICATIONS[auth], auth_password, ENCRYPTION_KEY_BYTES[privacy], privacy_password)
