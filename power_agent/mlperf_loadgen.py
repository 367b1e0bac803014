"""Finds the logs that LoadGen left of one run, by the instants that it notes in them."""

from __future__ import annotations

import re
import shutil
from datetime import datetime, timezone
from pathlib import Path

DETAIL_LOG = "mlperf_log_detail.txt"
SUMMARY_LOG = "mlperf_log_summary.txt"
_OTHERS = ("mlperf_log_accuracy.json",)
_EDGE = re.compile(rb"power_(begin|end)", re.IGNORECASE)
_STAMP = re.compile(rb"(\d\d)-(\d\d)-(\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{1,6})")
_MAX_LINE_BYTES = 1 << 20


class NoLoadgenLog(Exception):
    """There are no logs of this run: where was looked, and what was found instead."""


def find_logs(folder: Path, began_s: float, ended_s: float) -> Path:
    """The folder with the detail log whose load lies between two instants (seconds since the epoch).

    Raises:
        NoLoadgenLog: there is none, or it has no summary beside it.
    """
    seen = []
    for path in sorted(folder.rglob(DETAIL_LOG)):
        try:
            times = load_times(path)
        except OSError as error:
            seen.append(f"{path} cannot be read: {error.strerror or error}")
            continue
        if "begin" not in times or "end" not in times:
            seen.append(f"{path} has no power_begin or no power_end")
        elif began_s < times["begin"] and times["end"] < ended_s:
            if not path.with_name(SUMMARY_LOG).is_file():
                raise NoLoadgenLog(f"{path} has no {SUMMARY_LOG} beside it")
            return path.parent
        else:
            seen.append(f"{path} is of another run, which began {times['begin'] - began_s:+.0f} s after this one")
    found = "; ".join(seen[:3]) or f"there is no {DETAIL_LOG} below it"
    raise NoLoadgenLog(f"{folder} has no LoadGen log of this run: {found}")


def load_times(path: Path) -> dict[str, float]:
    """When the load began and ended, as far as the log says it: "begin" and "end", seconds since the epoch.

    Raises:
        OSError: it cannot be read.
    """
    found: dict[str, float] = {}
    with path.open("rb") as file:
        while line := file.readline(_MAX_LINE_BYTES):
            edge = _EDGE.search(line)
            stamp = _STAMP.search(line) if edge else None
            if edge and stamp:
                month, day, year, hour, minute, second = (int(part) for part in stamp.groups()[:6])
                try:
                    at = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
                except ValueError:
                    continue
                found[edge[1].decode().lower()] = at.timestamp() + float(b"0." + stamp[7])
    return found


def copy_logs(source: Path, target: Path) -> None:
    """Copy LoadGen's logs.

    Raises:
        OSError: a file cannot be read or written.
    """
    target.mkdir(exist_ok=True)
    for name in (DETAIL_LOG, SUMMARY_LOG, *_OTHERS):
        if name not in _OTHERS or (source / name).is_file():
            shutil.copyfile(source / name, target / name)
