"""What a session needs of a meter: a stage begun in given ranges, its samples while it runs, and its end."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from director.mlperf.protocol.session_log import SessionLog

_MAX_WAITING_BYTES = 64 << 20


class MeterFailed(Exception):
    """The meter cannot do what is asked: why, for the one who runs the measurement."""


@dataclass(frozen=True)
class RangesAsked:
    """Volts and amperes as MLPerf's client or the ranging stage gives them: decimal texts."""

    volts: str
    amperes: str


class SampleFile:
    """`spl.txt` while it is written: whole lines, durable soon. What a full disk does not take waits in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost_lines = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._waiting = bytearray()

    def write(self, lines: Sequence[str]) -> None:
        """Append lines and sync them to the disk.

        Raises:
            OSError: the disk is full, or broken; the next call tries again.
        """
        if len(self._waiting) > _MAX_WAITING_BYTES:
            self.lost_lines += len(lines)
        else:
            self._waiting += "".join(f"{line}\n" for line in lines).encode("ascii", "replace")
        if not self._waiting:
            return
        while self._waiting:
            del self._waiting[: os.write(self._fd, self._waiting)]
        os.fsync(self._fd)

    def close(self) -> None:
        """Try once more to write what waits; what the disk does not take now is counted as lost."""
        try:
            self.write([])
        except OSError:
            self.lost_lines += self._waiting.count(b"\n")
        os.close(self._fd)


class StageMeter(ABC):
    """One session's meter. `begin` and `end` come in turn, from one thread."""

    @abstractmethod
    def begin(self, stage: str, mark: str, samples: SampleFile, ranges: RangesAsked | None) -> None:
        """Measure from now on; samples go to the file as they come. Without ranges: automatic ones.

        Raises:
            MeterFailed: it does not.
        """

    @abstractmethod
    def end(self) -> str:
        """End the stage; returns what the meter says of it, for `ptd_out.txt`. What fails is logged, never raised."""

    @abstractmethod
    def ranges_for_testing(self) -> RangesAsked | None:
        """The lowest ranges that would not have clipped in the stage that has ended; None: there is no sample."""

    @abstractmethod
    def close(self) -> None:
        """Set the initial ranges again and let go of the meter; never raises."""

    @abstractmethod
    def write_logs(self, power: Path) -> None:
        """Write `ptd_logs.txt`.

        Raises:
            OSError: it cannot be written.
        """

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """`ptd_messages` and `ptd_config` of server.json."""


class MeterSource(ABC):
    """Opens the meter anew for each session."""

    @abstractmethod
    def open(self, log: SessionLog) -> StageMeter:
        """The meter, for a session.

        Raises:
            MeterFailed: it is not there.
        """
