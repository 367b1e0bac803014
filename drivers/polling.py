"""Polls many devices over the network from one thread, and hands over what came when a group is read.

A read takes what has arrived and asks for one more poll. The polls of devices that are read together are spread over a
part of a second, so that each is stamped when it happened and not when its turn came. Each device has one connection
and one request under way, so nothing piles up: a device that is slow is asked less often, and holds up no other.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from drivers.contract import Channel, Group, ReadFailed, Row, Status, Unavailable

SPREAD_S = 0.4
CONNECTING_AT_ONCE = 32
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # between attempts to connect: BMCs lock accounts that are tried too often
CLOSE_S = 2.0
OPENING_S = 10.0  # of all devices together: a sampler waits no longer than 15 s
_TOLD = 5  # devices at most, when all fail


class LinkLost(ReadFailed):
    """This reading did not come, and the connection has to be made anew."""


class NotReached(Unavailable):
    """The device does not answer, or is busy with others: it may do so later."""


class Source(Protocol):
    """A device as the poller sees it. All of it runs in the poller's thread."""

    async def connect(self) -> None:
        """Connect and log in.

        Raises:
            NotReached, Unavailable: that failed, for now or as long as nobody changes something. Who called closes.
        """

    async def poll(self) -> Row:
        """Read once.

        Raises:
            LinkLost, ReadFailed: see there.
        """

    async def close(self) -> None:
        """Log out and disconnect; also where it never was connected."""


class Opening(NamedTuple):
    """A device that is to be polled."""

    name: str
    source: Source
    channels: Callable[[], Sequence[Channel]]  # asked once the source is connected
    # The channels of a device that does not answer yet; None: what it tells is not known before it does.
    absent_channels: Callable[[], Sequence[Channel]] | None = None


class Poller:
    """A thread with an event loop, and the devices it polls."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # What a library fails at may quote what came, secrets among it; the reading that does not come tells.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._wanted: deque[PolledGroup] = deque()  # one entry at most for each group
        self._woken = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._groups: Sequence[PolledGroup] = ()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"poll {name}", daemon=True)
        self._thread.start()

    @classmethod
    def start(
        cls, name: str, opening: Sequence[Opening], clock_ns: Callable[[], int]
    ) -> tuple[Poller, list[PolledGroup], list[Unavailable]]:
        """Open many devices at once and poll them from now on, whenever they are read.

        One that does not answer is asked again as long as the poller lives, where its channels are known without it;
        others that fail are left out. Both are told.

        Raises:
            Unavailable: all fail.
        """
        poller = cls(name)
        try:
            work = asyncio.run_coroutine_threadsafe(_connect_all(opening, clock_ns, OPENING_S), poller._loop)
            poller._groups, notes = work.result(OPENING_S + CLOSE_S)
            groups = [*poller._groups]
            for place, group in enumerate(groups):
                group.attach(poller, SPREAD_S * place / len(groups))
        except BaseException:
            poller.close()
            raise
        return poller, groups, notes

    def want(self, group: PolledGroup) -> None:
        """Have a group polled soon. Called from any thread."""
        self._wanted.append(group)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # closed
                self._loop.call_soon_threadsafe(self._serve)

    def close(self) -> None:
        """Log out everywhere and end the thread."""
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result(CLOSE_S)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _serve(self) -> None:
        self._woken = False  # before the queue is emptied: who comes now wakes us again
        while self._wanted:
            group = self._wanted.popleft()
            if group.delay_s:
                self._loop.call_later(group.delay_s, self._start, group)
            else:
                self._start(group)

    def _start(self, group: PolledGroup) -> None:
        if self._closing:  # a poll now might log in again
            return
        task = self._loop.create_task(group.poll())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shut_down(self) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(group.source.close() for group in self._groups), return_exceptions=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class PolledGroup(Group):
    """The channels of one device."""

    default_hz = 1.0
    max_hz = 2.0  # no BMC or PDU is known to have new values faster

    def __init__(
        self, name: str, channels: Sequence[Channel], source: Source, clock_ns: Callable[[], int], trouble: str = ""
    ) -> None:
        """`trouble` says why the source is not connected; without, it is."""
        self.name = name
        self.channels = tuple(channels)
        self.source = source
        self.delay_s = 0.0
        self._clock_ns = clock_ns
        self._poller: Poller | None = None
        self._under_way = False
        self._connected = not trouble
        self._trouble = trouble
        self._came: Row | ReadFailed | None = ReadFailed(trouble) if trouble else None
        self._pause_s = FIRST_PAUSE_S
        self._retry_ns = 0

    def attach(self, poller: Poller, delay_s: float) -> None:
        self._poller = poller
        self.delay_s = delay_s

    def read(self) -> Sequence[Row]:
        """What came since the reading before, and ask for more.

        Raises:
            ReadFailed: the poll before failed.
        """
        assert self._poller is not None
        if self._under_way:  # the device is slow
            return ()
        came, self._came = self._came, None
        self._under_way = True
        self._poller.want(self)
        if isinstance(came, ReadFailed):
            raise came
        return () if came is None else (came,)

    async def poll(self) -> None:
        """One poll, in the poller's thread; connects anew first where that is needed and due."""
        try:
            self._came = await self._poll()
        except ReadFailed as error:
            self._trouble = str(error)
            self._came = error
            self._connected = self._connected and not isinstance(error, LinkLost)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a mistake in a source, or in a library below it, costs a reading
            self._trouble = f"the poll failed: {type(error).__name__}"
            self._came = ReadFailed(self._trouble)
            self._connected = False
        finally:
            self._under_way = False

    async def _poll(self) -> Row:
        if not self._connected:
            now_ns = self._clock_ns()
            if now_ns < self._retry_ns:
                raise ReadFailed(self._trouble)
            self._retry_ns = now_ns + round(self._pause_s * 1e9)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            await self.source.close()
            try:
                await self.source.connect()
            except BaseException as error:
                await self.source.close()
                if isinstance(error, Unavailable):
                    raise LinkLost(error.reason) from None
                raise
            self._connected = True
        row = await self.source.poll()
        self._pause_s = FIRST_PAUSE_S
        return row


class Freshness:
    """Tells a new value from one that the device had given before, by the instant that the device states for it.

    A device whose values change while its instant stands still states nothing: from then on all its values are new.
    """

    def __init__(self) -> None:
        self._useless = False
        self._stamp: object = None
        self._values: Sequence[float | int] = ()

    def judge(self, stamp: object, values: Sequence[float | int]) -> Status:
        """STALE where the stamp says that these values were given before; None is no stamp."""
        same_stamp = stamp is not None and stamp == self._stamp
        same_values = list(values) == list(self._values)
        self._useless = self._useless or (same_stamp and not same_values)
        self._stamp, self._values = stamp, values
        return Status.STALE if same_stamp and same_values and not self._useless else Status.NEW


async def _connect_all(
    opening: Sequence[Opening], clock_ns: Callable[[], int], within_s: float
) -> tuple[list[PolledGroup], list[Unavailable]]:
    """Raises Unavailable: not one is connected."""
    turns = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def one(device: Opening) -> PolledGroup:
        async with turns:
            try:
                await device.source.connect()
                group = PolledGroup(device.name, device.channels(), device.source, clock_ns)
            except BaseException:  # also where its time is over
                await device.source.close()
                raise
            await group.poll()  # so that the first reading has a row to give
            return group

    tasks = [asyncio.ensure_future(one(device)) for device in opening]
    _, late = await asyncio.wait(tasks, timeout=within_s)
    for task in late:
        task.cancel()
    groups: list[PolledGroup] = []
    notes: list[Unavailable] = []
    troubles: list[Unavailable] = []
    for device, result in zip(opening, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
        if isinstance(result, PolledGroup):
            groups.append(result)
            continue
        trouble = _trouble(result, within_s)
        troubles.append(Unavailable(f"{device.name}: {trouble.reason}", trouble.fix))
        told = troubles[-1].reason
        if isinstance(trouble, NotReached) and device.absent_channels is not None:
            groups.append(
                PolledGroup(device.name, device.absent_channels(), device.source, clock_ns, trouble=trouble.reason)
            )
            told += "; it is asked again, and its readings are missing until it answers"
        elif isinstance(trouble, NotReached):
            told += "; what it can tell is not known before it answers, so it is left out until the next recording"
        notes.append(Unavailable(told, trouble.fix))
    if len(troubles) == len(opening):
        raise Unavailable("; ".join(trouble.reason for trouble in troubles[:_TOLD]), troubles[0].fix)
    return groups, notes


def _trouble(result: BaseException, within_s: float) -> Unavailable:
    if isinstance(result, Unavailable):
        return result
    if isinstance(result, asyncio.CancelledError):
        return NotReached(
            f"it was not ready within {within_s:g} s", "see whether its address is right; a slow one may come later"
        )
    return Unavailable(f"opening it failed: {type(result).__name__}", "tell the project")
