"""Efficiency of published MLPerf Inference runs, from their logs, against what the official code makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from golden_inference import GOLDEN, golden, needs_golden
from made_session import made_clock, made_manifest, made_stream

from director.answers.results import write_results
from director.session.manifest import PhaseSource
from drivers.replay.spl_trace import open_spl

ORIGIN_NS = 1_000_000_000_000

pytestmark = needs_golden


@pytest.mark.parametrize("row", golden(), ids=lambda row: str(row["dev_name"]))
def test_efficiency_is_that_of_the_official_code_within_u(row: dict[str, str], tmp_path: Path) -> None:
    run = GOLDEN / "sessions" / row["dev_name"] / "run_1"
    trace = open_spl(run / "spl.txt", {})
    (stream,) = trace.streams
    rows = list(stream.rows())
    t_ns = np.array([r.t_ns for r in rows]) - trace.start_ns + ORIGIN_NS
    values = [np.array(column, dtype=float) for column in zip(*(r.values for r in rows), strict=True)]
    statuses = [np.array(s, dtype=np.uint8) for s in zip(*(r.statuses or b"\0" for r in rows), strict=True)]
    file = made_stream(tmp_path, stream.channels, t_ns, values, rate_hz=stream.rate_hz, statuses=statuses)
    (tmp_path / "logs").mkdir()
    shutil.copy(run / "mlperf_log_detail.txt", tmp_path / "logs" / "detail.txt")
    clock = made_clock(tmp_path, int(t_ns[0]), int(t_ns[-1]), trace.start_wall_ns - ORIGIN_NS)
    source = PhaseSource(kind="loadgen", file="logs/detail.txt")
    made_manifest(tmp_path, [file], None, clock_file=clock, phase_sources=[source])
    metrics = {m.name: m for m in write_results(tmp_path).metrics if m.phase == "run"}

    official = float(row["efficiency_per_J"])
    scenario = row["log_scenario"]  # an Offline result may be inferred from a SingleStream run
    metric = metrics["MLPerf efficiency" if scenario in ("Offline", "Server") else "samples per joule"]
    assert metric.expanded is not None
    assert abs(metric.value - official) < min(metric.expanded, 3e-3 * official)
    assert metric.unit.split("/")[0].rstrip("s") == row["efficiency_unit"].split("/")[0].rstrip("s")
    if scenario == row["scenario"] and scenario in ("SingleStream", "MultiStream"):
        per_query = metrics[f"MLPerf energy per {'stream' if scenario == 'SingleStream' else 'query'}"]
        millijoules = float(row["power_metric"]) * (1 if row["power_metric_unit"].startswith("mJ") else 1e3)
        assert per_query.value == pytest.approx(millijoules, rel=3e-3)
    elif scenario == row["scenario"]:
        assert metrics["MLPerf average power"].value == pytest.approx(float(row["power_metric"]), rel=3e-3)
