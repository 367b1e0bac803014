"""Reads LoadGen's `mlperf_log_detail.txt`: the first value of every key, as the official parser takes it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from director.mlperf.text_blocks import text_blocks
from director.phases.sources import Problems

# What scores are made of. Other lines are only looked at from outside: a log may hold megabytes of them.
KEYS = frozenset(
    (
        "power_begin",
        "power_end",
        "effective_scenario",
        "result_validity",
        "loadgen_version",
        "result_query_count",
        "generated_query_count",
        "generated_samples_per_query",
        "effective_samples_per_query",
        "result_samples_per_second",
        "result_scheduled_samples_per_sec",
        "result_completed_samples_per_sec",
        "result_tokens_per_second",
        "result_completed_tokens_per_second",
        "result_inferred_tokens_per_second",
        "result_inferred_completed_tokens_per_second",
        "result_90.00_percentile_latency_ns",
        "result_99.00_percentile_per_query_latency_ns",
        "result_mean_query_latency_ns",
        "result_qps_with_loadgen_overhead",
        "result_qps_without_loadgen_overhead",
        "early_stopping_latency_ss",
        "early_stopping_latency_ms",
    )
)
_MARKER = b":::MLLOG"
_LEFT_OUT = re.compile(rb':::MLLOG \{"key": "(?!(?:' + "|".join(map(re.escape, sorted(KEYS))).encode() + rb')")')
_END = b"}}"  # of a line as LoadGen writes it: of its metadata, and of all


class _Entry(msgspec.Struct):
    key: str
    value: Any = None


_decode = msgspec.json.Decoder(_Entry).decode


@dataclass
class DetailLog:
    """What a detail log says."""

    path: Path
    problems: Problems = field(default_factory=Problems)
    stops: str = ""  # the first line at which the official parser ends with an exception, in words
    unreadable_lines: int = 0
    values: dict[str, Any] = field(default_factory=dict)  # by key, of KEYS

    def get(self, key: str) -> Any:
        """The first value of a key; None where there is none."""
        return self.values.get(key)

    def number(self, key: str) -> float | None:
        """The first value of a key as the official code reads numbers: from a text, too."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return None
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None

    def whole_number(self, key: str) -> int | float | None:
        """A number that stays an integer where the log has one."""
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else self.number(key)


def read_detail_log(path: Path) -> DetailLog:
    """Read a detail log.

    Raises:
        NoLog: see `text_blocks`.
    """
    log = DetailLog(path)
    for block in text_blocks(path):
        text, number, start = block.text, block.first_line, 0
        ascii_only = text.isascii()
        find, is_left_out = text.find, _LEFT_OUT.match
        while start < len(text):
            end = find(b"\n", start)
            end = len(text) if end < 0 else end
            left_out = is_left_out(text, start) and text[end - 2 : end] == _END
            if not left_out or not (ascii_only or text[start:end].isascii()):
                _read_line(log, number, text[start:end])
            number, start = number + 1, end + 1
    return log


def _read_line(log: DetailLog, number: int, line: bytes) -> None:
    try:
        line.decode("utf-8")  # as the official parser does with every line
        if line.startswith(_MARKER):
            entry = _decode(line[len(_MARKER) :])
            if entry.key in KEYS:
                log.values.setdefault(entry.key, entry.value)
    except UnicodeDecodeError:
        _damaged(log, number, f"is not UTF-8: {line[:60]!r}")
    except (msgspec.MsgspecError, RecursionError):
        _damaged(log, number, f"is no valid MLLOG line: {line[:60]!r}")


def _damaged(log: DetailLog, number: int, why: str) -> None:
    log.unreadable_lines += 1
    log.stops = log.stops or f"line {number} {why}"
    log.problems.add(f"{log.path}:{number}", why)
