"""Starts a sampling process and speaks with it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from power_agent.adopted_sampler import AdoptedSampler
from power_agent.messages import Ready, SamplerSpec
from power_agent.readiness import take_patience

SPEC_FILE = "sampler.json"
LOG_FILE = "sampler.log"
ORDERS_FILE = "orders"  # a FIFO, through which one who comes later can give orders, too
MAX_READY_BYTES = 16 << 20
KILL_TIMEOUT_S = 1.0
LOG_LINES = 5  # of its log in an error message
LAST_READINGS_LOST = 1  # exit status of a sampler that could not write everything


class SamplerFailed(Exception):
    """The sampling process did not start, or is gone: what, the last lines of its log, and what to do."""


class SamplerClient:
    """A running sampling process. It outlives its client: left alone, it samples until the work has ended."""

    def __init__(
        self,
        process: subprocess.Popen[bytes] | AdoptedSampler,
        orders: BinaryIO,
        log: Path,
        ready_timeout_s: float,
    ) -> None:
        self.ready: Ready | None = None  # not yet
        self._process = process
        self._orders = orders
        self._log = log
        self._ready_timeout_s = self._usual_ready_s = ready_timeout_s
        self._ready_deadline_s = time.monotonic() + ready_timeout_s
        self._received = b""

    @classmethod
    def start(
        cls, spec: SamplerSpec, directory: Path, *, python: str = sys.executable, ready_timeout_s: float = 15.0
    ) -> tuple[SamplerClient, Ready]:
        """Start a sampling process and wait for its first readings.

        Its specification and its log, `sampler.json` and `sampler.log`, come into `directory`.

        Raises:
            SamplerFailed: it could not be started, or is not ready in time; then it has been ended.
        """
        client = cls.launch(spec, directory, python=python, ready_timeout_s=ready_timeout_s)
        return client, client.wait_ready()

    @classmethod
    def launch(
        cls, spec: SamplerSpec, directory: Path, *, python: str = sys.executable, ready_timeout_s: float = 15.0
    ) -> SamplerClient:
        """Start a sampling process without waiting for it: `look_ready` tells when it is ready.

        Raises:
            SamplerFailed: it could not be started.
        """
        spec_file, log = directory / SPEC_FILE, directory / LOG_FILE
        try:
            spec_file.write_bytes(msgspec.json.encode(spec))
            with (
                log.open("ab") as stderr,
                _pipe(directory / ORDERS_FILE if spec.alone_s > 0 else None) as (end, orders),
            ):
                process = subprocess.Popen(
                    [python, "-m", "power_agent.sampler", str(spec_file)],
                    stdin=end,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    bufsize=0,
                    start_new_session=True,  # so that no Ctrl-C and no hang-up of the terminal ends it
                    env={**os.environ, "PYTHONSAFEPATH": "1"},  # a folder `drivers` where the user stands is not ours
                )
        except OSError as error:
            raise SamplerFailed(f"the sampling process cannot be started in {directory}: {error}") from error
        return cls(process, orders, log, ready_timeout_s)

    @classmethod
    def adopt(cls, spec: SamplerSpec, directory: Path, *, ready_timeout_s: float = 15.0) -> SamplerClient | None:
        """Take over a sampling process that was launched here by one who is gone; None: there is none that runs."""
        try:
            orders = os.open(directory / ORDERS_FILE, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # no such file, or nobody reads it
            return None
        process = AdoptedSampler(orders, Path(spec.spool), directory / SPEC_FILE)
        return cls(process, os.fdopen(orders, "wb", buffering=0), directory / LOG_FILE, ready_timeout_s)

    def wait_ready(self, tell: Callable[[str], None] = lambda text: None) -> Ready:
        """Wait for the first readings. `tell` is told where that takes long.

        Raises:
            SamplerFailed: it ended, or is not ready in time; then it has been ended.
        """
        told_s = self._usual_ready_s
        while (ready := self.look_ready(wait=True)) is None:
            if self._ready_timeout_s > told_s:
                told_s = self._ready_timeout_s
                tell(f"waiting for the first readings, up to {told_s:.0f} s: a device is slow, or looks for its ranges")
        return ready

    def look_ready(self, *, wait: bool = False) -> Ready | None:
        """What the process says of itself once its first readings are there; None: not yet. May wait for news of it.

        Raises:
            SamplerFailed: it ended, or is not ready in time; then it has been ended.
        """
        if self.ready is None:
            try:
                self.ready = self._read_ready(max(0.0, self._ready_deadline_s - time.monotonic()) if wait else 0.0)
            except BaseException:
                self._end()
                raise
        return self.ready

    def work_started(self, pid: int) -> None:
        """Tell that the workload runs as process `pid`: everything is read once more at once.

        Raises:
            SamplerFailed: the sampling process is gone.
        """
        self._send(f"work {pid}")

    def edge(self) -> None:
        """Have everything read once more at once: the workload has ended.

        Raises:
            SamplerFailed: the sampling process is gone.
        """
        self._send("edge")

    def alive(self) -> bool:
        """Whether the sampling process still runs."""
        return self._process.poll() is None

    def stop(self, timeout_s: float) -> None:
        """Have everything read a last time and written, and wait for the end of the process.

        Raises:
            SamplerFailed: it had gone before, did not end in time and was killed, or could not write everything.
        """
        try:
            self._send("stop")
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            text = f"the sampling process did not end within {timeout_s:g} s and was killed; see what its disk is doing"
            raise SamplerFailed(_with_log(f"{text}. What it wrote before is in the spool", self._log)) from None
        finally:
            self._end()
        if self._process.returncode != 0:
            text = f"the sampling process ended with status {self._process.returncode}"
            if self._process.returncode == LAST_READINGS_LOST:  # on a full disk its log is empty too
                text = "the last readings could not be written; is the disk full?"
            raise SamplerFailed(_with_log(text, self._log))

    def forget(self) -> None:
        """In a forked child: let go of the process, which is the parent's."""
        for pipe in (self._orders, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.returncode = 0  # or its object would warn in the child that nobody waited for it

    def _take_patience(self) -> int | None:
        seconds, self._received = take_patience(self._received)
        return seconds

    def _read_ready(self, timeout_s: float) -> Ready | None:
        if isinstance(self._process, AdoptedSampler):
            ready = self._process.look_ready(timeout_s)
            if ready is not None or time.monotonic() < self._ready_deadline_s:
                return ready
        pipe = self._process.stdout
        if pipe is None or not select.select([pipe], [], [], timeout_s)[0]:
            if time.monotonic() < self._ready_deadline_s:
                return None
            within = f"within {self._ready_timeout_s:g} s"
            text = f"the sampling process was not ready {within}; a device may hang while it is opened"
            raise SamplerFailed(_with_log(f"{text}: leave out drivers one by one to find it", self._log))
        chunk = os.read(pipe.fileno(), 1 << 16)
        if not chunk:
            text = f"the sampling process ended at once, status {self._process.wait()}"
            raise SamplerFailed(_with_log(text, self._log))
        self._received += chunk
        while (patience_s := self._take_patience()) is not None:
            self._ready_timeout_s = self._usual_ready_s + patience_s
            self._ready_deadline_s = time.monotonic() + self._ready_timeout_s
        if not self._received.endswith(b"\n") and len(self._received) < MAX_READY_BYTES:
            return None
        pipe.close()
        try:
            return msgspec.json.decode(self._received, type=Ready)
        except msgspec.DecodeError as error:
            text = f"the sampling process speaks another language ({error}); is it of the same version?"
            raise SamplerFailed(_with_log(text, self._log)) from error

    def _end(self) -> None:
        self._process.kill()  # does nothing to a process that has ended
        for pipe in (self._orders, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel cannot be killed, nor waited for
            self._process.wait(KILL_TIMEOUT_S)

    def _send(self, command: str) -> None:
        try:
            self._orders.write(f"{command}\n".encode())
        except OSError as error:
            status = self._process.poll()
            ended = "" if status is None else f" (status {status})"
            text = f"the sampling process is gone{ended}; what it wrote before is in the spool"
            raise SamplerFailed(_with_log(text, self._log)) from error


@contextmanager
def _pipe(fifo: Path | None) -> Iterator[tuple[int, BinaryIO]]:
    """The end for the new process, which is closed here afterwards, and ours, which stays open unless that fails."""
    if fifo is None:
        end, ours = os.pipe2(os.O_CLOEXEC)
    else:
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo, 0o600)
        end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        ours = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    orders = os.fdopen(ours, "wb", buffering=0)
    try:
        yield end, orders
    except BaseException:
        orders.close()
        raise
    finally:
        os.close(end)


def _with_log(text: str, log: Path) -> str:
    lines: list[str] = []
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join([f"{text}. Its log, {log}:" if lines else f"{text}. Its log, {log}, is empty.", *lines])
