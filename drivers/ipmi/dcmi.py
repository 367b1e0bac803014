"""The bytes of DCMI's Get Power Reading (DCMI 1.5, 6.6.1), and what a BMC's refusals mean."""

from __future__ import annotations

import struct
from typing import NamedTuple

from drivers.contract import Status, Unavailable

NETFN_GROUP = 0x2C
GET_POWER_READING = 0x02
REQUEST = bytes((0xDC, 0x01, 0x00, 0x00))  # the group DCMI, mode 1: system power statistics
INSUFFICIENT_PRIVILEGE = 0xD4

_REPLY = struct.Struct("<BHHHHIIB")
_MEASUREMENT_ACTIVE = 0x40
_NO_STAMP = (0, 0xFFFFFFFF)
_ABSENT = 0xFFFF

_NOT_SUPPORTED = frozenset((0xC1, 0xC2, 0xC9, 0xCC, 0xD5, 0xD6))


class PowerReading(NamedTuple):
    """What a BMC says of the power of its machine."""

    watts: int
    status: Status  # NEW, MISSING or INVALID
    stamp: int | None  # the BMC's own seconds; None: it states none


class Refused(Exception):
    """The BMC answers the command with a completion code that is not 0."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the BMC refuses the DCMI power reading with completion code 0x{code:02x}")
        self.code = code

    def unavailable(self) -> Unavailable:
        """The same for the person who reads it."""
        if self.code in _NOT_SUPPORTED:
            reason = f"the BMC does not support the DCMI power reading (completion code 0x{self.code:02x})"
            return Unavailable(reason, "try the driver redfish; else the node needs a PDU with metered outlets")
        if self.code == INSUFFICIENT_PRIVILEGE:
            return Unavailable(f"{self} (privilege)", "give the BMC's user a higher role for this channel")
        return Unavailable(str(self), "see whether ipmitool dcmi power reading works; restart the BMC")


class Garbled(ValueError):
    """Bytes that are no answer to Get Power Reading."""


def parse_reply(reply: bytes) -> PowerReading:
    """From the completion code on.

    Raises:
        Refused: the completion code is not 0.
        Garbled: it is no answer to this command.
    """
    if not reply:
        raise Garbled("an empty answer")
    if reply[0]:
        raise Refused(reply[0])
    if len(reply) != 1 + _REPLY.size:
        raise Garbled(f"{len(reply)} bytes where {1 + _REPLY.size} are due")
    group, watts, _, _, _, seconds, _, state = _REPLY.unpack_from(reply, 1)
    if group != 0xDC:
        raise Garbled(f"an answer of the group 0x{group:02x}, not of DCMI")
    stamp = None if seconds in _NO_STAMP else seconds
    if not state & _MEASUREMENT_ACTIVE:
        return PowerReading(0, Status.MISSING, stamp)
    if watts in (0, _ABSENT):  # a machine whose BMC answers draws something
        return PowerReading(0, Status.INVALID, stamp)
    return PowerReading(watts, Status.NEW, stamp)
