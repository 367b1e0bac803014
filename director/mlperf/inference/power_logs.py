"""What checks take from a session's logs: the times of the load, average watts, checksums of results."""

from __future__ import annotations

import codecs
import hashlib
import re
from datetime import timezone
from pathlib import Path

import numpy as np

from director.mlperf.inference.sample_log import SampleLog, Window, stamp_time
from director.mlperf.text_blocks import Block, NoLog, text_blocks

RUNS = ("ranging", "run_1")  # folders of ranging and testing
_EDGE = re.compile(rb"power_(begin|end)", re.IGNORECASE)
_STAMP = re.compile(r"\d*-\d*-\d* \d*:\d*:\d*\.\d*")
_OF_RUN = ("mlperf_log_detail.txt", "mlperf_log_summary.txt", "spl.txt")
_OF_POWER = ("client.json", "client.log", "ptd_logs.txt", "server.log")
_HASHED_AT_ONCE = 1 << 20
_READ_AT_ONCE = 8192  # by Python, of text


def load_times(run: Path, zone_s: float) -> tuple[float, float]:
    """Begin and end of the load as the official checker finds them, in seconds since the epoch: of any line with
    power_begin or power_end the first time, and of repeated lines the last before both are known.

    Raises:
        NoLog: the log cannot be read, or lacks one of them.
        ValueError: one is no time.
    """
    path = run / "mlperf_log_detail.txt"
    found: dict[str, float] = {}
    begins_at = 0
    for block in text_blocks(path):
        seen = -1
        for match in _EDGE.finditer(block.text):
            if match.start() < seen:  # a line counts by the first name in it, and begin before end
                continue
            start = block.text.rfind(b"\n", 0, match.start()) + 1
            seen = block.text.find(b"\n", match.start())
            seen = len(block.text) if seen < 0 else seen
            line = block.text[start:seen].decode("utf-8")
            stamp = _STAMP.search(line)
            if stamp is None:
                raise ValueError(f"no time in line {line[:80]!r}")
            name = "begin" if "power_begin" in line.lower() else "end"
            found[name] = stamp_s(stamp[0]) + zone_s
            if found.get("begin") and found.get("end"):
                read = -(-(begins_at + seen + 1) // _READ_AT_ONCE) * _READ_AT_ONCE
                _refuse_other_text(path, block, read - begins_at)
                return found["begin"], found["end"]
        _refuse_other_text(path, block, len(block.text))
        begins_at += len(block.text)
    missing = " and ".join(f"power_{name}" for name in ("begin", "end") if name not in found)
    if missing:
        raise NoLog(path, f"has no {missing}")
    return found["begin"], found["end"]


def _refuse_other_text(path: Path, block: Block, read: int) -> None:
    """The official checker ends where what it has read is not UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(block.text[:read])
    except UnicodeDecodeError as error:
        number = block.first_line + block.text.count(b"\n", 0, error.start)
        raise ValueError(f"{path.name} is not UTF-8 in line {number}") from None


def stamp_s(text: str) -> float:
    """Seconds since the epoch of a stamp as 07-17-2024 08:04:57.774, taken as UTC.

    Raises:
        ValueError: it is none.
    """
    return stamp_time(text).replace(tzinfo=timezone.utc).timestamp()


def average_watts(run: Path, begin_s: float, end_s: float, every_line: bool = False) -> float:
    """Mean of the positive samples between two instants; −1 without any, as the official checker has it.

    `every_line`: also of lines that do not begin with "Time".

    Raises:
        NoLog: the log cannot be read.
        ValueError: it holds a line at which the official checker ends with an exception.
    """
    log = SampleLog(run / "spl.txt", Window(round(begin_s * 1e6), round(end_s * 1e6)), needs_power_factor=True)
    total, count = 0.0, 0
    for block in log.samples():
        counts = log.window.holds(block.t_us) & (block.time_lines | every_line)
        watts = block.watts[counts & (block.watts > 0)]
        if len(watts):
            total = float(np.cumsum(np.concatenate(([total], watts)))[-1])
            count += len(watts)
    stops = log.stops.any_line if every_line else log.stops.time_lines
    if stops:
        raise ValueError(f"{log.path.name}, {stops}")
    return total / count if count else -1.0


def result_checksums(session: Path, with_client: bool) -> dict[str, str | None]:
    """SHA-1 of the files that a session must have, by path; None: not there. Folders that are links do not count.

    Raises:
        OSError: a file cannot be read.
    """
    power = [name for name in _OF_POWER if with_client or name != "client.json"]
    paths = [f"power/{name}" for name in power] + [f"{run}/{name}" for run in RUNS for name in _OF_RUN]
    return {path: _sha1(session / path) if not (session / path).parent.is_symlink() else None for path in paths}


def _sha1(path: Path) -> str | None:
    if not path.is_file():
        return None
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_HASHED_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()
