"""Fixtures of several tests of the director."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlperf_bench import (
    FAST_S,
    Bench,
)
from ptdaemon_server import Load, PtdaemonServer


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    path = tmp_path / "ptd_log.txt"
    load = Load(2100.0, volts=239.0, power_factor=0.96)
    with (
        path.open("w", buffering=1) as log,
        PtdaemonServer(lambda t_s: load, meter=77, channels=3, period_s=FAST_S, log=log, ranges=(20.0, 600.0)) as ptd,
    ):
        yield Bench(tmp_path, ptd, path)
