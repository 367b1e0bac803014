"""Phases read from marks files, MLLOG lines, LoadGen's log and lines of any log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.phases.sources import Problems, line_pattern, loadgen, mark_files, mllog
from power_agent.messages import MarkEvent

HEADER = {"op": "header", "version": 1, "pid": 77, "ppid": 1, "argv0": "x", "rank": None, "boot_id": "b", "lane": None}


def write_marks(path: Path, *records: dict[str, Any], tail: str = "", header: dict[str, Any] = HEADER) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in (header, *records)) + tail)


def marks(directory: Path) -> tuple[list[MarkEvent], list[str]]:
    problems = Problems()
    return list(mark_files.read(directory, problems, "b")), list(problems)


def brief(events: list[MarkEvent]) -> list[tuple[Any, ...]]:
    return [(event.op, event.name, event.index, event.t_ns, event.lane) for event in events]


# Marks files


def test_marks_of_a_real_workload_come_back(tmp_path: Path) -> None:
    code = (
        "import threading\n"
        "from power_agent import mark, phase\n"
        "def work():\n"
        "    with phase('step', index=2, samples=8): pass\n"
        "with phase('run', rank=4) as p:\n"
        "    mark('here', x=1)\n"
        "    thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "    p.add(tokens=5)\n"
    )
    environment = {**os.environ, "POWER_AGENT_MARKS": str(tmp_path), "RANK": "3"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    problems = Problems()
    run, point, step, step_end, run_end = mark_files.read(tmp_path, problems)
    assert list(problems) == []
    process = next(tmp_path.iterdir()).name.split("-")[0]
    assert [event.lane for event in (run, point, step, step_end, run_end)] == [
        f"{process}:{thread}" for thread in (0, 0, 1, 1, 0)
    ]
    assert run.key == run_end.key != step.key == step_end.key
    assert (run.rank, step.rank) == (4, 3)
    assert (step.index, step.work, run_end.work, point.attributes) == (2, {"samples": 8}, {"tokens": 5}, {"x": 1})
    assert run.t_ns <= point.t_ns <= step.t_ns <= step_end.t_ns <= run_end.t_ns
    assert all(event.clock == "monotonic" for event in (run, point, step))


def test_a_torn_last_line_is_silent_and_a_foreign_one_is_told(tmp_path: Path) -> None:
    point = {"op": "point", "t_ns": 5, "thread": 1, "name": "p"}
    write_marks(tmp_path / "1.marks", point, tail='{"op":"begin","na')
    write_marks(tmp_path / "2.marks", point, tail='what is this\n{"op":"point"}\n' + json.dumps(point) + "\n")
    (tmp_path / "3.marks").write_bytes(b"\x7fELF\n\0\0\n")
    (tmp_path / "4.marks").write_bytes(b"")
    write_marks(tmp_path / "5.marks", point, header={**HEADER, "boot_id": "other"})
    write_marks(tmp_path / "6.marks", point, header={**HEADER, "version": 9})
    write_marks(tmp_path / "7.marks", point, {"op": "lost", "count": 3}, {"op": "lost", "count": 8})
    events, problems = marks(tmp_path)
    assert [event.source for event in events] == ["1.marks:2", "2.marks:2", "2.marks:5", "7.marks:2"]
    assert [problem.split("/")[-1].split(": ")[0] for problem in problems] == [
        "2.marks:3", "2.marks:4", "3.marks:1", "5.marks:1", "6.marks:1", "7.marks"
    ]  # fmt: skip
    assert "another host" in problems[3] and "version 9" in problems[4] and problems[5].split(": ")[1][:7] == "8 marks"


def test_an_end_brings_back_a_begin_that_was_lost(tmp_path: Path) -> None:
    write_marks(tmp_path / "1.marks", {"op": "end", "name": "a", "begin_ns": 5, "t_ns": 9, "error": "KeyError"})
    events, _ = marks(tmp_path)
    assert brief(events) == [("begin", "a", None, 5, "77:0"), ("end", "a", None, 9, "77:0")]
    assert events[0].key == events[1].key != "" and events[1].attributes == {"error": "KeyError"}


def test_shell_marks_share_a_lane_and_a_number_given_twice_does_not(tmp_path: Path) -> None:
    begin = {"op": "begin", "t_ns": 1, "thread": 9, "name": "a"}
    end = {"op": "end", "t_ns": 2, "thread": 8, "name": "a"}
    write_marks(tmp_path / "1.marks", begin, header={**HEADER, "lane": "shell"})
    write_marks(tmp_path / "2.marks", end, header={**HEADER, "pid": 78, "lane": "shell"})
    write_marks(tmp_path / "3.marks", begin, header={**HEADER, "lane": "shell", "rank": 2})
    write_marks(tmp_path / "4.marks", begin)
    write_marks(tmp_path / "5.marks", begin)
    events, _ = marks(tmp_path)
    assert [event.lane for event in events][:3] == ["shell", "shell", "shell:rank2"]
    assert events[1].key == ""
    assert len({event.lane for event in events[3:]}) == 2


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([b'{"op":"end","name":"a","begin_ns":1,"t_ns":2}']), max_size=9)
)
def test_no_marks_file_stops_the_reading(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("marks")
    (folder / "1.marks").write_bytes(json.dumps(HEADER).encode() + b"\n" + b"\n".join(lines))
    for event in mark_files.read(folder, Problems()):
        assert event.name == "a"


# MLLOG


def mllog_line(key: str, time_ms: float, prefix: str = "", value: Any = None, **metadata: Any) -> str:
    kind = {"start": "INTERVAL_START", "stop": "INTERVAL_END"}.get(key.rpartition("_")[2], "POINT_IN_TIME")
    metadata = {"file": "train.py", "lineno": 5, **metadata}
    entry = {"namespace": "", "time_ms": time_ms, "event_type": kind, "key": key, "value": value, "metadata": metadata}
    return f"{prefix}:::MLLOG {json.dumps(entry)}\n"


def read_mllog(path: Path, *lines: str) -> tuple[list[MarkEvent], list[str]]:
    path.write_text("".join(lines), encoding="latin-1")
    problems = Problems()
    return list(mllog.read(path, problems)), list(problems)


def test_the_official_logger_s_lines_become_phases(tmp_path: Path) -> None:
    official = pytest.importorskip("mlperf_logging.mllog")
    code = (
        "from mlperf_logging import mllog\n"
        "log = mllog.get_mllogger()\n"
        "log.event('global_batch_size', 32)\n"
        "log.start('run_start', time_ms=1700000000100)\n"
        "log.start('epoch_start', metadata={'epoch_num': 1}, time_ms=1700000000200)\n"
        "log.event('eval_accuracy', 0.75, metadata={'epoch_num': 1}, time_ms=1700000000250)\n"
        "log.end('epoch_stop', metadata={'epoch_num': 1}, time_ms=1700000000300)\n"
        "log.end('run_stop', metadata={'status': 'success'}, time_ms=1700000000400)\n"
    )
    assert official
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    events, problems = read_mllog(tmp_path / "log", done.stdout)
    assert problems == []
    second = 1_700_000_000_000_000_000
    assert sorted(brief(events), key=lambda found: found[3]) == [
        ("begin", "run", None, second + 100_000_000, "mllog"),
        ("begin", "epoch", 1, second + 200_000_000, "mllog"),
        ("point", "eval_accuracy", 1, second + 250_000_000, "mllog"),
        ("end", "epoch", 1, second + 300_000_000, "mllog"),
        ("end", "run", None, second + 400_000_000, "mllog"),
    ]
    by_name = {(event.op, event.name): event for event in events}
    assert by_name["begin", "run"].attributes == {"global_batch_size": 32}
    assert by_name["end", "run"].attributes == {"status": "success"}
    assert by_name["point", "eval_accuracy"].attributes == {"value": 0.75}
    assert by_name["begin", "epoch"].key == by_name["end", "epoch"].key
    assert all(event.clock == "wall" for event in events)


@pytest.mark.parametrize(
    ("prefix", "lane", "rank"),
    [
        ("", "mllog", None),
        ("3: ", "rank3", 3),
        (" 56: ", "rank56", 56),
        ("[1,7]<stdout>:", "rank7", 7),
        ("[rank2]:", "rank2", 2),
        ("node03: ", "node03", None),
        ("[default1]:", "[default1]", None),
        ("trainer-1  | ", "trainer-1", None),
        ("2024-05-01 12:00:00,123 INFO ", "mllog", None),
        ("0: :::MLLOG {broken", "mllog", None),
    ],
)
def test_what_stands_before_a_line_says_who_printed_it(
    tmp_path: Path, prefix: str, lane: str, rank: int | None
) -> None:
    begin, end = read_mllog(tmp_path / "log", mllog_line("run_start", 1, prefix), mllog_line("run_stop", 2, prefix))[0]
    assert (begin.lane, begin.rank, end.lane, begin.key) == (lane, rank, lane, end.key)


def test_a_run_has_no_number_though_its_stop_tells_how_many_epochs_it_took(tmp_path: Path) -> None:
    start, stop = mllog_line("run_start", 1), mllog_line("run_stop", 2, epoch_num=37, status="success")
    (begin, end), _ = read_mllog(tmp_path / "log", start, stop)
    assert (begin.index, end.index) == (None, None)
    assert end.attributes == {"epoch_num": 37, "status": "success"}


def test_samples_are_how_far_the_count_went_up(tmp_path: Path) -> None:
    """As llama2_70b_lora writes them: blocks carry the samples so far, an evaluation repeats them."""
    events, _ = read_mllog(
        tmp_path / "log",
        mllog_line("run_start", 0),
        mllog_line("block_start", 1, samples_count=0),
        mllog_line("block_stop", 5, samples_count=1536),
        mllog_line("eval_start", 5, samples_count=1536),
        mllog_line("eval_stop", 6, samples_count=1536),
        mllog_line("block_start", 6, samples_count=1536),
        mllog_line("block_stop", 9, samples_count=1920),
        mllog_line("run_stop", 9, status="success"),
    )
    work = [(event.name, event.work) for event in events if event.op == "end"]
    blocks = [("block", {"samples": 1536}), ("eval", {}), ("block", {"samples": 384})]
    assert work == [*blocks, ("run", {"samples": 1920})]


def test_ranks_that_say_the_same_make_one_phase_where_only_one_says_the_end(tmp_path: Path) -> None:
    starts = [mllog_line("init_start", 10 + rank, f"{rank}: ") for rank in range(3)]
    lines = [mllog_line("init_stop", 50, "0: "), mllog_line("run_start", 51, "0: "), mllog_line("run_stop", 90, "2: ")]
    events, problems = read_mllog(tmp_path / "log", *starts, *lines)
    assert [(event.op, event.name, event.lane) for event in events] == [
        ("begin", "init", "rank0"),
        ("end", "init", "rank0"),
        ("begin", "run", "rank0"),
        ("end", "run", "rank2"),
    ]
    assert events[2].key == events[3].key
    assert problems == []


def test_ranks_without_a_prefix_are_not_counted_twice(tmp_path: Path) -> None:
    edges = ("epoch_start", "epoch_stop")
    lines = [mllog_line(key, time + rank, epoch_num=4) for time, key in enumerate(edges) for rank in (0.25, 0, 0.5)]
    events, _ = read_mllog(tmp_path / "log", *lines)
    assert brief(events) == [("begin", "epoch", 4, 0, "mllog"), ("end", "epoch", 4, 1_000_000, "mllog")]


def test_a_stop_numbered_unlike_its_start_still_ends_it(tmp_path: Path) -> None:
    lines = [mllog_line("epoch_start", 1, epoch_num=0), mllog_line("epoch_stop", 2, epoch_num=149_929)]
    begin, end = read_mllog(tmp_path / "log", *lines)[0]
    assert begin.key == end.key


def test_broken_and_cut_logs_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    events, problems = read_mllog(
        tmp_path / "log",
        mllog_line("eval_stop", 1),
        ":::MLLOG {broken\n",
        mllog_line("run_start", 2, user="Jos\xe9").replace("\\u00e9", "\xe9"),
        "no mllog at all \xff\n",
        ':::MLLOG {"key": "run_stop", "time_ms": 1e400}\n',
        mllog_line("block_start", 3, first_epoch_num=2.0, epoch_count=3)[:-9],
    )
    assert brief(events) == [("end", "eval", None, 1_000_000, "mllog"), ("begin", "run", None, 2_000_000, "mllog")]
    assert events[1].attributes == {"user": "José"}
    assert [problem.split(": ")[0].rpartition(":")[2] for problem in problems] == ["2", "5", "6"]


LINES = st.binary(max_size=40) | st.builds(
    lambda key, time_ms, prefix, index: mllog_line(key, time_ms, prefix, epoch_num=index).encode(),
    st.sampled_from(["run_start", "run_stop", "epoch_start", "epoch_stop", "eval_accuracy"]),
    st.integers(-5, 5) | st.floats(),
    st.sampled_from(["", "0: ", "1: ", "x: "]),
    st.none() | st.integers() | st.floats() | st.text() | st.just(10**400),
)


@given(st.lists(LINES, max_size=20))
def test_no_training_log_stops_the_reading(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("mllog") / "log"
    path.write_bytes(b"\n".join(lines))
    opened: set[str] = set()
    for event in mllog.read(path, Problems()):
        if event.op == "begin":
            assert event.key not in opened
            opened.add(event.key)
        elif event.key:
            opened.remove(event.key)
    assert list(loadgen.read(path, Problems())) == []


def test_a_log_that_is_not_there_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    problems = Problems()
    path = tmp_path / "gone"
    assert list(mllog.read(path, problems)) == []
    assert list(line_pattern.read(path, "a=(?P<time_s>.)", problems)) == []
    assert list(problems) == [f"{path}: cannot be read: No such file or directory"] * 2


# LoadGen


def loadgen_log(path: Path, **values: Any) -> Path:
    """Lines as LoadGen writes them; `time_ms` is since its start."""
    lines = [mllog_line(key, 631105.49, value=value, is_error=False) for key, value in values.items()]
    path.write_text("".join(lines))
    return path


TIMES = {"power_begin": "07-17-2024 08:06:12.146", "power_end": "07-17-2024 08:16:43.068"}


def read_run(path: Path, utc_offset_s: int = 0) -> tuple[MarkEvent, MarkEvent]:
    problems = Problems()
    begin, end = loadgen.read(path, problems, utc_offset_s)
    assert list(problems) == []
    return begin, end


def test_the_run_lasts_from_power_begin_to_power_end(tmp_path: Path) -> None:
    path = loadgen_log(tmp_path / "log", effective_scenario="Server", result_query_count=106_944, **TIMES)
    begin, end = read_run(path)
    assert begin.t_ns == 1_721_203_572_146_000_000  # date -u -d '2024-07-17 08:06:12.146' +%s
    assert end.t_ns - begin.t_ns == 630_922_000_000
    assert (begin.name, begin.clock, begin.key) == ("run", "wall", end.key)
    assert begin.work == {"queries": 106_944} and begin.attributes["scenario"] == "Server"
    assert read_run(path, 2 * 3600)[0].t_ns == begin.t_ns - 7_200_000_000_000


def test_tokens_follow_from_the_rates_of_tokens_and_samples(tmp_path: Path) -> None:
    """Figures of a published llama2-70b Offline run; 253440 samples at 86.7369 a second are 2921.94 s."""
    path = loadgen_log(
        tmp_path / "log",
        effective_scenario="Offline",
        generated_samples_per_query=253_440,
        result_query_count=1,
        result_samples_per_second=86.7369,
        result_tokens_per_second=25_262.1,
        **TIMES,
    )
    begin, _ = read_run(path)
    assert begin.work["samples"] == 253_440
    assert begin.work["tokens"] == pytest.approx(25_262.1 * 2921.94, rel=1e-5)
    assert begin.attributes["tokens_inferred"] is False


def test_the_first_loadgen_to_measure_power_leaves_the_count_to_an_estimate(tmp_path: Path) -> None:
    """Version 1.0 generates more queries than it issues in SingleStream, and does not say how many it did."""
    path = loadgen_log(
        tmp_path / "log",
        effective_scenario="SingleStream",
        generated_query_count=38_711,
        generated_samples_per_query=1,
        result_qps_with_loadgen_overhead=27.3262,
        power_begin="03-17-2021 20:18:34.781",
        power_end="03-17-2021 20:28:34.826",
    )
    begin, _ = read_run(path)
    assert begin.work["queries"] == pytest.approx(27.3262 * 600.045)
    assert "estimate" in begin.attributes["queries_from"]


def test_a_log_without_its_end_says_so(tmp_path: Path) -> None:
    problems = Problems()
    path = loadgen_log(tmp_path / "log", power_begin=TIMES["power_begin"], power_end="noon")
    assert [event.op for event in loadgen.read(path, problems)] == ["begin"]
    assert list(loadgen.read(loadgen_log(path), problems)) == []
    assert [problem.removeprefix(str(path)) for problem in problems] == [
        ":2: power_end is 'noon', and not a time as 07-17-2024 08:06:12.146",
        ": has no power_begin; did LoadGen end, and is this its mlperf_log_detail.txt?",
        ": has no power_end; did LoadGen end, and is this its mlperf_log_detail.txt?",
    ]


def test_a_run_of_the_real_loadgen(tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen")
    code = (
        "import mlperf_loadgen as lg, sys\n"
        "def issue(samples):\n"
        "    lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples])\n"
        "settings = lg.TestSettings()\n"
        "settings.scenario = lg.TestScenario.SingleStream\n"
        "settings.mode = lg.TestMode.PerformanceOnly\n"
        "settings.min_duration_ms = 50\n"
        "settings.min_query_count = 100\n"
        "settings.max_query_count = 100\n"
        "output = lg.LogSettings()\n"
        "output.log_output.outdir = sys.argv[1]\n"
        "sut = lg.ConstructSUT(issue, lambda: None)\n"
        "qsl = lg.ConstructQSL(8, 8, lambda s: None, lambda s: None)\n"
        "lg.StartTestWithLogSettings(sut, qsl, settings, output)\n"
    )
    environment = {**os.environ, "TZ": "UTC"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, capture_output=True, timeout=60
    )
    path = tmp_path / "mlperf_log_detail.txt"
    begin, end = read_run(path)
    assert begin.work == {"queries": 100, "samples": 100}
    assert begin.attributes["scenario"] == "SingleStream"
    assert abs(end.t_ns - path.stat().st_mtime_ns) < 60e9 and end.t_ns >= begin.t_ns


# Lines of any log


def read_lines(path: Path, text: str, pattern: str, arrivals: bytes | None = None) -> tuple[list[MarkEvent], list[str]]:
    path.write_bytes(text.encode())
    beside = None
    if arrivals is not None:
        beside = path.with_suffix(".arrivals")
        beside.write_bytes(arrivals)
    problems = Problems()
    return list(line_pattern.read(path, pattern, problems, beside)), list(problems)


def pairs(*found: tuple[int, int]) -> bytes:
    return b"".join(number.to_bytes(8, "little", signed=True) for pair in found for number in pair)


def test_a_line_begins_a_phase_and_ends_the_one_before(tmp_path: Path) -> None:
    text = "start\nEpoch 1 of 2\nloss 3\nEpoch 2 of 2\nall done\n"
    came = pairs((0, 100), (6, 200), (19, 250), (26, 300), (39, 400))
    events, problems = read_lines(tmp_path / "log", text, r"epoch=Epoch (?P<index>\d+) of|(?P<end>all done)", came)
    assert problems == []
    assert brief(events) == [
        ("begin", "epoch", 1, 200, "log"),
        ("end", "epoch", None, 300, "log"),
        ("begin", "epoch", 2, 300, "log"),
        ("end", "epoch", None, 400, "log"),
    ]
    assert events[0].key == events[1].key != events[2].key == events[3].key
    assert all(event.clock == "monotonic" for event in events)


def test_groups_say_name_time_rank_and_work(tmp_path: Path) -> None:
    text = "1700000000.25 r3 train 1,024 img lr=0.1\n1700000001.5 r3 train end\n"
    pattern = r"^(?P<time_s>\S+) r(?P<rank>\d+) (?P<name>\w+) (?:(?P<end>end)|(?P<samples>\S+) img lr=(?P<lr>\S+))"
    (begin, end), problems = read_lines(tmp_path / "log", text, pattern)
    assert problems == []
    assert (begin.t_ns, end.t_ns) == (1_700_000_000_250_000_000, 1_700_000_001_500_000_000)
    assert (begin.name, begin.rank, begin.lane, begin.clock) == ("train", 3, "log:rank3", "wall")
    assert (begin.work, begin.attributes) == ({"samples": 1024}, {"lr": "0.1"})


def test_the_states_of_a_progress_bar_come_with_the_parts_they_were_written_in(tmp_path: Path) -> None:
    came = pairs((0, 10), (7, 20), (14, 30))
    events, _ = read_lines(tmp_path / "log", "step 1\rstep 2\rstep 3\r", r"step=step (?P<index>\d)", came)
    assert [(event.index, event.t_ns) for event in events if event.op == "begin"] == [(1, 10), (2, 20), (3, 30)]


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "instants at which lines came" in read_lines(log, "a\n", "x=a")[1][0]
    assert "time cannot be read" in read_lines(log, "\n\na\n", "x=a(?P<time_s>)")[1][0].partition("log:3: ")[2]
    assert "of 1 lines only the first" in read_lines(log, "b" * 9000 + "a\n", "x=a", pairs((0, 1)))[1][0]
    events, problems = read_lines(log, "a\na\n", "x=a", pairs((0, 1), (-1, 2)))
    assert len(events) == 3 and "stopped before its end" in problems[0]


@pytest.mark.parametrize("pattern", ["", "epoch", "=x", "epoch=(", "(?P<name>", "lr[0]=3"])
def test_a_pattern_that_cannot_be_is_explained(pattern: str) -> None:
    with pytest.raises(ValueError, match="phase pattern") as refused:
        line_pattern.parse_pattern(pattern)
    assert pattern in str(refused.value)


@given(st.text(), st.binary(max_size=200), st.binary(max_size=64))
def test_no_log_and_no_arrivals_stop_the_reading(
    tmp_path_factory: pytest.TempPathFactory, index: str, log: bytes, came: bytes
) -> None:
    path = tmp_path_factory.mktemp("lines") / "log"
    path.write_bytes(log + b"\nstep " + index.encode("utf-8", "replace") + b"\nat 1e999\nat nan\nat 5\n")
    path.with_suffix(".a").write_bytes(came)
    list(line_pattern.read(path, r"step=step (?P<index>.*)|at (?P<samples>\S+)", Problems(), path.with_suffix(".a")))
    events = list(line_pattern.read(path, r"step=at (?P<time_s>\S+)", Problems()))
    assert [event.t_ns for event in events][-1] == 5_000_000_000


def test_problems_are_bounded() -> None:
    problems = Problems()
    for number in range(1000):
        problems.add(f"log:{number}", "is odd")
    assert problems.count == 1000
    assert len(list(problems)) == 21 and list(problems)[-1] == "and 980 more like these"
