"""Published MLPerf power logs, replayed through sampler, spool, store and alignment to the energy that they hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from golden_inference import SESSIONS, golden, needs_golden

from director.answers.summary import Summary

QUICK = ["v10-agx-bert-singlestream", "v41-h200x8-resnet50-offline", "v10-dgxstation-bert-offline-minus2"]

pytestmark = needs_golden


def sessions() -> list[object]:
    names = sorted(p.name for p in SESSIONS.glob("*")) if SESSIONS.is_dir() else []
    return [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.long], id=n) for n in names]


def published(name: str) -> tuple[float, float]:
    """Average watts of all positive samples inside the window, and the window's seconds, by the official code."""
    row = next(r for r in golden() if r["dev_name"] == name)
    return float(row["run_1_avg_W_v4_1_positive_samples"]), float(row["run_1_duration_s"])


@pytest.mark.parametrize("name", sessions())
def test_replay_gives_the_energy_that_the_logs_hold(name: str, tmp_path: Path) -> None:
    run = SESSIONS / name / "run_1"
    command = [sys.executable, "-m", "director.cli", "run", "--output", str(tmp_path / "session")]
    command += ["--replay", str(run / "spl.txt"), "--replay-speed", "1000"]
    command += ["--loadgen", str(run / "mlperf_log_detail.txt")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = msgspec.json.decode((tmp_path / "session" / "summary.json").read_bytes(), type=Summary)
    phase = next(p for p in summary.phases if p.name == "run")
    watts, seconds = published(name)
    assert phase.duration_s == pytest.approx(seconds, abs=0.002)
    figure = phase.total
    assert figure is not None and figure.joules is not None and figure.expanded_joules is not None
    # ours weighs samples by their overlap with the window, theirs is a plain mean: they agree within U, and closely
    assert abs(figure.joules - watts * seconds) < min(figure.expanded_joules, 2e-3 * figure.joules)
    assert figure.coverage > 0.99
    rows = sum(1 for line in (run / "spl.txt").read_text().splitlines() if line.startswith("Time"))
    command_phase = summary.phases[0].total
    assert command_phase is not None and command_phase.readings + command_phase.missing <= rows
    assert not summary.estimate_only
