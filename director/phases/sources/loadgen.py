"""The measured run of MLPerf Inference's LoadGen, from its `mlperf_log_detail.txt`.

The phase is named `run`, lasts from `power_begin` to `power_end`, and carries LoadGen's settings and results under
LoadGen's own names as attributes, and its scenario. Of a key that comes twice the first counts, as in the official
code.
"""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from director.phases.sources import Problems
from director.phases.sources.log_lines import finite
from director.phases.sources.mllog import entries
from power_agent.messages import MarkEvent

_KEPT_PREFIXES = ("result_", "generated_", "early_stopping_", "effective_", "power_")
_KEPT = ("loadgen_version", "test_datetime", "sut_name", "qsl_name")
_TOKEN_RATES = (  # rate of tokens, rate of samples over the same time, whether LoadGen only inferred the tokens
    ("result_tokens_per_second", "result_samples_per_second", False),
    ("result_completed_tokens_per_second", "result_completed_samples_per_sec", False),
    ("result_inferred_tokens_per_second", "result_samples_per_second", True),
    ("result_inferred_completed_tokens_per_second", "result_completed_samples_per_sec", True),
)


def read(path: Path, problems: Problems, utc_offset_s: int = 0) -> Iterator[MarkEvent]:
    """Yield the begin and the end of the run.

    Args:
        utc_offset_s: of the log's clock, east of Greenwich positive. Newer LoadGen writes UTC; version 1.0 wrote the
            local time of its host.
    """
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for number, _, entry in entries(path, problems):
        if entry.key.startswith(_KEPT_PREFIXES) or entry.key in _KEPT:
            values.setdefault(entry.key, entry.value)
            lines.setdefault(entry.key, number)
    begin_ns = _instant(path, problems, "power_begin", values, lines, utc_offset_s)
    end_ns = _instant(path, problems, "power_end", values, lines, utc_offset_s)
    attributes = {key: value for key, value in values.items() if not isinstance(value, (dict, list))}
    attributes["scenario"] = values.get("effective_scenario")
    duration_s = None if begin_ns is None or end_ns is None else (end_ns - begin_ns) * 1e-9
    work = _work(attributes, duration_s)

    def event(t_ns: int, op: Literal["begin", "end"], line: int, **more: Any) -> MarkEvent:
        source, key = f"{path.name}:{line}", f"{path.name}:run"
        return MarkEvent(t_ns=t_ns, clock="wall", op=op, name="run", key=key, lane="loadgen", source=source, **more)

    if begin_ns is not None:
        yield event(begin_ns, "begin", lines["power_begin"], work=work, attributes=attributes)
    if end_ns is not None:
        yield event(end_ns, "end", lines["power_end"])


def _instant(
    path: Path, problems: Problems, key: str, values: dict[str, Any], lines: dict[str, int], utc_offset_s: int
) -> int | None:
    """The instant that the value tells, in ns since the epoch. The line's own `time_ms` is when it was logged."""
    if key not in values:
        problems.add(str(path), f"has no {key}; did LoadGen end, and is this its mlperf_log_detail.txt?")
        return None
    try:
        instant = datetime.datetime.strptime(str(values[key]), "%m-%d-%Y %H:%M:%S.%f")
    except ValueError:
        text = f"{key} is {str(values[key])[:40]!r}, and not a time as 07-17-2024 08:06:12.146"
        problems.add(f"{path}:{lines[key]}", text)
        return None
    return (calendar.timegm(instant.timetuple()) - utc_offset_s) * 1_000_000_000 + instant.microsecond * 1000


def _work(values: dict[str, Any], duration_s: float | None) -> dict[str, float]:
    """What was done, and in `values` where a count comes from if it is not LoadGen's own."""
    queries = _number(values, "result_query_count")
    if queries is None:
        queries = _queries_of_old_loadgen(values, duration_s)
    if queries is None:
        return {}
    work = {"queries": queries}
    per_query = _number(values, "generated_samples_per_query") or _number(values, "effective_samples_per_query")
    if per_query is not None:
        samples = work["samples"] = queries * per_query
        for tokens_key, samples_key, inferred in _TOKEN_RATES:
            token_rate, sample_rate = _number(values, tokens_key), _number(values, samples_key)
            if token_rate is not None and sample_rate:
                work["tokens"] = token_rate / sample_rate * samples
                values["tokens_from"] = f"{tokens_key} / {samples_key} × samples"
                values["tokens_inferred"] = inferred
                break
    return work


def _queries_of_old_loadgen(values: dict[str, Any], duration_s: float | None) -> float | None:
    """Version 1.0 does not log how many queries were done. In SingleStream it generates more than it issues."""
    if values["scenario"] != "SingleStream":
        return _number(values, "generated_query_count")
    rate = _number(values, "result_qps_with_loadgen_overhead")
    if rate is None or duration_s is None:
        return None
    values["queries_from"] = "result_qps_with_loadgen_overhead × duration: an estimate"
    return rate * duration_s


def _number(values: dict[str, Any], key: str) -> float | None:
    number = finite(values.get(key))
    return number if number is not None and number >= 0 else None
