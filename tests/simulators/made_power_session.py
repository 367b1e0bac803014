"""Folders of MLPerf Inference power runs with a known power: sample log and LoadGen detail log, as their writers do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

START = datetime(2031, 12, 31, 23, 58, 7, 250_000)  # the run crosses midnight and the year
FORMAT = "%m-%d-%Y %H:%M:%S.%f"


def stamp(seconds: float) -> str:
    """An instant of the run, from the first sample's second."""
    return (START + timedelta(seconds=seconds)).strftime(FORMAT)[:-3]


def sample_line(seconds: float, watts: float, channels: Sequence[float] = ()) -> str:
    """A line of spl.txt: the mean of the second before."""
    line = f"Time,{stamp(seconds)},Watts,{watts:.6f},Volts,230.100000,Amps,1.200000,PF,0.980000,Mark,made_testing"
    for number, part in enumerate(channels, start=1):
        line += f",Ch{number},Watts,{part:.6f},Volts,230.100000,Amps,0.400000,PF,0.980000"
    return line


def made_run(
    run: Path,
    power: Callable[[float], float],
    *,
    begin_s: float = 20.0,
    end_s: float = 140.0,
    length_s: int = 160,
    values: Mapping[str, object] | None = None,
    ending: str = "\n",
    clock_s: float = 0.0,
) -> None:
    """Write `spl.txt` and `mlperf_log_detail.txt`. `clock_s` is added to the samples' times."""
    run.mkdir(parents=True)
    lines = [sample_line(second + clock_s, power(second)) for second in range(1, length_s + 1)]
    (run / "spl.txt").write_bytes((ending.join(lines) + ending).encode())
    told = {
        "effective_scenario": "Offline",
        "result_samples_per_second": 1000.0,
        "power_begin": stamp(begin_s),
        "power_end": stamp(end_s),
        **(values or {}),
    }
    entries = [{"key": key, "value": value, "time_ms": 1.0, "metadata": {"line_no": 1}} for key, value in told.items()]
    text = ending.join(f":::MLLOG {json.dumps(entry)}" for entry in entries) + ending
    (run / "mlperf_log_detail.txt").write_bytes(text.encode())
