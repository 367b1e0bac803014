"""MLPerf power results in which an audit finds nothing, to plant one fault into."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

from made_power_session import START, made_run, stamp
from made_training import START_MS, line, power_text, result_text

from director.mlperf.audit.findings import Finding
from director.mlperf.audit.inference import audit_session
from director.mlperf.audit.training import audit_benchmark
from director.mlperf.finding import TrainingBenchmark, Unreadable, find
from director.mlperf.inference.checker_versions import checker_of_round

RUN_S = 300
SESSION = "made"
_TESTING_AT_S = 980  # after ranging
_REQUIRED = ("power/client.log", "power/ptd_logs.txt", "power/server.log")
NODE = "power/result_0/node_0.txt"


def node_watts(t_ms: float) -> float:
    """What a node draws: no two readings in a row alike, and a shape that tells a clock."""
    t = (t_ms - START_MS) / 1000
    return 5000 + 400 * math.sin(t / 7) + 200 * math.sin(t / 3.1) + 50 * math.sin(t * t)


def node_text(shift_ms: float = 0.0, *, runs_at: float = START_MS) -> str:
    """A node's log around a run that starts at an instant."""
    times = [runs_at - 2000 + 1000 * second for second in range(RUN_S + 5)]
    return power_text(times, lambda t: node_watts(t - shift_ms), start_ms=times[0], stop_ms=times[-1], efficiency=0.95)


def made_benchmark(folder: Path, nodes: int = 4) -> Path:
    """Two runs of a benchmark, an hour apart; the interconnect's power is stated."""
    for number in range(2):
        start = START_MS + number * 3_600_000
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"result_{number}.txt").write_text(result_text(start, RUN_S / 60))
        power = folder / "power" / f"result_{number}"
        power.mkdir(parents=True)
        for node in range(nodes):
            (power / f"node_{node}.txt").write_text(node_text(runs_at=start))
        (power / "sw_0.txt").write_text(line("interconnect_power_est", start, 800))
    return folder


def made_session(folder: Path) -> Path:
    """A session of round 4.1: a WT330E at 300 V and 5 A, loads of 620 s. Files are sealed."""
    for run, at in (("ranging", 0), ("run_1", _TESTING_AT_S)):
        made_run(
            folder / run, lambda t: 270 + 5 * math.sin(t), begin_s=at + 20, end_s=at + 640, length_s=660, clock_s=at
        )
        (folder / run / "mlperf_log_summary.txt").write_text("made\n")
    power = folder / "power"
    power.mkdir()
    for name in ("client.log", "server.log"):
        (power / name).write_text("made\n")
    (power / "ptd_logs.txt").write_text(
        f"{stamp(-60)}: Uncertainty checking for YokogawaWT330E is activated\n"
        f"{stamp(1)}: Go with mark '{SESSION}_ranging'\n"
        f"{stamp(655)}: Completed test\n"
        f"{stamp(_TESTING_AT_S + 1)}: Go with mark '{SESSION}_testing'\n"
        f"{stamp(_TESTING_AT_S + 655)}: Completed test\n"
    )
    version = checker_of_round("4.1")
    assert version is not None
    zero = (START - type(START)(1970, 1, 1)).total_seconds()
    phases = {
        name: [[zero + at + edge, 1000.0 + at + edge] for edge in (0.5, 10.0, 650.0, 660.0)]
        for name, at in (("ranging", 0), ("testing", _TESTING_AT_S))
    }
    commands = [
        ("Identify", "YokogawaWT330E,1000,1,version=1.10.0-made"),
        ("SR,V,Auto", "Range V changed"),
        ("SR,A,Auto", "Range A changed"),
        (f"Go,1000,0,{SESSION}_ranging", "Starting"),
        ("SR,V,231.000000", "Range V changed"),
        ("SR,A,2.100000", "Range A changed"),
        (f"Go,1000,0,{SESSION}_testing", "Starting"),
    ]
    messages = [{"cmd": command, "reply": reply} for command, reply in commands]
    shared = {
        "timezone": 0,
        "sources": dict(version.sources[0]),
        "session_name": SESSION,
        "phases": phases,
        "results": {},
    }
    for name, own in (("client", {}), ("server", {"ptd_messages": messages})):
        (power / f"{name}.json").write_text(json.dumps({**shared, **own}, indent=1))
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    """Record the checksums of the files as they are."""
    files = [folder / name for name in _REQUIRED]
    files += [folder / run / name for run in ("ranging", "run_1") for name in _OF_RUN]
    results = {
        str(file.relative_to(folder)): hashlib.sha1(file.read_bytes()).hexdigest() for file in files if file.is_file()
    }
    for name in ("client", "server"):
        path = folder / "power" / f"{name}.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "results": results}, indent=1))


_OF_RUN = ("mlperf_log_detail.txt", "mlperf_log_summary.txt", "spl.txt")


def audited(folder: Path) -> list[Finding]:
    (found,) = find([folder])
    assert not isinstance(found, Unreadable)
    return audit_benchmark(found) if isinstance(found, TrainingBenchmark) else audit_session(found)


def readings(edit: Callable[[list[str]], object]) -> Callable[[Path], None]:
    """Edits the list of reading lines of a node; the first is line 3 of its log."""

    def apply(folder: Path) -> None:
        lines = (folder / NODE).read_text().splitlines(keepends=True)
        head, own, tail = lines[:2], lines[2:-1], lines[-1:]
        edit(own)
        (folder / NODE).write_text("".join([*head, *own, *tail]))

    return apply


def with_value(at: int, watts: float) -> Callable[[list[str]], None]:
    def edit(own: list[str]) -> None:
        own[at] = re.sub(r'"value": [-\d.]+', f'"value": {watts}', own[at])

    return edit
