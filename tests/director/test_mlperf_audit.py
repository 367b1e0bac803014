"""Every rule of the audit on results with one planted fault, and on clean ones."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from made_audit import NODE, RUN_S, audited, made_benchmark, made_session, node_text, readings, seal, with_value
from made_power_session import stamp
from made_training import START_MS, line, power_text

from director.mlperf.audit.findings import RULES

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden logs (../shared/golden) are not here")
DOCS = Path(__file__).parents[2] / "docs" / "mlperf" / "audit.md"


# ---- training


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    return made_benchmark(tmp_path / "acme" / "results" / "big" / "llama2_70b_lora")


def test_nothing_is_found_in_clean_results(benchmark: Path, tmp_path: Path) -> None:
    assert audited(benchmark) == []
    assert audited(made_session(tmp_path / "session")) == []


def reading(second: float, watts: float) -> str:
    return line("power_reading", START_MS + round(1000 * second), watts)


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


def test_a_node_that_reads_nothing_but_zero_has_no_lag(benchmark: Path) -> None:
    written(NODE, power_text([START_MS + 1000 * s for s in range(300)], lambda t: 0.0))(benchmark)
    assert "clock-lag" not in {one.rule for one in audited(benchmark)}


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
