"""The power reading of one BMC, by whichever way it is reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from drivers.contract import ReadFailed, Row, Status, Unavailable
from drivers.ipmi import dcmi
from drivers.polling import Freshness, LinkLost, NotReached

_FIX = "see whether ipmitool dcmi power reading works; if not, restart the BMC: ipmitool mc reset cold"


class Link(Protocol):
    """A way to the BMC: see `LanLink` and `InBandLink`."""

    async def connect(self) -> None: ...

    async def raise_role(self) -> bool: ...

    async def request(self, netfn: int, command: int, data: bytes) -> bytes: ...

    async def close(self) -> None: ...


class DcmiSource:
    """The power reading of one BMC."""

    def __init__(self, link: Link, clock_ns: Callable[[], int]) -> None:
        self._link = link
        self._clock_ns = clock_ns
        self._freshness = Freshness()

    async def connect(self) -> None:
        """Connect, and see that the BMC gives power readings to this user.

        Raises:
            NotReached, Unavailable: it does not. Who called closes.
        """
        await self._link.connect()
        try:
            while True:
                try:
                    dcmi.parse_reply(await self._ask())
                    return
                except dcmi.Refused as refused:
                    if refused.code != dcmi.INSUFFICIENT_PRIVILEGE or not await self._link.raise_role():
                        raise refused.unavailable() from None
        except ReadFailed as error:
            raise NotReached(str(error), _FIX) from None
        except dcmi.Garbled as error:
            raise Unavailable(str(error), _FIX) from None

    async def poll(self) -> Row:
        """See `Source`."""
        begin_ns = self._clock_ns()
        reply = await self._ask()
        end_ns = self._clock_ns()
        try:
            reading = dcmi.parse_reply(reply)
        except dcmi.Refused as error:
            if error.code == dcmi.INSUFFICIENT_PRIVILEGE:
                raise LinkLost(str(error)) from None
            raise ReadFailed(str(error)) from None
        except dcmi.Garbled as error:
            raise ReadFailed(f"the BMC's answer makes no sense: {error}") from None
        status = reading.status
        if status is Status.NEW:
            status = self._freshness.judge(reading.stamp, (reading.watts,))
        statuses = bytes((status,)) if status else None
        return Row((begin_ns + end_ns) // 2, end_ns - begin_ns, (float(reading.watts),), statuses)

    async def close(self) -> None:
        await self._link.close()

    async def _ask(self) -> bytes:
        return await self._link.request(dcmi.NETFN_GROUP, dcmi.GET_POWER_READING, dcmi.REQUEST)
