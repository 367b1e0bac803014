"""What protects SNMP messages on the way: here a community (v2c), in `user_security` a user's keys (v3)."""

from __future__ import annotations

from typing import Protocol

from drivers.snmp import pdu
from drivers.snmp.ber import OCTETS, SEQUENCE, encode, encode_integer, expect
from drivers.snmp.pdu import Answer
from drivers.udp import BadPacket

_V2C = 1


class Reported(Exception):
    """The agent does not take our message: by the name of the counter that it reports."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class ClockSet(Exception):
    """The agent says authentically what its clock is, which we did not know: ask again."""


class Security(Protocol):
    """See `CommunitySecurity` and `UserSecurity`."""

    def seal(self, request: bytes, number: int) -> bytes:
        """A packet with this request."""

    def open(self, packet: bytes, number: int) -> Answer:
        """The answer in a packet to the request of this number.

        Raises:
            BadPacket: there is none.
            Reported, ClockSet: see there.
        """


class CommunitySecurity:
    """SNMP v2c: a word that stands in every message."""

    def __init__(self, community: str) -> None:
        self._head = encode_integer(_V2C) + encode(OCTETS, community.encode())

    def seal(self, request: bytes, number: int) -> bytes:
        return encode(SEQUENCE, self._head + request)

    def open(self, packet: bytes, number: int) -> Answer:
        at, end = expect(packet, 0, len(packet), SEQUENCE)
        if end != len(packet) or not packet.startswith(self._head, at):
            raise BadPacket("another version or community")
        answer = pdu.parse_answer(packet, at + len(self._head), end)
        if answer.number != number or answer.kind != pdu.RESPONSE:
            raise BadPacket("the answer to another request")
        return answer
