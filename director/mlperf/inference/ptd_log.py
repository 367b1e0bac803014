"""PTDaemon's own log, `ptd_logs.txt`: the stages, and its errors and warnings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from director.mlperf.inference.checker_versions import CheckerVersion
from director.mlperf.inference.power_logs import stamp_s
from director.mlperf.text_blocks import NoLog, text_blocks

_STAMP = re.compile(r"^\d\d-\d\d-\d\d\d\d \d\d:\d\d:\d\d.\d\d\d")
_STAMP_LENGTH = len("07-17-2024 08:04:57.774")
_ACTIVATED = re.compile(r"Uncertainty checking for Yokogawa\S+ is activated")
_ABOVE = re.compile(r"Uncertainty \d+.\d+%, which is above 1.00% limit for the last sample!")
_ACCEPTED = "USB."  # the only error that newer checkers accept anywhere


@dataclass(frozen=True)
class Problem:
    """What ends the scan of the log."""

    fails: bool
    text: str


@dataclass(frozen=True)
class Event:
    """A line with an error or a warning. Times in seconds since the epoch, the log's clock taken as UTC."""

    number: int
    at_s: float | None
    is_error: bool
    message: str
    line: str


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines.

    Raises:
        NoLog: the log cannot be read, or is not UTF-8.
    """
    for block in text_blocks(path):
        try:
            text = block.text.decode("utf-8")
        except UnicodeDecodeError as error:
            number = block.first_line + block.text.count(b"\n", 0, error.start)
            raise NoLog(path, f"is not UTF-8 in line {number}") from None
        for number, line in enumerate(text.removesuffix("\n").split("\n"), start=block.first_line):
            yield number, line.removesuffix("\r")


def time_of(line: str) -> float | None:
    """The time that a line begins with; None: none.

    Raises:
        ValueError: it looks like one, and is none.
    """
    match = _STAMP.match(line)
    return None if match is None else stamp_s(match[0])


def ranging_stage(path: Path, mark: str) -> tuple[float | None, float | None]:
    """When the stage of that mark was started and completed.

    Raises:
        NoLog, ValueError: see `lines` and `time_of`.
    """
    go, started = f": Go with mark {mark!r}", None
    for _, line in lines(path):
        at_s = time_of(line)  # of every line, as the official checker does: one that is no time ends it
        message = line if at_s is None else line[_STAMP_LENGTH:].strip()
        if started is None and message == go:
            started = at_s
        elif started is not None and message == ": Completed test":
            return started, at_s
    return started, None


def events(path: Path) -> Iterator[Event]:
    """All errors and warnings; a line may hold one of each, and then the warning comes first.

    Raises:
        NoLog, ValueError: see `lines` and `time_of`.
    """
    for number, line in lines(path):
        for token, is_error in (("WARNING:", False), ("ERROR:", True)):
            _, found, message = line.partition(token)
            if found and message:
                yield Event(number, time_of(line), is_error, message.strip(), line.strip())


def activation(path: Path) -> tuple[int, str] | None:
    """The numbered line that says that PTDaemon checks the uncertainty of samples; None: no line says so.

    Raises:
        NoLog: see `lines`.
    """
    return next(((number, line) for number, line in lines(path) if _ACTIVATED.search(line)), None)


def check_ptd_log(
    path: Path, mark: str, load: tuple[float, float], zone_s: float, version: CheckerVersion
) -> Problem | None:
    """What the official checker says of a log: the first problem ends its scan.

    Raises:
        NoLog, ValueError: see `lines` and `time_of`.
    """
    for _ in lines(path):  # all must be text, also after what ends the scan
        pass
    started, completed = ranging_stage(path, mark)
    if started is None or completed is None:
        return Problem(True, f"ptd_logs.txt has no stage {mark}, or no end of it")
    activated = activation(path)
    if activated is None:
        return Problem(True, "ptd_logs.txt does not say that uncertainty checking was activated")
    at = time_of(activated[1])
    if at is None or not at < started:
        return Problem(True, f"ptd_logs.txt:{activated[0]}: uncertainty checking was activated after ranging began")
    started, completed = started + zone_s, completed + zone_s
    # warnings of the whole log come first where a line has both
    for event in events(path):
        if event.at_s is None:
            raise ValueError(f"ptd_logs.txt:{event.number} has no time: {event.line[:80]!r}")
        problem = _judge(event, event.at_s + zone_s, (started, completed), load, version)
        if problem is not None:
            return problem
    return None


def _judge(
    event: Event, at_s: float, ranging: tuple[float, float], load: tuple[float, float], version: CheckerVersion
) -> Problem | None:
    where = f"ptd_logs.txt:{event.number}: {event.line[:160]}"
    if not event.is_error:
        margin_s = version.warning_margin_s
        if not load[0] + (margin_s or 0.0) < at_s < load[1] - (margin_s or 0.0):
            return None
        return Problem(margin_s is not None and _ABOVE.search(event.message) is not None, f"{where} (during the load)")
    if not version.first and event.message == _ACCEPTED:
        return Problem(False, f"{where} (accepted)")
    if not ranging[0] < at_s < ranging[1]:
        return Problem(True, f"{where} (outside ranging)")
    if event.message.startswith(version.usual_ranging_errors):
        return None
    return Problem(False, f"{where} (during ranging)")
