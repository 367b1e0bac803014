"""Every rule of the audit on results with one planted fault and on clean ones, on published results, and on damage."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_audit import RUN_S, made_benchmark, made_session, node_text, seal
from made_power_session import stamp
from made_training import START_MS, line, power_text

from director.cli import main
from director.mlperf.audit.audit_command import audit_one
from director.mlperf.audit.audited import Audited
from director.mlperf.audit.findings import RULES, Finding
from director.mlperf.audit.inference import audit_session
from director.mlperf.audit.training import audit_benchmark
from director.mlperf.audit.uncertainty import ranges_of, read_channels, uncertainties
from director.mlperf.finding import TrainingBenchmark, Unreadable, find

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden logs (../shared/golden) are not here")
DOCS = Path(__file__).parents[2] / "docs" / "mlperf" / "audit.md"
NODE = "power/result_0/node_0.txt"


def audited(folder: Path) -> list[Finding]:
    (found,) = find([folder])
    assert not isinstance(found, Unreadable)
    return audit_benchmark(found) if isinstance(found, TrainingBenchmark) else audit_session(found)


# ---- training


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    return made_benchmark(tmp_path / "acme" / "results" / "big" / "llama2_70b_lora")


def test_nothing_is_found_in_clean_results(benchmark: Path, tmp_path: Path) -> None:
    assert audited(benchmark) == []
    assert audited(made_session(tmp_path / "session")) == []


def readings(edit: Callable[[list[str]], object]) -> Callable[[Path], None]:
    """Edits the list of reading lines of a node; the first is line 3 of its log."""

    def apply(folder: Path) -> None:
        lines = (folder / NODE).read_text().splitlines(keepends=True)
        head, own, tail = lines[:2], lines[2:-1], lines[-1:]
        edit(own)
        (folder / NODE).write_text("".join([*head, *own, *tail]))

    return apply


def reading(second: float, watts: float) -> str:
    return line("power_reading", START_MS + round(1000 * second), watts)


def with_value(at: int, watts: float) -> Callable[[list[str]], None]:
    def edit(own: list[str]) -> None:
        own[at] = re.sub(r'"value": [-\d.]+', f'"value": {watts}', own[at])

    return edit


def frozen(own: list[str]) -> None:
    for at in range(50, 120):
        with_value(at, 4321.0)(own)


def stalled(own: list[str]) -> None:
    """Readings of 4 s come within 0.3 s at their end."""
    for at, second in ((102, 103.7), (103, 103.8), (104, 103.9)):
        own[at] = re.sub(r'"time_ms": \d+', f'"time_ms": {START_MS - 2000 + round(second * 1000)}', own[at])


def edited(path: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new))

    return apply


def written(path: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_text(text) and None


def for_all_nodes(text: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for path in (folder / "power/result_0").glob("node_*.txt"):
            path.write_text(text)

    return apply


def removed(*paths: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for path in paths:
            (folder / path).unlink()

    return apply


def slow_logger(folder: Path) -> None:
    times = [START_MS - 2000 + 2000 * at for at in range(RUN_S // 2 + 3)]
    text = power_text(times, lambda t: 5000 + t % 7, start_ms=times[0], stop_ms=times[-1], efficiency=0.95)
    (folder / NODE).write_text(text)


def too_few(folder: Path) -> None:
    """A run of 40 s in a log of 45 readings."""
    for number in range(2):
        start = START_MS + number * 3_600_000
        result = folder / f"result_{number}.txt"
        text = result.read_text()
        result.write_text(text.replace(str(start + RUN_S * 1000), str(start + 40_000)))
        times = [start - 2000 + 1000 * second for second in range(45)]
        log = power_text(times, lambda t: 5000 + t / 1000 % 7, start_ms=times[0], stop_ms=times[-1], efficiency=0.95)
        for path in (folder / f"power/result_{number}").glob("node_*.txt"):
            path.write_text(log)


def padded(margin_s: int, idle: float) -> str:
    times = [START_MS - 1000 * margin_s + 1000 * second for second in range(RUN_S + 2 * margin_s + 1)]

    def watts(t: float) -> float:
        return (5000 if START_MS < t <= START_MS + 1000 * RUN_S else idle) + t / 1000 % 7

    return power_text(times, watts, start_ms=times[0], stop_ms=times[-1], efficiency=0.95)


def shifted(ms: float) -> str:
    return re.sub(r'"time_ms": (\d+)', lambda m: f'"time_ms": {int(m[1]) + round(ms)}', node_text())


def systems_file(folder: Path) -> None:
    systems = folder.parents[2] / "systems"
    systems.mkdir()
    (systems / "big.json").write_text(json.dumps({"number_of_nodes": "5"}))


STOP_MS = START_MS + RUN_S * 1000
SWITCH = "power/result_0/sw_0.txt"
SECONDS = [START_MS + 1000 * second for second in range(RUN_S)]
TRAINING: list[tuple[str, str, Callable[[Path], None], tuple[str | None, int | None]]] = [
    ("rate", "error", slow_logger, (NODE, None)),
    ("uneven", "warning", readings(lambda own: own.pop(100)), (NODE, 103)),
    ("gap", "warning", readings(lambda own: own.__delitem__(slice(100, 103))), (NODE, 103)),
    ("gap", "error", readings(lambda own: own.__delitem__(slice(100, 110))), (NODE, 103)),
    ("stall", "warning", readings(stalled), (NODE, 105)),
    ("frozen", "warning", readings(frozen), (NODE, 53)),
    ("repeated-stamps", "warning", readings(lambda own: own.insert(100, own[100])), (NODE, 104)),
    ("backward-stamps", "warning", readings(lambda own: own.insert(100, own.pop(101))), (NODE, 104)),
    ("non-positive", "error", readings(with_value(100, -43)), (NODE, 103)),
    ("non-positive", "warning", readings(with_value(0, 0)), (NODE, 3)),
    ("unreadable-lines", "error", readings(lambda own: own.insert(9, ":::MLLOG {\n")), (NODE, 12)),
    ("run-times", "error", edited("result_0.txt", '"run_stop"', '"run_end"'), ("result_0.txt", None)),
    ("window-lines", "error", edited(NODE, "power_measurement_stop", "power_measurement_end"), (NODE, None)),
    (
        "window-lines",
        "error",
        edited(
            NODE,
            f'"time_ms": {STOP_MS + 2000}, "event_type": "INTERVAL_END", "key": "power_measurement_stop"',
            f'"time_ms": {START_MS - 2000}, "event_type": "INTERVAL_END", "key": "power_measurement_stop"',
        ),
        (NODE, RUN_S + 8),
    ),
    (
        "window-covers-run",
        "error",
        edited(
            NODE,
            f'"time_ms": {STOP_MS + 2000}, "event_type": "INTERVAL_END", "key": "power_measurement_stop"',
            f'"time_ms": {STOP_MS - 1500}, "event_type": "INTERVAL_END", "key": "power_measurement_stop"',
        ),
        (NODE, RUN_S + 8),
    ),
    ("window-dilutes", "error", for_all_nodes(padded(60, 500)), (None, None)),
    ("window-dilutes", "warning", for_all_nodes(padded(10, 3000)), (None, None)),
    ("clock-offset", "error", written(NODE, shifted(-5 * 3.6e6)), (NODE, 1)),
    ("clock-offset", "error", written(NODE, shifted(-5.5 * 3.6e6)), (NODE, 1)),
    ("clock-offset", "error", written(NODE, shifted(-700_000)), (NODE, 1)),
    ("clock-lag", "warning", written(NODE, node_text(6000.0)), (NODE, None)),
    (
        "stamp-far-off",
        "note",
        written(SWITCH, line("interconnect_power_est", START_MS - 3 * 86_400_000, 800)),
        (SWITCH, 1),
    ),
    ("power-logs-missing", "error", lambda folder: shutil.rmtree(folder / "power/result_0"), ("power/result_0", None)),
    ("node-missing", "error", removed("power/result_0/node_3.txt"), ("power/result_0", None)),
    ("node-missing", "error", systems_file, (None, None)),
    ("switch-missing", "error", removed(SWITCH), ("power/result_0", None)),
    (
        "switch-ignored",
        "error",
        written(
            SWITCH, power_text([START_MS + 1000 * s for s in range(300)], lambda t: 690 + t / 1000 % 3, efficiency=0.95)
        ),
        (SWITCH, 2),
    ),
    ("stray-power", "note", lambda folder: (folder / "power/result_9").mkdir(), ("power/result_9", None)),
    (
        "efficiency-absent",
        "warning",
        lambda folder: (
            (folder / NODE).write_text(
                "".join(row for row in (folder / NODE).read_text().splitlines(True) if "conversion_eff" not in row)
            )
            and None
        ),
        (NODE, None),
    ),
    (
        "efficiency-implausible",
        "error",
        lambda folder: (
            [
                path.write_text(path.read_text().replace('"value": 0.95', '"value": 94.0'))
                for path in (folder / "power/result_0").glob("node_*.txt")
            ]
            and None
        ),
        (None, 2),
    ),
    ("efficiency-differs", "warning", edited(NODE, '"value": 0.95', '"value": 0.91'), ("power/result_0", None)),
    ("switch-missing", "error", written(SWITCH, ""), ("power/result_0", None)),
]


@pytest.mark.parametrize(
    "rule,severity,plant,where", TRAINING, ids=[f"{case[0]}-{at}" for at, case in enumerate(TRAINING)]
)
def test_a_fault_planted_into_training_results_is_the_only_one_found(
    benchmark: Path, rule: str, severity: str, plant: Callable[[Path], None], where: tuple[str | None, int | None]
) -> None:
    plant(benchmark)
    found = audited(benchmark)
    assert {(one.rule, one.severity) for one in found} == {(rule, severity)}, found
    file, line_number = where
    if file is not None:
        assert [one.file for one in found] == [str(benchmark / file)]
    assert all(one.line == line_number for one in found)
    assert all(one.text and one.reference for one in found)


def test_a_run_of_less_than_sixty_samples(benchmark: Path) -> None:
    too_few(benchmark)
    found = audited(benchmark)
    assert Counter((one.rule, one.severity) for one in found) == {
        ("sixty-samples", "error"): 8,
        ("short-run", "note"): 2,
    }
    assert {one.value for one in found} == {45, 40.0}


def test_hours_of_an_offset_and_joules_of_a_switch_are_told(benchmark: Path) -> None:
    (benchmark / NODE).write_text(shifted(-5.5 * 3.6e6))
    (found,) = audited(benchmark)
    assert found.value == -5.5 and "-5.5 h" in found.text
    (benchmark / NODE).write_text(node_text(6000.0))
    (found,) = audited(benchmark)
    assert found.value == 6 and "behind" in found.text


# ---- inference


@pytest.fixture
def session(tmp_path: Path) -> Path:
    return made_session(tmp_path / "inference_results_v4.1" / "session")


def described(name: str, edit: Callable[[dict], object]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def apply(folder: Path) -> None:
        path = folder / "power" / f"{name}.json"
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content, indent=1))

    return apply


def sample(at: int, **fields: float) -> Callable[[Path], None]:
    """Changes fields of one testing sample; the first is line 1."""
    names = {"watts": 3, "volts": 5, "amps": 7, "pf": 9}

    def apply(folder: Path) -> None:
        path = folder / "run_1" / "spl.txt"
        lines = path.read_text().splitlines()
        parts = lines[at - 1].split(",")
        for name, value in fields.items():
            parts[names[name]] = f"{value:.6f}"
        lines[at - 1] = ",".join(parts)
        path.write_text("\n".join(lines) + "\n")

    return apply


def spl_lines(edit: Callable[[list[str]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "run_1" / "spl.txt"
        lines = path.read_text().splitlines(keepends=True)
        edit(lines)
        path.write_text("".join(lines))

    return apply


def logged(at_s: float, text: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "power" / "ptd_logs.txt"
        path.write_text(path.read_text() + f"{stamp(at_s)}: {text}\n")

    return apply


def replies(command: str, reply: str) -> Callable[[dict], object]:  # type: ignore[type-arg]
    return lambda content: content["ptd_messages"].append({"cmd": command, "reply": reply})


def set_message(old: str, new: str) -> Callable[[Path], None]:
    return edited("power/server.json", old, new)


def later(seconds: float) -> Callable[[dict], object]:  # type: ignore[type-arg]
    def edit(content: dict) -> None:  # type: ignore[type-arg]
        for phases in content["phases"].values():
            for phase in phases:
                phase[0] += seconds

    return edit


def both(edit: Callable[[dict], object]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def apply(folder: Path) -> None:
        for name in ("client", "server"):
            described(name, edit)(folder)

    return apply


def less_power(folder: Path) -> None:
    path = folder / "run_1" / "spl.txt"
    path.write_text(re.sub(r"Watts,([\d.]+)", lambda m: f"Watts,{float(m[1]) * 0.94:.6f}", path.read_text()))


def load(begin_s: float, end_s: float) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "run_1" / "mlperf_log_detail.txt"
        path.write_text(path.read_text().replace(stamp(1000), stamp(begin_s)).replace(stamp(1620), stamp(end_s)))

    return apply


def spl_hours(hours: float) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        made = re.compile(r"^Time,[^,]*", re.MULTILINE)
        path, seconds = folder / "run_1" / "spl.txt", iter(range(981, 1641))
        path.write_text(made.sub(lambda _: f"Time,{stamp(next(seconds) + hours * 3600)}", path.read_text()))

    return apply


DETAIL = "run_1/mlperf_log_detail.txt"
SPL, PTD, CLIENT, SERVER = "run_1/spl.txt", "power/ptd_logs.txt", "power/client.json", "power/server.json"
UNKNOWN = "WARNING: Uncertainty unknown for the last measurement sample!"
AUTO_REPLY = "Uncertainty,-1.0,10000000.0,0.0,660,0,0,660"
OTHER_REPLY = "Uncertainty,0.002457,0.002320,0.003377,733,0,733,0"
ABOVE = "WARNING: Uncertainty 1.51%, which is above 1.00% limit for the last sample!"
INFERENCE: list[tuple[str, str, Callable[[Path], None], str, int | str | None]] = [
    ("uneven", "warning", spl_lines(lambda own: own.pop(99)), SPL, 100),
    ("gap", "warning", spl_lines(lambda own: own.__delitem__(slice(99, 103))), SPL, 100),
    ("gap", "error", spl_lines(lambda own: own.__delitem__(slice(99, 119))), SPL, 100),
    ("repeated-stamps", "warning", spl_lines(lambda own: own.insert(99, own[99])), SPL, 101),
    ("backward-stamps", "warning", spl_lines(lambda own: own.insert(99, own.pop(100))), SPL, 101),
    ("non-positive", "error", sample(100, watts=-1), SPL, 100),
    ("non-positive", "warning", sample(3, watts=-2), SPL, 3),
    ("unreadable-lines", "error", spl_lines(lambda own: own.insert(50, "Time,yesterday\n")), SPL, 51),
    ("load-unknown", "error", load(1620, 1000), DETAIL, None),
    ("samples-cover-load", "error", spl_lines(lambda own: own.__delitem__(slice(0, 24))), SPL, 1),
    ("samples-cover-load", "error", spl_lines(lambda own: own.__delitem__(slice(634, None))), SPL, 634),
    ("short-duration", "error", load(1000, 1590.5), DETAIL, None),
    (
        "durations-differ",
        "warning",
        lambda f: edited("ranging/mlperf_log_detail.txt", stamp(640), stamp(590))(f),
        "run_1/mlperf_log_detail.txt",
        None,
    ),
    ("testing-below-ranging", "error", less_power, SPL, None),
    ("clock-offset", "error", spl_hours(2), SPL, 1),
    ("clock-offset", "error", spl_hours(0.3), SPL, 1),
    ("clock-skew", "error", described("server", later(0.9)), CLIENT, None),
    ("uncertainty", "error", sample(100, amps=0.2), SPL, 100),
    ("uncertainty-warned", "error", logged(1100, ABOVE), PTD, 6),
    (
        "uncertainty-warned",
        "error",
        logged(1100, UNKNOWN),
        PTD,
        6,
    ),
    (
        "uncertainty-reported",
        "error",
        described("server", replies("Uncertainty", "Uncertainty,-1.0,10000000.0,0.0,660,0,0,660")),
        SERVER,
        "Uncertainty,-1",
    ),
    (
        "uncertainty-disagrees",
        "warning",
        described("server", replies("Uncertainty", "Uncertainty,0.002457,0.002320,0.003377,733,0,733,0")),
        SERVER,
        None,
    ),
    ("uncertainty-not-activated", "error", edited(PTD, "is activated", "is off"), PTD, None),
    ("auto-range", "error", set_message("SR,A,2.100000", "SR,A,Auto"), SERVER, 92),
    ("range-clipping", "warning", sample(100, amps=5.5), SPL, 100),
    ("range-clipping", "error", sample(100, amps=6.6), SPL, 100),
    ("range-clipping", "error", logged(1100, "ERROR: Current appears to be too high for set range"), PTD, 6),
    ("ptd-errors", "error", logged(2000, "ERROR: Lost the meter"), PTD, 6),
    ("ptd-version", "error", set_message("version=1.10.0", "version=1.12.0"), SERVER, "Identify"),
    ("uncertainty-not-recomputed", "note", set_message("SR,A,2.100000", "SR,A,99.000000"), SPL, None),
    ("clock-offset", "warning", both(later(-3600)), CLIENT, None),
    ("clock-offset", "error", both(later(-7200)), CLIENT, None),
    ("clock-offset", "error", both(later(300)), CLIENT, None),
    ("checksum", "error", described("client", lambda c: c["results"].update({SPL: "0" * 40})), CLIENT, SPL),
    ("file-missing", "error", removed("ranging/mlperf_log_summary.txt"), "ranging/mlperf_log_summary.txt", None),
    ("file-missing", "error", removed(PTD), PTD, None),
    (
        "scripts-changed",
        "error",
        described("client", lambda c: c["sources"].update({"client.py": "0"})),
        CLIENT,
        3,
    ),
]


@pytest.mark.parametrize(
    "rule,severity,plant,file,where", INFERENCE, ids=[f"{case[0]}-{at}" for at, case in enumerate(INFERENCE)]
)
def test_a_fault_planted_into_a_session_is_the_only_one_found(
    session: Path, rule: str, severity: str, plant: Callable[[Path], None], file: str, where: int | str | None
) -> None:
    plant(session)
    if rule != "checksum":
        seal(session)
    found = audited(session)
    assert {(one.rule, one.severity) for one in found} == {(rule, severity)}, found
    assert {one.file for one in found} == {str(session / file)}
    for one in found:
        if isinstance(where, str):
            assert one.line is not None
            assert where in (session / file).read_text().splitlines()[one.line - 1]
        else:
            assert one.line == where


@pytest.mark.parametrize(
    "content,line", [(b"", None), (b"\0" * 9999, None), ("no log\n".encode("utf-16"), None), (20, 1)]
)
def test_a_log_without_samples_of_the_load_does_not_cover_it(
    session: Path, content: bytes | int, line: int | None
) -> None:
    path = session / SPL
    whole = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(whole[:content]) if isinstance(content, int) else content)
    seal(session)
    found = [one for one in audited(session) if one.file == str(path)]
    rule = "samples-cover-load" if content else "file-missing"
    assert [one.line for one in found if one.rule == rule] == [line]
    assert all(one.rule != "clock-offset" for one in found)


def test_a_meter_that_nobody_knows_has_no_recomputed_uncertainty(session: Path) -> None:
    set_message("YokogawaWT330E", "YokogawaWT999")(session)
    assert {one.rule for one in audited(session)} == {"meter-model", "uncertainty-not-recomputed"}


def test_uncertainty_by_hand(session: Path) -> None:
    sample(100, amps=0.2)(session)
    seal(session)
    (found,) = audited(session)
    # ranges 300 V and 5 A, one channel of 230.1 V and 0.2 A at a power factor of 0.98
    assert found.value == pytest.approx(0.001 + 0.0005 * 300 * 5 / (230.1 * 0.2) + 0.002 * math.sqrt(1 / 0.98**2 - 1))


def test_every_rule_is_planted_and_documented() -> None:
    planted = {case[0] for case in TRAINING} | {case[0] for case in INFERENCE}
    assert planted | {"sixty-samples", "short-run", "meter-model"} == set(RULES)
    rows = {cells[1].strip(" `"): cells for row in DOCS.read_text().splitlines() if (cells := row.split("|"))[1:]}
    for name, rule in RULES.items():
        assert rows[name][2].strip() == rule.severity
        assert rows[name][3].strip() == rule.meaning and rows[name][4].strip() == rule.reference


# ---- published results


@needs_golden
@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("inference/sessions/v41*")))
def test_ptdaemons_own_uncertainty_is_met(name: str) -> None:
    """The replies of PTDaemon 1.10.0 are of all samples of testing."""
    folder = GOLDEN / "inference" / "sessions" / name
    messages = json.loads((folder / "power" / "server.json").read_text())["ptd_messages"]
    told = [m["reply"] for m in messages if m["reply"].startswith("Uncertainty")][-1].split(",")[1:4]
    meter = next(m["reply"] for m in messages if m["cmd"] == "Identify").split(",")[0]
    volts, amperes = (
        next(
            float(m["cmd"].split(",")[2])
            for m in messages
            if m["cmd"].startswith(f"SR,{unit}") and "Auto" not in m["cmd"]
        )
        for unit in "VA"
    )
    ranges = ranges_of(meter, volts, amperes)
    assert ranges is not None
    found = uncertainties(read_channels(folder / "run_1" / "spl.txt"), meter, ranges)
    assert [found.mean(), found.min(), found.max()] == pytest.approx([float(text) for text in told], abs=1e-6)


def golden_audits() -> Iterator[Audited]:
    yield from map(audit_one, find([GOLDEN / "training", GOLDEN / "inference"]))


def rows(name: str) -> list[dict[str, str]]:
    with (GOLDEN / "training" / name).open(newline="") as file:
        return list(csv.DictReader(file))


@needs_golden
def test_published_results() -> None:
    audits = {Path(item.path).relative_to(GOLDEN): item for item in golden_audits()}
    assert len(audits) == 20
    tables = {
        str(path): Counter(f"{one.severity} {one.rule}" for one in item.findings) for path, item in audits.items()
    }
    dell = "training/logs/Dell/8xXE9680x8H100-SXM-80GB-POWER/llama2_70b_lora"
    # Counted by hand from the logs and golden.csv: 10 runs of 8 nodes, and a switch 5 h behind.
    table = tables[dell]
    assert table["error window-covers-run"] == 80 and table["warning repeated-stamps"] == 80
    assert table["error switch-ignored"] == table["error clock-offset"] == 10
    # One node, one second in 18 skipped, and nothing else.
    assert tables["training/logs/Lenovo/SR780aV3-8xB200_SXM_180GB/bert"] == {"warning uneven": 10}
    # One node read every 2 s; the stop line has the start's time; 50 s of idle on each side; no efficiency.
    assert tables["training/logs/smc-ac-power/1xSMC-H100-SXM-80GB/bert"] == {
        "error window-lines": 10,
        "error window-dilutes": 10,
        "error rate": 10,
        "warning efficiency-absent": 10,
    }
    assert tables["inference/sessions/v41-untether-resnet50-server"] == {}
    assert tables["inference/sessions/v41-h200x8-llama2-offline-noptdlog"] == {"error file-missing": 1}
    by_file = {(one.file, one.rule): one for item in audits.values() for one in item.findings}
    for row in rows("golden_files.csv"):
        folder = GOLDEN / "training" / "logs" / row["submitter"] / row["system"] / row["benchmark"]
        file = str(folder / "power" / row["run"] / row["file"])
        told = {
            rule: by_file.get((file, rule))
            for rule in ("repeated-stamps", "backward-stamps", "non-positive", "clock-offset")
        }
        for rule, column in (("backward-stamps", "backward_steps"), ("non-positive", "nonpositive_readings")):
            one = told[rule]
            assert (one.count if one is not None else 0) == int(row[column] or 0), (file, rule)
        assert (told["repeated-stamps"] is not None) == (int(row["equal_timestamps"] or 0) > 0), file
        offset = told["clock-offset"]
        assert (offset.value if offset is not None else 0.0) == -float(row["clock_offset_s"] or 0) / 3600
        assert ((file, "rate") in by_file) == (
            row["kind"] == "node" and float(row["interval_ms_median"] or 0) > 1100
        ), file
    for row in rows("golden.csv"):
        power = (
            GOLDEN / "training" / "logs" / row["submitter"] / row["system"] / row["benchmark"] / "power" / row["run"]
        )
        uncovered = any(rule == "window-covers-run" and Path(file).parent == power for file, rule in by_file)
        column = "window_covers_run" if int(row["files_stop_eq_start"]) else "window_covers_run_by_lines"
        assert uncovered == (row[column] == "False"), power
        equal = sum(rule == "window-lines" and Path(file).parent == power for file, rule in by_file)
        assert equal == int(row["files_stop_eq_start"])


@needs_golden
def test_lines_of_evidence_hold_what_is_told() -> None:
    benchmark = GOLDEN / "training/logs/smc-dc-power/8xSMC-H100-SXM-80GB/ssd"
    shown = [one for one in audited(benchmark) if one.rule == "non-positive"]
    assert shown
    for one in shown:
        text = Path(one.file).read_text().splitlines()[(one.line or 0) - 1]
        assert json.loads(text.rpartition(":::MLLOG ")[2])["value"] == one.value


# ---- damage


def damage(folder: Path, seed: int) -> None:
    """Changes, cuts or repeats bytes of one file."""
    choose = random.Random(seed)
    path = choose.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    data = bytearray(path.read_bytes())
    for _ in range(choose.choice((1, 3, 30))):
        at = choose.randrange(len(data) + 1)
        what = choose.randrange(5)
        if what == 0:
            data[at : at + 1] = bytes([choose.randrange(256)])
        elif what == 1:
            del data[at : at + choose.randrange(200)]
        elif what == 2:
            data[at:at] = data[max(0, at - choose.randrange(300)) : at]
        elif what == 3:
            data[at:at] = choose.choice((b"NaN", b"-1e999", b"\0", b"\xff", b"\r", b"{", b'"', b"[[[[", b"null"))
        else:
            data[at : at + 1] = bytes([choose.choice(b"0123456789-.e,")])
    path.write_bytes(data)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), training=st.booleans())
def test_damaged_results_are_audited(seed: int, training: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "results"
    made_benchmark(folder, nodes=3) if training else made_session(folder)
    damage(folder, seed)
    target = folder.parent / "audit.json"
    assert main(["audit", "--json", str(target), str(folder)]) in (0, 1, 2)
    for item in json.loads(target.read_text())["audited"] if target.exists() else ():
        assert all(one["rule"] in RULES for one in item["findings"])
    shutil.rmtree(folder.parent)


# ---- the command


def test_the_command(benchmark: Path, session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(benchmark), str(session)]) == 0
    assert "nothing found" in capsys.readouterr().out
    (benchmark / "power/result_0/<b>&.txt").write_text("")  # no log
    readings(lambda own: own.pop(100))(benchmark)
    assert main(["audit", str(benchmark)]) == 0
    shown = capsys.readouterr().out
    assert "warning" in shown and "uneven" in shown and f"{NODE}:103" in shown and "0 errors" not in shown
    readings(with_value(50, -43))(benchmark)
    page, full = tmp_path / "audit.html", tmp_path / "audit.json"
    assert main(["audit", "--html", str(page), "--json", str(full), str(tmp_path)]) == 1
    text = page.read_text()
    assert "<strong>1 error</strong>" in text and "non-positive" in text and "<script" not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    content = json.loads(full.read_text())
    assert content["findings"] == {"error": 1, "warning": 1, "note": 0}
    found = [one for item in content["audited"] for one in item["findings"]]
    assert {"rule", "severity", "text", "file", "line", "value", "count", "reference"} == set(found[0])
    capsys.readouterr()
    assert main(["audit", "--json", "-", str(session)]) == 0
    assert json.loads(capsys.readouterr().out)["audited"][0]["kind"] == "inference session"


def test_nothing_to_audit_and_what_cannot_be_written(
    session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["audit", str(tmp_path / "empty")]) == 2
    assert main(["audit", str(tmp_path / "absent")]) == 2
    assert main(["audit"]) == 2
    assert main(["audit", "--html", str(tmp_path / "no" / "a.html"), str(session)]) == 2
    error = capsys.readouterr().err
    assert "nothing to audit" in error and "cannot be written" in error and "Traceback" not in error


def test_names_of_others_cannot_write_into_the_page(tmp_path: Path) -> None:
    folder = made_session(tmp_path / "<script>alert(1)</script>" / "session")
    (folder / "power" / "ptd_logs.txt").unlink()
    page = tmp_path / "audit.html"
    assert main(["audit", "--html", str(page), str(folder.parent)]) == 1
    assert "<script" not in page.read_text()
