"""Exports: figures in closed form, the official package run unmodified as processes, and what is refused."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
import pytest
from golden_inference import GOLDEN, needs_golden
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_session import HOST, WALL_ORIGIN_NS, made_clock, made_manifest, made_stream
from made_training import result_text

from director.answers.results import write_results
from director.cli import main
from director.mlperf.export.ptd_messages import last_session, read_messages
from director.mlperf.inference.checker_versions import checker_of_round
from director.mlperf.inference.official_checks import official_checks
from director.mlperf.inference.power_logs import average_watts, load_times
from director.mlperf.text_blocks import NoLog
from director.mlperf.training.run_score import score_run
from director.session.manifest import PhaseSource
from drivers.contract import Accuracy, Channel, Status

NS = 1_000_000_000
ORIGIN_MS = WALL_ORIGIN_NS // 1_000_000
METER = Channel(
    name="meter/wall/power",
    device="wall",
    quantity="power",
    unit="W",
    kind="gauge",
    scope="wall",
    model="made meter",
    update_period_s=1.0,
    stamped=True,
    window_s=1.0,
    accuracy=Accuracy(reading_fraction=0.001, source="its data sheet"),
)


def busy_watts(start_s: float, stop_s: float, length_s: int) -> np.ndarray:
    """Means over each second before 0 … length_s: 500 W between start and stop, else 100 W."""
    ends = np.arange(length_s + 1.0)
    busy = np.clip(np.minimum(ends, stop_s) - np.maximum(ends - 1, start_s), 0, 1)
    return 100.0 + 400.0 * busy


def training(
    session: Path,
    start_s: float = 20.0,
    run_s: float = 75.0,
    *,
    watts: np.ndarray | None = None,
    channel: Channel = METER,
    statuses: np.ndarray | None = None,
    length_s: int = 120,
    result: str | None = None,
) -> Path:
    """A training that draws 500 W from `start_s` for `run_s`, metered once a second."""
    t_ns = np.arange(length_s + 1, dtype=np.int64) * NS
    drawn = busy_watts(start_s, start_s + run_s, length_s) if watts is None else watts
    masks = None if statuses is None else [statuses]
    file = made_stream(session, [channel], t_ns, [drawn], rate_hz=1.0, statuses=masks)
    (session / "logs").mkdir()
    text = result_text(ORIGIN_MS + start_s * 1000, run_s / 60) if result is None else result
    (session / "logs" / "mllog").write_text(text)
    sources = [PhaseSource(kind="mllog", file="logs/mllog")]
    clock = made_clock(session, 0, length_s * NS)
    made_manifest(session, [file], (0, length_s * NS), phase_sources=sources, clock_file=clock)
    write_results(session)
    return session


def export(output: Path, form: str, *sessions: Path, options: Sequence[str] = ()) -> int:
    return main(["export", *map(str, sessions), "--format", form, "--output", str(output), *options])


def events(path: Path) -> list[dict[str, object]]:
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in path.read_text().splitlines()]


OFFICIAL = """
import json, runpy, sys
submission, folder = sys.argv[1:]
sys.argv = ["package_checker", submission, "training", "6.1.0"]
runpy.run_module("mlperf_logging.package_checker", run_name="__main__")
from mlperf_logging.result_summarizer import result_summarizer as s
scores = s._compute_strong_score_standalone(
    "llama2_70b_lora", "made", True, folder, "training", "6.1.0", return_full_scores=True)
print(json.dumps({**{k.split("/")[-1][:-4]: v for k, v in scores[1].items()}, "score": scores[3]}))
"""


def test_the_official_package_accepts_and_scores_a_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = [75.0 + n for n in range(10)]
    series = tmp_path / "series"
    for number, length in enumerate(lengths):
        training(series / f"run-{number:03d}", run_s=length)
    runs = [{"directory": f"run-{n:03d}", "status": 0} for n in range(10)]
    told = {"schema_version": 1, "command": ["job"], "created_wall_ns": 1, "planned": 10, "runs": runs}
    (series / "series.json").write_text(json.dumps(told))
    submission = tmp_path / "made"
    folder = submission / "results" / "made" / "llama2_70b_lora"
    options = ["--conversion-efficiency", "0.9", "--interconnect-watts", "40"]
    assert export(folder, "mlperf-training", series, options=options) == 0
    said = capsys.readouterr().out
    assert "does not count" not in said and said.count("difference +0.000%") == 10 and "ESTIMATE" in said

    if importlib.util.find_spec("mlperf_logging") is None:
        pytest.skip("mlperf-logging is not installed")
    (submission / "benchmarks").mkdir()
    (submission / "systems").mkdir()
    system = dict.fromkeys(system_fields(), "1") | {"division": "open", "status": "Available on-premise"}
    (submission / "systems" / "made.json").write_text(json.dumps(system))
    command = [sys.executable, "-c", OFFICIAL, str(submission), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "PACKAGE CHECKER FOUND NO ERRORS, SUCCESS" in ended.stderr, ended.stderr[-2000:]
    joules = next(json.loads(text) for text in ended.stdout.splitlines() if text.startswith('{"result_'))
    for number, length in enumerate(lengths):  # the edges lie on readings: 500 W × T × 0.9, and 40 W × T
        assert joules[f"result_{number}"] == pytest.approx((500 * 0.9 + 40) * length, rel=1e-12)
    assert joules["score"] == pytest.approx((500 * 0.9 + 40) * 79.5, rel=1e-12)  # the mean of 76 … 83 s


def system_fields() -> list[str]:
    """What the official checker of system descriptions asks for."""
    text = (files("mlperf_logging.system_desc_checker") / "system_desc_checker.py").read_text()
    return re.findall(r'"([\w-]+)"', text.split("required_fields = [")[1])


def test_the_log_covers_the_run_and_no_more_and_the_difference_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = training(tmp_path / "session", start_s=20.5)
    assert export(tmp_path / "out", "mlperf-training", session) == 0
    found = events(tmp_path / "out" / "power" / "result_0" / "node_0.txt")
    assert found[0]["key"] == "power_measurement_start" and found[0]["time_ms"] == ORIGIN_MS + 20_000
    assert found[-1]["key"] == "power_measurement_stop" and found[-1]["time_ms"] == ORIGIN_MS + 96_000
    assert {event["key"] for event in found[1:-1]} == {"power_reading"}  # no efficiency is assumed
    # readings 300 W, 74 × 500 W, 300 W stand for 76 s, the run lasts 75 s
    joules = 37_600 * 75 / 76
    score = score_run(tmp_path / "out" / "result_0.txt", tmp_path / "out" / "power" / "result_0", ("6.1",))["6.1"]
    assert score.official_joules == pytest.approx(joules, rel=1e-12) and score.is_official
    summary = msgspec.json.decode((session / "summary.json").read_bytes())
    physical = next(phase for phase in summary["phases"] if phase["name"] == "run")["total"]["joules"]
    assert f"difference {joules / physical - 1:+.3%}" in capsys.readouterr().out


def gap(first: int, last: int, length_s: int = 120) -> np.ndarray:
    statuses = np.full(length_s + 1, Status.NEW, dtype=np.uint8)
    statuses[first:last] = Status.MISSING
    return statuses


REFUSED = {
    "estimate": ({"channel": msgspec.structs.replace(METER, estimate=True)}, "ESTIMATE"),
    "part of a machine": ({"channel": msgspec.structs.replace(METER, scope="gpu", device="gpu0")}, "whole machine"),
    "gap": (
        {"run_s": 400.0, "length_s": 450, "statuses": gap(40, 43, 450)},
        "4.0 s without a reading, 2.5 s are allowed",
    ),
    "coverage": ({"statuses": gap(40, 50)}, "readings are missing"),
    "short": ({"run_s": 50.0}, "60 are needed"),
    "late": ({"run_s": 101.0}, "no reading after run_stop"),
    "no end": (
        {"result": result_text(ORIGIN_MS + 20_000, 1.25).split("run_stop")[0].rpartition("\n")[0]},
        "did not end",
    ),
    "two runs": ({"result": result_text(ORIGIN_MS + 20_000, 1.25) * 2}, "several run_start"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_honest_is_refused_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, why = REFUSED[name]
    session = training(tmp_path / "session", **made)  # type: ignore[arg-type]
    assert export(tmp_path / "out", "mlperf-training", session) == 1
    assert why in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["session"]


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = training(tmp_path / "session")
    (tmp_path / "out").mkdir()
    assert export(tmp_path / "out", "csv", session) == 1
    assert "nothing is ever overwritten" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "new.part").mkdir()
    assert export(tmp_path / "new", "csv", session) == 1
    assert export(tmp_path / "x", "mlperf-training", session, session) == 1
    assert "named twice" in capsys.readouterr().err
    assert export(tmp_path / "x", "mlperf-inference", session, session.parent) == 1
    assert "needs PTDaemon" in capsys.readouterr().err
    assert export(tmp_path / "x", "csv", session, options=["--rules", "6.1"]) == 2
    assert export(tmp_path / "x", "csv", tmp_path) == 2


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_hold_every_reading_and_no_zero_for_a_missing_one(tmp_path: Path, form: str) -> None:
    estimate = msgspec.structs.replace(METER, estimate=True)
    session = training(tmp_path / "session", channel=estimate, statuses=gap(2, 3))
    assert export(tmp_path / "out", form, session) == 0
    path = tmp_path / "out" / "session" / f"{HOST}.made.g0.{form}"
    if form == "csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        missing = ""
    else:
        import pyarrow.parquet as pq

        rows, missing = pq.read_table(path).to_pylist(), None
    column = "meter/wall/power [W] ESTIMATE"
    assert len(rows) == 121
    assert rows[2][column] == missing and rows[2]["meter/wall/power status"] == "missing"
    assert float(rows[30][column]) == 500 and int(rows[30]["wall_ns"]) == WALL_ORIGIN_NS + 30 * NS
    assert (tmp_path / "out" / "session" / f"energies.{form}").is_file()


def test_the_description_names_meters_rates_and_what_is_estimated(tmp_path: Path) -> None:
    odd = msgspec.structs.replace(METER, model="a | *b*\nc", estimate=True)
    session = training(tmp_path / "session", channel=odd)
    assert export(tmp_path / "out", "power-description", session) == 0
    page = (tmp_path / "out" / "session" / "power-description.md").read_text()
    assert "| meter/wall/power | a \\| \\*b\\* c, ESTIMATE | wall | 1 | ±0.1 % of reading (its data sheet) |" in page
    assert "ESTIMATE: nothing here was measured" in page and "| run | 75.000 |" in page


IDENTITY = "YokogawaWT310E,1000,1,1,1,1,0,0,1,version=1.11.1-0a1b2c3d-20240101,OS=Linux,mode=power"
PTD = ["--ptd-command", "ptd -l ptd.log -p 8888 49 /dev/ttyUSB0"]


def wall_stamp(second: float) -> str:
    at = datetime.fromtimestamp(WALL_ORIGIN_NS // NS + second, timezone.utc)
    return f"{at:%m-%d-%Y %H:%M:%S}.{at.microsecond // 1000:03d}"


def ptd_log(path: Path, began_s: Sequence[float] = (1, 1001), identity: str = IDENTITY) -> Path:
    """What PTDaemon logs of a session "made": ranging and testing of 160 s, the initial ranges set again."""
    sent = "Response to client sent: "
    steps = [(0.0, "Uncertainty checking for YokogawaWT310E is activated"), (0.1, f"{sent}Hello, PTDaemon here!")]
    steps += [(0.2, f"{sent}{identity}"), (0.3, f"{sent}Ranges,0,5.000000,0,300.000000")]
    for stage, at, ranges in (("ranging", began_s[0], ("Auto", "Auto")), ("testing", began_s[1], ("300.0V", "5.0A"))):
        steps += [(at - 0.4, f"Volt range set to {ranges[0]}"), (at - 0.3, f"{sent}Range V changed")]
        steps += [(at - 0.2, f"Amp range set to {ranges[1]}"), (at - 0.1, f"{sent}Range A changed")]
        steps += [(at, f"Go with mark 'made_{stage}'")]
        steps += [(at, f"{sent}Starting untimed measurement, maximum 500000 samples at 1000ms with 0 rampup samples")]
        steps += [(at + 160, f"{sent}Stopping untimed measurement"), (at + 160.5, "Completed test")]
    end = began_s[1] + 162
    steps += [(end, "Volt range set to 300.000000V"), (end, f"{sent}Range V changed")]
    steps += [(end, "Amp range set to 5.000000A"), (end, f"{sent}Range A changed")] * 2  # as newer scripts do
    path.write_text("".join(f"{wall_stamp(at)}: {text}\n" for at, text in steps))
    return path


def stage(session: Path, begin_s: int, watts: float, *, missing: int | None = None, summary: bool = True) -> Path:
    """A stage of 160 s that draws constant power; its load lasts from its second 20 to its second 140."""
    t_ns = (begin_s + np.arange(161, dtype=np.int64)) * NS
    statuses = np.full(161, Status.NEW, dtype=np.uint8)
    if missing is not None:
        statuses[missing : missing + 1] = Status.MISSING
    file = made_stream(session, [METER], t_ns, [np.full(161, watts)], rate_hz=1.0, statuses=[statuses])
    logs = session / "logs"
    logs.mkdir()
    told = {"effective_scenario": "Offline", "result_samples_per_second": 10.0}
    told |= {"power_begin": wall_stamp(begin_s + 20.5), "power_end": wall_stamp(begin_s + 140.5)}
    entries = [{"key": key, "value": value, "time_ms": 1.0, "metadata": {}} for key, value in told.items()]
    (logs / "mlperf_log_detail.txt").write_text("".join(f":::MLLOG {json.dumps(entry)}\n" for entry in entries))
    if summary:
        (logs / "mlperf_log_summary.txt").write_text("made\n")
    sources = [PhaseSource(kind="loadgen", file="logs/mlperf_log_detail.txt", origin=str(session / "gone"))]
    clock = made_clock(session, begin_s * NS, (begin_s + 160) * NS)
    made_manifest(session, [file], None, phase_sources=sources, clock_file=clock)
    return session


@pytest.mark.parametrize("ptd,round_name", [("1.11.1", "6.1"), ("1.10.0", "4.1"), ("1.9.2", "2.1")])
def test_a_made_measurement_fails_the_checks_of_the_scripts_alone(tmp_path: Path, ptd: str, round_name: str) -> None:
    sessions = [stage(tmp_path / "a", 0, 400.0), stage(tmp_path / "b", 1000, 410.5, missing=50)]
    log = ptd_log(tmp_path / "ptd.log", identity=IDENTITY.replace("1.11.1", ptd))
    out = tmp_path / "out"
    assert export(out, "mlperf-inference", *sessions, options=["--ptd-log", str(log), *PTD]) == 0
    version = checker_of_round(round_name)
    assert version is not None
    failed = [result.name for result in official_checks(out, version) if result.outcome == "FAIL"]
    assert failed == ["Check client sources checksum", "Check server sources checksum"]
    assert average_watts(out / "run_1", *load_times(out / "run_1", 0)) == 410.5
    samples = (out / "run_1" / "spl.txt").read_text().splitlines()
    unknown = "Volts,-1.000000,Amps,-1.000000,PF,-1.000000"
    assert samples[50] == f"Time,{wall_stamp(1050)},Watts,-2.000000,{unknown},Mark,made_testing"
    assert "strict: Loads last ten minutes" in (out / "EXPORT.md").read_text()
    assert "power-director" in json.loads((out / "power" / "server.json").read_text())["exported_by"]


def test_an_inference_folder_without_its_evidence_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranging, testing = stage(tmp_path / "a", 0, 400.0), stage(tmp_path / "b", 1000, 410.0)
    good = ptd_log(tmp_path / "ptd.log")
    cases: list[tuple[list[Path], Path, str, str]] = [
        ([ranging], good, PTD[1], "name two sessions"),
        (
            [ranging, stage(tmp_path / "c", 1000, 410.0, summary=False)],
            good,
            PTD[1],
            "mlperf_log_summary.txt of this run",
        ),
        ([ranging, stage(tmp_path / "d", 1000, 379.0)], good, PTD[1], "5.25 % less than ranging"),
        ([ranging, testing], ptd_log(tmp_path / "hour", (3601, 4601)), PTD[1], "its clock is not UTC"),
        ([ranging, testing], ptd_log(tmp_path / "new", identity="X,version=1.12.0-a"), PTD[1], "PTDaemon 1.12.0"),
        ([ranging, testing], good, "ptd -p 8888 8 /dev/ttyUSB0", "YokogawaWT310E, number 49"),
        ([ranging, testing], tmp_path / "none.log", PTD[1], "none.log"),
        ([ranging, training(tmp_path / "t")], good, PTD[1], "has no log of LoadGen"),
    ]
    for sessions, log, command, why in cases:
        options = ["--ptd-log", str(log), "--ptd-command", command]
        assert export(tmp_path / "out", "mlperf-inference", *sessions, options=options) == 1
        assert why in capsys.readouterr().err
        assert not list(tmp_path.glob("out*"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=12)), max_size=4))
def test_a_damaged_log_of_ptdaemon_raises_what_is_told(tmp_path: Path, damage: list[tuple[int, bytes]]) -> None:
    raw = bytearray(ptd_log(tmp_path / "log").read_bytes())
    for place, content in damage:
        raw[place : place + len(content)] = content
    (tmp_path / "damaged").write_bytes(raw)
    try:
        messages = read_messages(tmp_path / "damaged")
    except (NoLog, ValueError):
        return
    name, mine = last_session(messages)
    assert bool(name) == bool(mine) and len(mine) <= len(messages) <= 15


V41 = "v41-untether-resnet50-singlestream"


def measured(tmp_path: Path, golden: Path) -> list[Path]:
    """Both stages of a published session, its samples replayed through sampler, spool and store."""
    for run in ("ranging", "run_1"):
        command = [sys.executable, "-m", "director.cli", "run", "--quiet", "--output", str(tmp_path / run)]
        command += ["--replay", str(golden / run / "spl.txt"), "--replay-speed", "1000"]
        command += ["--loadgen", str(golden / run / "mlperf_log_detail.txt")]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return [tmp_path / "ranging", tmp_path / "run_1"]


@needs_golden
def test_an_inference_folder_fails_the_official_checks_of_the_scripts_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = GOLDEN / "sessions" / V41
    sessions = measured(tmp_path, golden)
    command = "ptd-linux-x86 -l ptd.log -p 8888 8 /dev/ttyUSB0"
    ptd = ["--ptd-log", str(golden / "power" / "ptd_logs.txt"), "--ptd-command", command]
    out = tmp_path / "performance"
    assert export(out, "mlperf-inference", *sessions, options=ptd) == 0, capsys.readouterr().err
    assert "The official client.py and server.py did not run" in (out / "EXPORT.md").read_text()
    version = checker_of_round("4.1")
    assert version is not None
    failed = [result.name for result in official_checks(out, version) if result.outcome == "FAIL"]
    assert failed == ["Check client sources checksum", "Check server sources checksum"]
    for run in ("ranging", "run_1"):
        load = load_times(golden / run, 0)
        assert average_watts(out / run, *load) == average_watts(golden / run, *load)
    capsys.readouterr()
    assert export(tmp_path / "x", "mlperf-inference", *reversed(sessions), options=ptd) == 1
    assert "ranging comes first" in capsys.readouterr().err
    other = GOLDEN / "sessions" / "v41-h200x8-resnet50-offline" / "power" / "ptd_logs.txt"
    assert export(tmp_path / "x", "mlperf-inference", *sessions, options=["--ptd-log", str(other), *ptd[2:]]) == 1
    assert "the log of another measurement" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@needs_golden
@pytest.mark.parametrize("name", [V41, "v41-h200x8-resnet50-offline", "v10-agx-bert-singlestream"])
def test_messages_read_back_are_those_that_the_official_server_noted(name: str) -> None:
    power = GOLDEN / "sessions" / name / "power"
    server = json.loads((power / "server.json").read_text())
    found, messages = last_session(read_messages(power / "ptd_logs.txt"))
    assert found == server["session_name"]

    def unranged(cmd: str) -> str:
        return (
            cmd if not cmd.startswith("SR,") or cmd.endswith("Auto") else cmd[:5]
        )  # set to a range, asked for a value

    noted = [(unranged(m["cmd"]), m["reply"].rstrip()) for m in server["ptd_messages"]]
    assert [(unranged(m.cmd), m.reply) for m in messages] == noted
