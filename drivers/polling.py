"""Polls many devices over the network from one thread, and hands over what came when a group is read.

A read takes what has arrived and asks for one more poll. The polls of devices that are read together are spread over a
part of a second, so that each is stamped when it happened and not when its turn came. Each device has one connection
and one request under way, so nothing piles up: a device that is slow is asked less often, and holds up no other.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from drivers.contract import Channel, Group, ReadFailed, Row, Status, Unavailable

SPREAD_S = 0.4
CONNECTING_AT_ONCE = 32
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # between attempts to connect: BMCs lock accounts that are tried too often
CLOSE_S = 2.0
OPENING_S = 10.0  # of all devices together: a sampler waits no longer than 15 s
_TOLD = 5  # devices at most, when all fail


class LinkLost(ReadFailed):
    """This reading did not come, and the connection has to be made anew."""


class Source(Protocol):
    """A device as the poller sees it. All of it runs in the poller's thread."""

    async def connect(self) -> None:
        """Connect and log in.

        Raises:
            Unavailable: that failed.
        """

    async def poll(self) -> Row:
        """Read once.

        Raises:
            LinkLost, ReadFailed: see there.
        """

    async def close(self) -> None:
        """Log out and disconnect; also where it never was connected."""


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
        self._thread = threading.Thread(target=self._run, name=f"poll {name}", daemon=True)
        self._thread.start()

    @classmethod
    def start(cls, name: str, opening: Sequence[Opening]) -> tuple[Poller, list[PolledGroup], list[Unavailable]]:
        """Open many devices at once and poll them from now on, whenever they are read.

        Those that fail are left out, and told.

        Raises:
            Unavailable: all fail.
        """
        poller = cls(name)
        try:
            work = asyncio.run_coroutine_threadsafe(_connect_all(opening, OPENING_S), poller._loop)
            groups, notes = work.result(OPENING_S + CLOSE_S)
            if not groups:
                raise Unavailable("; ".join(note.reason for note in notes[:_TOLD]), notes[0].fix)
        except BaseException:
            poller.close()
            raise
        poller._groups = groups
        for place, group in enumerate(groups):
            group.attach(poller, SPREAD_S * place / len(groups))
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
        task = self._loop.create_task(group.poll())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shut_down(self) -> None:
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

    def __init__(self, name: str, channels: Sequence[Channel], source: Source, clock_ns: Callable[[], int]) -> None:
        """The source is connected."""
        self.name = name
        self.channels = tuple(channels)
        self.source = source
        self.delay_s = 0.0
        self._clock_ns = clock_ns
        self._poller: Poller | None = None
        self._under_way = False
        self._came: Row | ReadFailed | None = None
        self._connected = True
        self._pause_s = FIRST_PAUSE_S
        self._retry_ns = 0
        self._trouble = ""

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
            self._came = ReadFailed(f"the poll failed: {type(error).__name__}")
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
            except Unavailable as error:
                raise LinkLost(error.reason) from None
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


Opening = tuple[str, Callable[[], Coroutine[Any, Any, PolledGroup]]]  # a device's name, and what opens it


async def _connect_all(opening: Sequence[Opening], within_s: float) -> tuple[list[PolledGroup], list[Unavailable]]:
    turns = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def one(open_one: Callable[[], Coroutine[Any, Any, PolledGroup]]) -> PolledGroup:
        async with turns:
            group = await open_one()
            await group.poll()  # so that the first reading has a row to give
            return group

    tasks = [asyncio.ensure_future(one(open_one)) for _, open_one in opening]
    _, late = await asyncio.wait(tasks, timeout=within_s)
    for task in late:
        task.cancel()
    groups: list[PolledGroup] = []
    notes: list[Unavailable] = []
    for (name, _), result in zip(opening, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
        if isinstance(result, PolledGroup):
            groups.append(result)
        elif isinstance(result, Unavailable):
            notes.append(Unavailable(f"{name}: {result.reason}", result.fix))
        elif isinstance(result, asyncio.CancelledError):
            notes.append(Unavailable(f"{name}: no answer within {within_s:g} s", "see whether its address is right"))
        else:
            notes.append(Unavailable(f"{name}: opening it failed: {type(result).__name__}", "tell the project"))
    return groups, notes
