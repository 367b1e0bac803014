"""`report --against`: a run beside a smaller one, with figures worked out by hand, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_fleet_session import ORIGIN_NS, Marked, Meter, S, made_fleet
from made_meter_session import made_series

from director.answers.questions import Questions
from director.answers.results import write_results
from director.answers.summary import Scaling, Summary
from director.cli import main
from director.session.files import SessionError, load_manifest, store_manifest


def run_on(
    session: Path, hosts: int, seconds: int, watts: float, work: dict[str, float] | None = None, **more: Any
) -> Path:
    """A run of that many seconds with a second before and after; each host draws `watts`, and does `work`."""
    model, scope, rank = more.pop("model", "METER"), more.pop("scope", "wall"), more.pop("rank", True)
    name = more.pop("phase", "run")
    meters = {f"n{i}": [Meter([watts] * (seconds + 2), scope=scope, model=model)] for i in range(hosts)}
    phases: dict[tuple[str, int | None], list[Marked]] = {
        (f"n{i}", i if rank else None): [Marked(name, 1, 1 + seconds, None, work or {})] for i in range(hosts)
    }
    made_fleet(session, meters, phases, seconds + 2, **more)
    write_results(session)
    return session


def against(session: Path, smaller: Path) -> Scaling:
    summary = write_results(session, questions=Questions(against=smaller))
    assert isinstance(summary.scaling, Scaling)
    read = msgspec.json.decode((session / "summary.json").read_bytes(), type=Summary)
    assert read.scaling == summary.scaling
    return summary.scaling


def refused(session: Path, smaller: Path, because: str) -> None:
    with pytest.raises(SessionError, match=because):
        write_results(session, questions=Questions(against=smaller))


def test_figures_for_the_same_work(tmp_path: Path) -> None:
    """2 ranks: 120 s, 400 samples each. 8 ranks: 40 s, 100 samples each. Equal work: 800 samples."""
    small = run_on(tmp_path / "small", 2, 120, 300.0, {"samples": 400})
    large = run_on(tmp_path / "large", 8, 40, 250.0, {"samples": 100})
    found = against(large, small)
    assert (found.unit, found.smaller_n, found.n, found.work) == ("ranks", 2, 8, "samples")
    assert found.speed_up == pytest.approx(3.0)
    assert found.efficiency == pytest.approx(3.0 * 2 / 8)
    assert found.energy_ratio == pytest.approx(8 * 250 * 40 / (2 * 300 * 120))
    # of a constant power U is the meter's: ±1 %, all of one model
    share = 2 * 0.01 / math.sqrt(3)
    assert found.energy_ratio_expanded == pytest.approx(found.energy_ratio * math.sqrt(2) * share)  # type: ignore[operator]
    assert (found.speed_up_expanded, found.efficiency_expanded) == (0, 0)  # one clock, no bound
    assert not found.energy_estimate and not found.energy_note


def test_weak_scaling_counts_the_work(tmp_path: Path) -> None:
    """Four times the ranks do four times the work in 1.25 times the time."""
    small = run_on(tmp_path / "small", 1, 40, 300.0, {"tokens": 1000, "samples": 10})
    large = run_on(tmp_path / "large", 4, 50, 300.0, {"tokens": 1000, "samples": 10})
    found = against(large, small)
    assert found.work == "tokens"
    assert found.speed_up == pytest.approx(4 / 1.25)
    assert found.efficiency == pytest.approx(0.8)
    assert found.energy_ratio == pytest.approx(1.25)


def test_without_work_equal_work_is_assumed_and_said(tmp_path: Path) -> None:
    small, large = run_on(tmp_path / "small", 1, 60, 300.0), run_on(tmp_path / "large", 2, 40, 300.0)
    found = against(large, small)
    assert (found.work, found.speed_up) == ("", pytest.approx(1.5))
    assert found.assumed == ["both runs did the same work: neither tells what it did"]


def test_without_ranks_hosts_are_counted(tmp_path: Path) -> None:
    small = run_on(tmp_path / "small", 2, 60, 300.0, rank=False)
    large = run_on(tmp_path / "large", 3, 40, 300.0, rank=False)
    found = against(large, small)
    assert (found.unit, found.smaller_n, found.n) == ("hosts", 2, 3)


def test_bounds_of_the_clocks_are_in_the_speed_up(tmp_path: Path) -> None:
    """Phases of a log, whose stamps are cut off at the millisecond."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, hosts, seconds in (("small", 1, 60), ("large", 2, 40)):
        session = run_on(tmp_path / name, hosts, seconds, 300.0)
        log = session / "logs/log.txt"
        log.parent.mkdir()
        lines = [(ORIGIN_NS + S, "run_start"), (ORIGIN_NS + (seconds + 1) * S, "run_stop")]
        entries = [
            {"namespace": "", "time_ms": t_ns // 1_000_000, "event_type": "", "key": key, "value": None, "metadata": {}}
            for t_ns, key in lines
        ]
        log.write_text("".join(f":::MLLOG {json.dumps(entry)}\n" for entry in entries))
        at = ORIGIN_NS + S * pa.array(range(seconds + 3)).to_numpy()
        pairs = {"monotonic_ns": at, "wall_ns": at, "bracket_ns": at * 0}
        pq.write_table(pa.table(pairs), session / "traces/clock.parquet")
        manifest = load_manifest(session)
        host = msgspec.structs.replace(manifest.hosts[0], clock_file="traces/clock.parquet")
        source = msgspec.structs.replace(manifest.phase_sources[0], kind="mllog", file="logs/log.txt")
        manifest = msgspec.structs.replace(manifest, hosts=[host, *manifest.hosts[1:]], phase_sources=[source])
        store_manifest(session, manifest)
        write_results(session)
    found = against(tmp_path / "large", tmp_path / "small")
    assert found.unit == "hosts" and found.speed_up == pytest.approx(1.5)
    u_s = [2 * 1e-3 / math.sqrt(3) * math.sqrt(2)] * 2  # two edges, each within 1 ms
    assert found.speed_up_expanded == pytest.approx(1.5 * math.hypot(u_s[0] / 60, u_s[1] / 40), rel=1e-6)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    plain, large = run_on(tmp_path / "plain", 1, 60, 300.0), run_on(tmp_path / "large", 2, 40, 300.0)
    refused(large, large, "the session itself")
    refused(plain, large, "wants a run on fewer")
    refused(large, tmp_path / "none", "summary.json cannot be read: .*power-director report")
    working = run_on(tmp_path / "working", 1, 60, 300.0, {"samples": 5})
    refused(large, working, "tells samples in phase run, and the other run does not")
    refused(large, run_on(tmp_path / "epochs", 1, 60, 300.0, phase="epoch"), "energy of its command, .* of its run")
    failed = tmp_path / "failed"
    shutil.copytree(plain, failed)
    manifest = load_manifest(failed)
    assert manifest.workload is not None
    workload = msgspec.structs.replace(manifest.workload, exit_code=1)
    store_manifest(failed, msgspec.structs.replace(manifest, workload=workload))
    write_results(failed)
    refused(large, failed, "did not end well")
    (plain / "summary.json").write_text('{"summary_version": 1}')
    refused(large, plain, "is damaged")


def test_energies_of_different_scope_are_not_compared(tmp_path: Path) -> None:
    small = run_on(tmp_path / "small", 1, 60, 300.0, scope="gpu")
    found = against(run_on(tmp_path / "large", 2, 40, 300.0), small)
    assert found.speed_up == pytest.approx(1.5)
    assert found.energy_ratio is None
    assert found.energy_note == "the smaller run measured gpu, this one wall"


def test_energies_without_a_host_are_not_compared(tmp_path: Path) -> None:
    small, large = run_on(tmp_path / "small", 1, 60, 300.0), run_on(tmp_path / "large", 3, 40, 300.0)
    manifest = load_manifest(large)
    silent = msgspec.structs.replace(manifest.hosts[2], streams=[])
    store_manifest(large, msgspec.structs.replace(manifest, hosts=[*manifest.hosts[:2], silent]))
    found = against(large, small)
    assert found.energy_ratio is None and "hosts of which nothing was measured" in found.energy_note


def test_the_command_shows_it_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = run_on(tmp_path / "small", 1, 60, 300.0), run_on(tmp_path / "large", 2, 40, 300.0)
    assert main(["report", str(large), "--against", str(small)]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "speed-up 1.500" in shown and "parallel efficiency 0.7500" in shown and "energy ratio 1.333 ± 0.022" in shown
    assert main(["report", str(large), "--against", str(small), "--format", "md"]) == 0
    assert "## Against a smaller run" in capsys.readouterr().out
    assert "Against a smaller run" in (large / "report.html").read_text()
    assert main(["report", str(large), "--quiet"]) == 0  # without the question, without the answer
    assert "scaling" not in (large / "summary.json").read_text()


def test_a_series_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = made_series(tmp_path / "series")
    assert main(["report", str(series), "--against", str(tmp_path)]) == 2
    assert "name one of them" in capsys.readouterr().err
