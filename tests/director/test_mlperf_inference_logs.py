"""Power sessions of known power and of any damage: what cannot be read is named, and no figure is silently wrong."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from golden_inference import SESSIONS, needs_golden
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_power_session import made_run, sample_line, stamp

from director.cli import main
from director.mlperf import text_blocks as blocks_module
from director.mlperf.finding import InferenceSession
from director.mlperf.inference.detail_log import KEYS, read_detail_log
from director.mlperf.inference.sample_log import SampleLog, Window, stamp_us
from director.mlperf.inference.scoring import InferenceScore
from director.mlperf.inference.session_score import SessionScore, score_session
from director.mlperf.text_blocks import NoLog, text_blocks

QUIET = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def score(top: Path, rules: str = "4.1", scenario: str = "Offline", benchmark: str = "") -> SessionScore:
    return score_session(InferenceSession(top, "", "", benchmark, scenario, ""), rules)


def read_plainly(text: str, window: Window) -> list[float]:
    """The official reading, line by line; lines at which it would end are left out."""
    kept = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line.startswith("Time"):
            continue
        try:
            if window.begin_us < stamp_us(line.split(",")[1]) < window.end_us:
                watts = float(line.split(",")[3])
        except (ValueError, IndexError):
            continue
        else:
            if window.begin_us < stamp_us(line.split(",")[1]) < window.end_us and watts > 0:
                kept.append(watts)
    return kept


def read(path: Path, window: Window) -> tuple[list[float], SampleLog]:
    log = SampleLog(path, window)
    found: list[float] = []
    for block in log.samples():
        found += block.watts[window.holds(block.t_us) & block.time_lines & (block.watts > 0)].tolist()
    return found, log


def test_a_step_of_power_has_the_energy_that_it_has(tmp_path: Path) -> None:
    made_run(tmp_path / "run_1", lambda second: 400.0 if 20 < second <= 140 else 100.0)
    found = score(tmp_path)
    assert found.duration_s == 120.0 and found.samples == 119 and found.average_watts == 400.0
    assert found.official_joules == 48_000.0 and found.efficiency == 2.5
    physical = found.physical
    assert physical is not None and physical.joules == pytest.approx(48_000.0, rel=1e-9)
    assert physical.expanded_joules is not None and physical.expanded_joules > 0.005 * 48_000 / 3**0.5


def test_a_load_with_an_idle_half_second_is_not_the_plain_mean(tmp_path: Path) -> None:
    made_run(tmp_path / "run_1", lambda second: 100.0 + second, begin_s=20.5, end_s=140.5)
    found = score(tmp_path)
    assert found.average_watts == pytest.approx(100 + np.arange(21, 141).mean())
    assert found.physical_joules == pytest.approx(sum(100 + s for s in range(22, 141)) + 0.5 * (121 + 241), rel=1e-9)
    assert found.difference == pytest.approx(-60 / 21_720, rel=1e-9)


def test_midnight_crlf_and_lone_cr_change_nothing(tmp_path: Path) -> None:
    scores = []
    for name, ending in (("lf", "\n"), ("crlf", "\r\n"), ("cr", "\r")):
        made_run(tmp_path / name / "run_1", lambda second: 100.0 + second % 7, ending=ending)
        scores.append(score(tmp_path / name))
    assert len({(s.average_watts, s.samples, s.physical_joules, s.unreadable_lines) for s in scores}) == 1
    assert scores[0].samples == 119 and not scores[0].unreadable_lines


def test_a_clock_whole_hours_off_is_named_and_moved(tmp_path: Path) -> None:
    made_run(tmp_path / "run_1", lambda _: 250.0, clock_s=-7 * 3600)
    found = score(tmp_path)
    assert found.average_watts is None and found.power_metric is None
    assert found.clock_shift_s == 7 * 3600 and found.physical_joules == pytest.approx(250 * 120)
    assert any("+7 h" in note for note in found.notes)


def test_time_zones_of_round_1_0(tmp_path: Path) -> None:
    made_run(tmp_path / "run_1", lambda second: 100.0 + second, clock_s=3600)
    (tmp_path / "power").mkdir()
    for side, zone in (("client", 7200), ("server", 3600)):
        (tmp_path / "power" / f"{side}.json").write_text(json.dumps({"timezone": zone}))
    found = score(tmp_path, "1.0")
    assert found.average_watts == pytest.approx(100 + np.arange(21, 140).mean())
    assert found.physical is not None and found.physical.coverage == pytest.approx(1.0)
    assert score(tmp_path, "4.1").average_watts is None


def test_missed_samples_count_as_the_round_says(tmp_path: Path) -> None:
    made_run(tmp_path / "run_1", lambda second: -2.0 if second == 60 else 200.0)
    old, new = score(tmp_path, "2.0"), score(tmp_path, "4.1")
    assert old.average_watts == pytest.approx((118 * 200 - 2) / 119) and new.average_watts == 200.0
    assert any("−2" in cause.text for cause in old.causes)
    for found in (old, new):
        assert found.physical_joules == pytest.approx(24_000)
        assert sum(c.joules for c in found.causes) == pytest.approx(found.official_joules - found.physical_joules)


@pytest.mark.parametrize(
    "scenario,values,rules,value,unit,efficiency",
    [
        ("SingleStream", {"effective_scenario": "SingleStream"}, "4.1", 120_000 * 1e3 / 600, "mJ/stream", 5e-3),
        ("MultiStream", {"effective_scenario": "MultiStream"}, "4.1", 120_000 * 1e3 / 600, "mJ/query", 0.04),
        ("MultiStream", {"effective_scenario": "SingleStream"}, "4.1", 8 * 120_000 * 1e3 / 600, "mJ/query", 5e-3),
        ("SingleStream", {"effective_scenario": "SingleStream"}, "2.1", 200.0, "J/stream", 5e-3),
        ("SingleStream", {"effective_scenario": "SingleStream"}, "1.0", 100.0, "J/sample", 1e-2),
        ("Offline", {"effective_scenario": "MultiStream"}, "4.1", 1000.0, "W", 8 * 1000 / 4 / 1000),
        *(("Interactive", {"effective_scenario": "Server"}, r, 1000.0, "W", 0.07) for r in ("5.1", "6.0", "6.1")),
    ],
)
def test_power_figures_of_scenarios(
    tmp_path: Path, scenario: str, values: dict[str, object], rules: str, value: float, unit: str, efficiency: float
) -> None:
    numbers = {
        "result_query_count": 600,
        "result_qps_with_loadgen_overhead": 10.0,
        "early_stopping_latency_ss": 2_000_000,
        "early_stopping_latency_ms": 3_000_000,
        "result_90.00_percentile_latency_ns": 1_000_000,
        "result_mean_query_latency_ns": 4_000_000,
        "effective_samples_per_query": 8,
        "result_completed_samples_per_sec": 70.0,
    }
    made_run(tmp_path / "run_1", lambda _: 1000.0, values={**numbers, **values})
    found = score(tmp_path, rules, scenario)
    assert found.power_metric == pytest.approx(value, rel=1e-12) and found.power_metric_unit == unit
    assert found.efficiency == pytest.approx(efficiency, rel=1e-12)
    assert found.inferred == (scenario != values["effective_scenario"] and scenario != "Interactive")


def test_several_analyzers_are_read_by_their_own_times(tmp_path: Path) -> None:
    run = tmp_path / "run_1"
    made_run(run, lambda _: 300.0)
    one = [sample_line(s, 100.0) for s in range(1, 161)]
    two = [sample_line(s + 0.4, 200.0) for s in range(-30, 161)]
    merged = [
        f"{a.partition(',Watts')[0]},Watts,300.000000,Volts,-1.000000,Analyzer1,{a},Analyzer2,{b}"
        for a, b in zip(one, two, strict=False)
    ]
    for name, lines in (("spl_analyzer_1.txt", one), ("spl_analyzer_2.txt", two), ("spl.txt", merged)):
        (run / name).write_text("\n".join(lines) + "\n")
    found = score(tmp_path)
    assert found.analyzers == 2 and found.average_watts == 300.0
    assert found.physical_joules == pytest.approx(36_000) and "by number, not by time" in found.causes[-1].text


def test_tokens_count_where_the_round_says(tmp_path: Path) -> None:
    made_run(tmp_path / "run_1", lambda _: 100.0, values={"result_tokens_per_second": 5000})
    assert score(tmp_path, "4.1", benchmark="llama2-70b-99").efficiency == 50.0
    assert score(tmp_path, "4.1", benchmark="resnet50").efficiency == 10.0
    assert score(tmp_path, "3.1", benchmark="llama2-70b-99").performance_unit == "samples/s"


def test_benchmarks_by_the_names_that_folders_may_have(tmp_path: Path) -> None:
    values = {"result_tokens_per_second": 5000, "early_stopping_latency_ss": 9e9}
    top = tmp_path / "open" / "acme"
    session = top / "results" / "box" / "any" / "Offline" / "performance"
    made_run(session / "run_1", lambda _: 100.0, values=values)
    assert score(session, "5.0", benchmark="llama3_1-405b").efficiency == 50.0
    assert score(session, "5.0", benchmark="llama3_1-8b").efficiency == 10.0
    assert score(session, "5.1", benchmark="llama3_1-8b").efficiency == 50.0
    assert score(session, "6.0", benchmark="our-llama").efficiency == 10.0
    (top / "model_mapping.json").write_text('{"our-llama": "llama2-70b-99", "other": 3}')
    assert score(session, "6.0", benchmark="our-llama").efficiency == 50.0
    (top / "model_mapping.json").write_text("{")
    found = score(session, "6.0", benchmark="our-llama")
    assert found.efficiency == 10.0 and any("model_mapping.json holds no JSON" in note for note in found.notes)
    made_run(tmp_path / "run_1", lambda _: 1.0, values={**values, "effective_scenario": "SingleStream"})
    video = score(tmp_path, "6.1", scenario="SingleStream", benchmark="wan-2.2-t2v-a14b")
    assert (video.performance, video.performance_unit) == (9.0, "s latency")


@pytest.mark.parametrize(
    "content,why",
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        (b"/annex/objects/SHA256E-s1--0.txt\n", "pointer of git-annex"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_no_logs(tmp_path: Path, content: bytes | None, why: str) -> None:
    for name in ("spl.txt", "mlperf_log_detail.txt"):
        made_run(tmp_path / name / "run_1", lambda _: 100.0)
        path = tmp_path / name / "run_1" / name
        path.unlink()
        path.symlink_to(path) if content is None else path.write_bytes(content)
        found = score(tmp_path / name)
        assert found.average_watts is None and found.physical_joules is None
        assert any(why in note for note in found.notes)


def test_a_pipe_does_not_keep_us_waiting(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "spl.txt")
    with pytest.raises(NoLog, match="no regular file"):
        list(text_blocks(tmp_path / "spl.txt"))


def test_damaged_lines_are_counted_and_named(tmp_path: Path) -> None:
    made_run(tmp_path / "run_1", lambda _: 100.0)
    path = tmp_path / "run_1" / "spl.txt"
    lines = path.read_bytes().split(b"\n")
    lines[30] = b"Time,99-99-2031 00:00:00.000,Watts,1.0"
    lines[40] = lines[40].replace(b"100.000000", b"1x0.000000")
    lines[50] = "Zeit: größer".encode("latin-1")
    lines[60] = lines[60][:39]  # "100." of 100.000000: the official code takes it
    path.write_bytes(b"\n".join(lines))
    found = score(tmp_path)
    assert found.unreadable_lines == 4
    assert [problem.split(":")[1] for problem in found.problems] == ["31", "41", "51", "61"]
    assert found.official_code_stops.startswith("spl.txt, line 31")
    assert found.physical is not None and found.physical.joules == pytest.approx(12_000, rel=1e-3)


@pytest.mark.parametrize(("watts", "stops"), [("nan", ""), ("inf", "spl.txt, line 31 holds"), ("1e400", "spl.txt")])
def test_samples_that_are_no_finite_number_are_named_and_count_for_nothing(
    tmp_path: Path, watts: str, stops: str
) -> None:
    made_run(tmp_path / "run_1", lambda _: 100.0)
    path = tmp_path / "run_1" / "spl.txt"
    lines = path.read_bytes().split(b"\n")
    lines[30] = lines[30].replace(b"100.000000", watts.encode())
    lines[50] = lines[50].replace(b"100.000000", b"1_00.0")  # to Python a number, and so to the official code
    lines[70] = lines[70].replace(b"Mark", "Größe".encode("latin-1"))
    path.write_bytes(b"\n".join(lines))
    found = score(tmp_path)
    assert found.average_watts == 100 and found.unreadable_lines == 3
    assert [problem.split(":")[1] for problem in found.problems] == ["31", "51", "71"]
    assert found.official_code_stops.startswith(stops or "spl.txt, line 71: is not UTF-8")
    json.dumps(InferenceScore(found).to_json(), allow_nan=False)


@QUIET
@given(data=st.data())
def test_mutated_samples_are_read_as_plainly(tmp_path: Path, data: st.DataObject) -> None:
    text = bytearray("".join(f"{sample_line(s, 90.0 + s, [30.0, 60.0 + s])}\n" for s in range(1, 25)), "ascii")
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(text) - 1))
        kind = data.draw(st.sampled_from("xid"))
        piece = data.draw(st.sampled_from([b"0", b"9", b",", b"\n", b"\r", b".", b"-", b" ", b"T", b"V", b"e", b"_"]))
        text[at : at + (kind != "i")] = b"" if kind == "d" else piece
    path = tmp_path / "spl.txt"
    path.write_bytes(bytes(text))
    window = Window(stamp_us(stamp(5.5)), stamp_us(stamp(19.5)))
    found, log = read(path, window)
    assert found == read_plainly(text.decode("ascii"), window)
    if log.stops.time_lines:
        assert log.unreadable_lines and list(log.problems)


@QUIET
@given(text=st.binary(max_size=400))
def test_any_bytes_are_read_without_a_traceback(tmp_path: Path, text: bytes) -> None:
    for name in ("spl.txt", "mlperf_log_detail.txt"):
        (tmp_path / name).write_bytes(text)
    try:
        read(tmp_path / "spl.txt", Window(0, 1 << 60))
        log = read_detail_log(tmp_path / "mlperf_log_detail.txt")
        assert set(log.values) <= KEYS
    except NoLog:
        assert not text or text.startswith((b"version https", b"/annex"))


@QUIET
@given(values=st.lists(st.floats(0, 999_999_999, allow_nan=False), min_size=1, max_size=20))
def test_watts_are_read_to_the_last_bit(tmp_path: Path, values: list[float]) -> None:
    path = tmp_path / "spl.txt"
    path.write_text("".join(f"{sample_line(s, w)}\n" for s, w in enumerate(values)))
    log = SampleLog(path, Window(0, 1 << 60))
    found = np.concatenate([block.watts for block in log.samples()]).tolist()
    assert found == [float(f"{w:.6f}") for w in values] and not log.unreadable_lines


@QUIET
@given(cut=st.integers(1, 400), data=st.data())
def test_blocks_hold_the_lines_of_the_file(tmp_path: Path, cut: int, data: st.DataObject) -> None:
    text = data.draw(st.text(st.sampled_from("ab\r\n"), min_size=1, max_size=300)).encode()
    path = tmp_path / "log.txt"
    path.write_bytes(text)
    usual = blocks_module.BLOCK_BYTES
    blocks_module.BLOCK_BYTES = cut
    try:
        found = list(text_blocks(path))
    finally:
        blocks_module.BLOCK_BYTES = usual
    with path.open(newline=None) as file:
        lines = [line.rstrip("\n") for line in file]
    number = 1
    for block in found:
        assert block.first_line == number
        own = block.text.replace(b"\r\n", b"\n").decode().removesuffix("\n").split("\n")
        assert own == lines[number - 1 : number - 1 + len(own)]
        number += len(own)
    assert number == len(lines) + 1


@needs_golden
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_real_logs(tmp_path: Path, data: st.DataObject) -> None:
    run = tmp_path / "run_1"
    run.mkdir(exist_ok=True)
    source = (
        SESSIONS / data.draw(st.sampled_from(["v41-h200x8-resnet50-offline", "v10-agx-bert-singlestream"])) / "run_1"
    )
    for name in ("spl.txt", "mlperf_log_detail.txt"):
        text = bytearray((source / name).read_bytes())
        for _ in range(data.draw(st.integers(0, 4))):
            at = data.draw(st.integers(0, len(text) - 1))
            text[at] = data.draw(st.integers(0, 255))
        (run / name).write_bytes(text[: data.draw(st.sampled_from([len(text), len(text) // 2, len(text) - 40]))])
    found = score(tmp_path)
    if found.average_watts is None:
        assert found.notes
    assert all(isinstance(text, str) for text in [*found.notes, *found.problems])


def test_memory_stays_bounded_and_the_command_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sys" / "resnet50" / "Offline" / "performance"
    made_run(folder / "run_1", lambda _: 100.0)
    (folder / "power").mkdir()
    (folder / "power" / "server.json").write_text("{}")
    lines = "".join(f"{sample_line(s, 100.0)}\n" for s in range(161, 20_000))
    with (folder / "run_1" / "spl.txt").open("a") as file:
        for _ in range(6):
            file.write(lines)
    tracemalloc.start()
    found = score(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.average_watts == 100.0 and peak < 100e6
    assert main(["score", "--json", "-", str(tmp_path)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["kind"] == "inference session" and row["average_watts"] == 100.0 and row["benchmark"] == "resnet50"
