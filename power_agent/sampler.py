"""The sampling process: `python -m power_agent.sampler SPEC.json`. docs/sampling.md describes how it is spoken to."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from drivers.discovery import Opened, Refused, open_drivers
from power_agent.characteristics import for_sampling
from power_agent.clock import Clock, ClockPair, Wake, make_clock, read_pair, wall_step_ns
from power_agent.earlier_recording import NOTHING_EARLIER, read_earlier
from power_agent.event_log import EventLog
from power_agent.messages import DriverState, Ready, SamplerSpec, TickCount
from power_agent.process_watch import ProcessWatch
from power_agent.readiness import FIRST_ROWS_S, first_rows_s, not_usable_yet, patience_line, probing_s
from power_agent.sampled_driver import SampledDriver
from power_agent.sampled_group import SampledGroup
from power_agent.sampler_client import LAST_READINGS_LOST
from power_agent.sampling_thread import SamplingThread
from power_agent.spool import Batch, SpoolDamaged, SpoolUnwritable, SpoolWriter
from power_agent.stream_plan import buffer_limits, check_rates, plan_streams, tail_s

FLUSH_S = 0.7  # with what waits in fast groups, less than a second is lost with the process
CLOCK_PAIR_S = 1.0
LAST_READING_S = 2.0  # a device that hangs cannot hold up the end for longer
MAX_WAITING_PAIRS = 3600  # clock pairs kept while the spool cannot be written
MAX_COMMAND_BYTES = 4096


class Sampler:
    """Samples drivers in threads and carries their rows to the spool; lives until told to stop, or left alone."""

    def __init__(self, spec: SamplerSpec, clock: Clock, *, commands_fd: int, ready_fd: int) -> None:
        """Create the spool and open the drivers.

        Raises:
            SpoolUnwritable: the spool cannot be created.
            SpoolDamaged: there is none to go on in, or it cannot be read.
        """
        self._commands_fd = commands_fd
        self._ready_fd = ready_fd
        self._clock = clock
        self._earlier = read_earlier(Path(spec.spool)) if spec.resume else NOTHING_EARLIER
        self._log = EventLog(self._clock.monotonic_ns, self._earlier.events)
        self._wake = Wake()
        self._last_pair = read_pair(self._clock)
        self._pairs: list[ClockPair] = [self._last_pair]
        self._spool = SpoolWriter(Path(spec.spool), self._first_meta(spec), resume=spec.resume)
        self._meta: dict[str, str] = {}  # not yet in the spool
        self._batches: list[Batch] = []  # taken from the groups, not yet in the spool
        self._ticks: list[TickCount] = []  # as of when these were taken
        self._written_events = {(event.source, event.text): event.times for event in self._earlier.events}

        self._states: list[DriverState] = []
        self._drivers: list[SampledDriver] = []
        self._threads: list[SamplingThread] = []
        self._stopping = False
        self._groups: list[SampledGroup] = []
        self._is_ready = False
        self._ask_patience(probing_s(spec))
        self._start_sampling(spec)
        self._tail_s = tail_s([group.stream for group in self._groups])

        self._commands = b""
        self._alone = False  # whoever gave the commands is gone
        self._alone_since_s = 0.0
        self._alone_s = spec.alone_s  # to go on then
        self._work: ProcessWatch | None = None
        self._work_ended_ns: int | None = None
        self._finished = False

    def _first_meta(self, spec: SamplerSpec) -> dict[str, str]:
        # Of this machine even where the devices are looked for elsewhere: it says whose monotonic clock this is.
        boot_id = ""
        with suppress(OSError):
            boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return {
            "version": _version(),
            "host": spec.host,
            "boot_id": boot_id,
            "pid": str(os.getpid()),
            "resumed_ns" if spec.resume else "started_ns": str(self._clock.monotonic_ns()),
        }

    def _start_sampling(self, spec: SamplerSpec) -> None:
        root = Path(spec.root)
        clock_ns = self._clock.monotonic_ns

        def opener(name: str) -> Callable[[], Opened | Refused]:
            return lambda: open_drivers([name], root=root, settings=spec.settings, clock_ns=clock_ns)[-1]

        results = open_drivers(spec.drivers, root=root, settings=spec.settings, clock_ns=clock_ns)
        earlier = self._earlier
        known = for_sampling(spec.characteristics, self._log)
        self._states, planned = plan_streams(results, spec.rates_hz, self._log, list(earlier.streams.values()), known)
        planned += earlier.lost_drivers({plan.name for plan in planned})
        streams = [stream for plan in planned for stream, _ in plan.streams]
        self._spool.write(streams=[stream for stream in streams if stream.id not in earlier.streams])
        limits = buffer_limits(streams)
        gc.collect()
        gc.freeze()  # what is here now stays; looking through it again would only delay readings
        start_ns = clock_ns()
        if earlier.first_tick_ns is None:
            self._meta["first_tick_ns"] = str(start_ns)
        for plan in planned:
            groups = [
                SampledGroup(
                    stream,
                    group,
                    start_ns=earlier.start_ns(stream, start_ns),
                    limit_bytes=limits[stream.id],
                    earlier=earlier.ticks.get(stream.id),
                )
                for stream, group in plan.streams
            ]
            self._groups += groups
            driver = SampledDriver(
                plan.name,
                plan.driver,
                groups,
                clock=self._clock,
                log=self._log,
                reopen=opener(plan.name),
                notify=self._wake.set,
            )
            self._drivers.append(driver)
        self._start_thread(self._drivers)

    def _start_thread(self, drivers: list[SampledDriver]) -> None:
        thread = SamplingThread(drivers, clock=self._clock)
        self._threads.append(thread)
        if self._stopping:
            thread.stop()
        thread.start()

    def _part_threads(self) -> None:
        """Part a driver that hangs or is slow from the others in its thread."""
        for thread in list(self._threads):
            taken, culprit = thread.part()
            if taken:
                self._start_thread(taken)
                text = "its readings take long; it has a thread to itself from now on, so that it delays no other"
                self._log.add("info", culprit, text)

    def run(self) -> int:
        """Serve until the end. Return the process's exit status: 1 where readings are lost for want of disk space."""
        signal.signal(signal.SIGTERM, self._on_terminate)
        slowest_s = max(map(first_rows_s, self._drivers), default=0.0)
        self._ask_patience(slowest_s if slowest_s > FIRST_ROWS_S else 0.0)
        started_s = next_flush_s = next_pair_s = time.monotonic()
        while not self._finished:
            now_s = time.monotonic()
            if now_s >= next_pair_s:
                self._read_clocks()
                next_pair_s = now_s + CLOCK_PAIR_S
            asked, stuck = self._wake.raised, bool(self._batches)
            self._wake.clear()
            if now_s >= next_flush_s or (asked and not stuck):
                self._part_threads()
                self._flush()
                next_flush_s = now_s + FLUSH_S
            if not self._is_ready and not any(
                self._is_waited_for(driver, now_s - started_s) for driver in self._drivers
            ):
                self._tell_ready()
            if self._work is not None and self._work.ended():
                self._note_work_ended()
            if self._alone and self._work is None and self._tail_is_over():
                break
            self._wait(max(0.0, next_flush_s - now_s))
        return self._finish()

    def _wait(self, timeout_s: float) -> None:
        sources = [self._wake.fd]
        if not self._alone:
            sources.append(self._commands_fd)
        if self._work is not None:
            sources += self._work.descriptors()
        readable, _, _ = select.select(sources, [], [], timeout_s)
        if self._commands_fd in readable or (self._alone and self._alone_s > 0):
            self._read_commands()

    def _on_terminate(self, *_: object) -> None:
        self._finished = True
        self._wake.set()

    # Commands

    def _read_commands(self) -> None:
        try:
            received = os.read(self._commands_fd, MAX_COMMAND_BYTES)
        except BlockingIOError:  # somebody is there again, and says nothing
            self._alone = False
            return
        if not received:
            if not self._alone:
                self._alone, self._alone_since_s, self._commands = True, time.monotonic(), b""
            return
        self._alone = False
        *lines, self._commands = (self._commands + received).split(b"\n")
        self._commands = self._commands[:MAX_COMMAND_BYTES]
        for line in lines:
            self._obey(line.decode("ascii", "replace").split())

    def _obey(self, words: list[str]) -> None:
        if words == ["edge"]:
            self._read_now()
        elif words == ["stop"]:
            self._finished = True
        elif len(words) == 2 and words[0] == "work" and words[1].isascii() and words[1].isdigit():
            told_ns = self._clock.monotonic_ns()
            self._read_now()
            if self._work is None:
                self._work = ProcessWatch(int(words[1]))
                self._meta["work_pid"] = words[1]
                self._meta["work_started_ns"] = str(told_ns)
        else:
            self._log.add("warning", "sampler", f"a command was not understood: {' '.join(words)[:80]!r}")

    def _read_now(self) -> None:
        for thread in self._threads:
            thread.read_now()

    # The work and its end

    def _note_work_ended(self) -> None:
        assert self._work is not None
        self._work_ended_ns = self._clock.monotonic_ns()
        self._work.close()
        self._work = None
        self._meta["work_ended_ns"] = str(self._work_ended_ns)
        if self._alone:  # else the director asks for it
            self._read_now()

    def _tail_is_over(self) -> bool:
        if self._work_ended_ns is None:
            return time.monotonic() >= self._alone_since_s + self._alone_s
        return self._clock.monotonic_ns() >= self._work_ended_ns + self._tail_s * 1e9

    # Readiness

    @staticmethod
    def _is_waited_for(driver: SampledDriver, waited_s: float) -> bool:
        return not driver.has_first_rows and waited_s < first_rows_s(driver)

    def _ask_patience(self, seconds: float) -> None:
        """Tell whoever waits that it takes so much longer than usual until everything is ready."""
        if seconds > 0:
            with suppress(OSError):
                os.write(self._ready_fd, patience_line(seconds))

    def _tell_ready(self) -> None:
        self._is_ready = True
        waiting = {driver.name: first_rows_s(driver) for driver in self._drivers if not driver.has_first_rows}
        drivers = [
            not_usable_yet(state, waiting[state.driver]) if state.driver in waiting else state for state in self._states
        ]
        ready = Ready(
            version=_version(),
            streams=[group.stream for group in self._groups],
            drivers=drivers,
            tail_s=self._tail_s,
        )
        self._meta["drivers"] = msgspec.json.encode(drivers).decode()
        with suppress(OSError), os.fdopen(self._ready_fd, "wb") as pipe:  # nobody listens: the commands' end will tell
            pipe.write(msgspec.json.encode(ready) + b"\n")

    # The road to the disk

    def _read_clocks(self) -> None:
        pair = read_pair(self._clock)
        step_ns = wall_step_ns(self._last_pair, pair)
        if step_ns:
            self._log.add(
                "warning",
                "clock",
                f"the wall clock was set by {step_ns / 1e9:+.3f} s, or the machine slept; energy is not affected, but "
                "log files that are stamped in wall time may be misplaced before or after this instant",
            )
        self._last_pair = pair
        if len(self._pairs) < MAX_WAITING_PAIRS:
            self._pairs.append(pair)

    def _flush(self) -> bool:
        """Write what there is. Where that fails, keep it, and leave newer rows in their groups' bounded buffers."""
        if not self._batches:
            taken = [(group.stream.id, *group.buffer.take()) for group in self._groups]
            self._batches = [Batch(*batch) for batch in taken if batch[1]]
            now_ns = self._clock.monotonic_ns()
            self._ticks = [group.tick_count(now_ns) for group in self._groups]  # whoever goes on here counts from there
        events = [
            event
            for event in self._log.snapshot()
            if event.times != self._written_events.get((event.source, event.text))
        ]
        try:
            self._spool.write(
                batches=self._batches,
                clock=self._pairs,
                ticks=self._ticks,
                events=events,
                meta=self._meta,
            )
        except SpoolUnwritable as error:
            self._log.add("error", "spool", str(error))
            return False
        self._batches = []
        self._pairs.clear()
        self._meta.clear()
        self._written_events.update({(event.source, event.text): event.times for event in events})
        return True

    def _finish(self) -> int:
        self._stopping = True
        for thread in self._threads:
            thread.stop()
        deadline_s = time.monotonic() + LAST_READING_S
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < deadline_s:
            self._part_threads()
            for thread in self._threads:
                thread.join(0.05)
        for thread in self._threads:
            if thread.is_alive():
                text = f"its last reading did not come within {LAST_READING_S:g} s; the device or its driver hangs"
                self._log.add("warning", thread.busy_with, text)
        self._read_clocks()
        self._meta["finished_ns"] = str(self._clock.monotonic_ns())
        written = self._flush() and self._flush()  # the first may only have written what an earlier one could not
        self._spool.close()
        if not written:
            with suppress(OSError):  # the log may lie on the same full disk
                print(f"{self._spool.path}: the last readings could not be written", file=sys.stderr)
        return 0 if written else LAST_READINGS_LOST


def _version() -> str:
    try:
        return version("ml-power-agent")
    except PackageNotFoundError:
        return "unknown"


def _fail(text: str) -> int:
    print(text, file=sys.stderr)
    return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sampler by the specification in the file that is named. Return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whoever started us may hold its own signals back
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the workload; whoever started us tells us to stop
    if len(arguments) != 1:
        return _fail("usage: python -m power_agent.sampler SPEC.json")
    try:
        spec = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=SamplerSpec)
    except (OSError, msgspec.DecodeError) as error:
        return _fail(f"{arguments[0]} is no specification for a sampler: {error}")
    try:
        check_rates(spec.rates_hz)
        clock = make_clock(spec.replay_clock)
    except ValueError as error:
        return _fail(f"{arguments[0]}: {error}")
    # A driver that prints, or that reads its standard input, must not get into the conversation.
    commands_fd, ready_fd = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    try:
        return Sampler(spec, clock, commands_fd=commands_fd, ready_fd=ready_fd).run()
    except (SpoolUnwritable, SpoolDamaged) as error:
        return _fail(str(error))


if __name__ == "__main__":
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)  # everything is written; a device that hangs must not hold up the end of the process
