"""A sampling process that outlived whoever started it: what can be known of it and done to it by another process."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from power_agent.messages import DriverState, Ready
from power_agent.spool import SpoolDamaged, SpoolReader

_LOOK_S = 0.05


class AdoptedSampler:
    """Answers as `subprocess.Popen` does, of a process that reads the FIFO whose writing end is `orders`."""

    stdout = None

    def __init__(self, orders: int, spool: Path, spec_file: Path) -> None:
        self._orders = orders
        self._spool = spool
        self._spec_file = spec_file
        self.returncode: int | None = None  # 0 whatever it was: its parent alone could know

    def poll(self) -> int | None:
        """None while it runs."""
        if self.returncode is None:
            poll = select.poll()
            try:
                poll.register(self._orders, 0)
                gone = any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
            except (OSError, ValueError):
                gone = True
            if gone:
                self.returncode = 0
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        end_s = time.monotonic() + (timeout_s if timeout_s is not None else float("inf"))
        while self.poll() is None:
            if time.monotonic() >= end_s:
                raise subprocess.TimeoutExpired("power_agent.sampler", timeout_s or 0.0)
            time.sleep(_LOOK_S)
        return 0

    def kill(self) -> None:
        """Kill it, where its number is known and still its own."""
        if self.poll() is not None:
            return
        with suppress(OSError, ValueError, KeyError, SpoolDamaged):
            reader = SpoolReader(self._spool)
            try:
                pid = int(reader.meta()["pid"])
            finally:
                reader.close()
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(self._spec_file) in words:
                os.kill(pid, signal.SIGKILL)

    def look_ready(self, timeout_s: float) -> Ready | None:
        """What it told of itself once its first readings were there, as far as its spool says so; None: not yet."""
        end_s = time.monotonic() + timeout_s
        while True:
            ready = self._ready()
            if ready is not None or time.monotonic() >= end_s or self.poll() is not None:
                return ready
            time.sleep(_LOOK_S)

    def _ready(self) -> Ready | None:
        from power_agent.stream_plan import tail_s

        try:
            reader = SpoolReader(self._spool)
        except SpoolDamaged:
            return None  # its writer makes it just now
        try:
            meta, streams = reader.meta(), reader.streams()
            drivers = msgspec.json.decode(meta["drivers"], type=list[DriverState])
            return Ready(version=meta.get("version", ""), streams=streams, drivers=drivers, tail_s=tail_s(streams))
        except (KeyError, SpoolDamaged, msgspec.DecodeError):
            return None
        finally:
            reader.close()
