"""Energies and scores of made submissions: closed forms, and the official package run unmodified as a process."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from made_training import START_MS, line, power_text, result_text, write_benchmark

from director.mlperf.finding import TrainingBenchmark, find
from director.mlperf.training.benchmark_score import BenchmarkScore, rounds_to_score, score_benchmark
from director.mlperf.training.run_score import RunScore, score_run

OFFICIAL = """
import json, sys
from mlperf_logging.result_summarizer import result_summarizer as s
found = {}
for folder, benchmark, ruleset in json.loads(sys.argv[1]):
    try:
        times, energies, score, energy, factor = s._compute_strong_score_standalone(
            benchmark, "system", True, folder, "training", ruleset, return_full_scores=True)
        runs = {name.split("/")[-1][:-4]: joules for name, joules in energies.items()}
        found[folder] = {"minutes": score, "joules": energy, "runs": runs}
    except Exception as error:
        found[folder] = {"crash": type(error).__name__}
print("\\n" + json.dumps(found))
"""


def official(folders: list[tuple[Path, str, str]]) -> dict[str, dict[str, object]]:
    if importlib.util.find_spec("mlperf_logging") is None:
        pytest.skip("mlperf-logging is not installed")
    asked = json.dumps([(str(folder), benchmark, f"{name}.0") for folder, benchmark, name in folders])
    ended = subprocess.run([sys.executable, "-c", OFFICIAL, asked], capture_output=True, text=True, check=True)
    found: dict[str, dict[str, object]] = json.loads(ended.stdout.splitlines()[-1])
    return found


def scored(folder: Path, rules: str) -> BenchmarkScore:
    (found,) = find([folder])
    assert isinstance(found, TrainingBenchmark)
    rounds = rounds_to_score(found, rules)
    return score_benchmark(found, [score_run(f, found.power_dir(f), rounds) for f in found.result_files], rules)


def one_run(folder: Path, node: str, rules: str = "6.1", minutes: float = 1.0, switch: str = "") -> RunScore:
    power = folder / "power" / "result_0"
    power.mkdir(parents=True)
    (folder / "result_0.txt").write_text(result_text(START_MS, minutes))
    (power / "node_0.txt").write_text(node)
    if switch:
        (power / "sw_0.txt").write_text(switch)
    return score_run(folder / "result_0.txt", power, (rules,))[rules]


@pytest.mark.parametrize("rules", ["4.0", "4.1", "6.1"])
def test_constant_power_is_power_times_time(tmp_path: Path, rules: str) -> None:
    node = power_text(
        (START_MS + 1000 * i for i in range(-5, 66)),
        lambda _: 500.0,
        start_ms=START_MS - 5000,
        stop_ms=START_MS + 65_001,
        efficiency=0.9,
    )
    run = one_run(tmp_path, node, rules, switch=line("interconnect_power_est", START_MS, 16100))
    # Readings weigh 70 s; the window is 1 ms longer.
    assert run.counts and run.is_official
    assert run.node_joules == pytest.approx(0.9 * 500 * 70 * 60 / 70.001, rel=1e-12)
    assert run.switch_joules == 16100 * 60
    assert run.physical_joules == pytest.approx(0.9 * 500 * 60 + 16100 * 60, rel=1e-12)
    assert run.physical_estimate_joules == 16100 * 60
    assert run.coverage == 1.0


def test_padding_dilutes_and_the_causes_add_up(tmp_path: Path) -> None:
    """600 W for a minute's run, 100 W for 30 s on each side: the formula's mean is 350 W."""
    write_benchmark(tmp_path, [1.0], [600.0], nodes=3, margin_ms=30_000)
    (run,) = scored(tmp_path, "6.1").runs
    assert run.node_joules == pytest.approx(3 * 60 * (60 * 600 + 60 * 100) / 120.001, rel=1e-9)
    assert run.physical_joules == pytest.approx(3 * 60 * 600, rel=0.01)
    assert (
        run.physical_expanded_joules is not None and abs(run.physical_joules - 108_000) < run.physical_expanded_joules
    )
    assert run.difference == pytest.approx(350 / 600 - 1, abs=0.01)
    (window,) = (cause for cause in run.causes if cause.kind == "window")
    assert "30.0 s before run_start to 30.0 s after run_stop" in window.text
    assert sum(cause.joules for cause in run.causes) == pytest.approx(run.official_joules - run.physical_joules)


ODD = {
    "no stop": power_text((START_MS + 1000 * i for i in range(61)), lambda _: 500.0, start_ms=START_MS),
    "no start": power_text((START_MS + 1000 * i for i in range(61)), lambda _: 500.0, stop_ms=START_MS + 60_000),
    "stop has the start's time": power_text(
        (START_MS + 1000 * i for i in range(1, 61)), lambda _: 500.0, start_ms=START_MS, stop_ms=START_MS
    ),
    "neither": power_text((START_MS + 1000 * i for i in range(61)), lambda _: 500.0),
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("rules", ["4.0", "6.1"])
def test_where_the_official_code_gives_nothing_the_rules_still_define_the_energy(
    tmp_path: Path, rules: str, what: str
) -> None:
    run = one_run(tmp_path, ODD[what], rules)
    assert run.node_joules == pytest.approx(500 * 60, rel=1e-9)
    assert run.physical_joules == pytest.approx(500 * 60, rel=1e-9)
    crashes = what in ("no start", "neither") or (what == "stop has the start's time" and rules == "6.1")
    assert run.is_official == (not crashes)
    assert bool(run.notes) == (crashes or (what == "no stop" and rules == "6.1"))


def test_a_log_without_readings_is_official_zero_and_physically_unknown(tmp_path: Path) -> None:
    run = one_run(tmp_path, power_text((), float, start_ms=START_MS, stop_ms=START_MS + 60_000))
    assert run.official_joules == 0 and run.physical_joules is None and "no power reading" in run.notes[0]


@pytest.mark.parametrize("rules", ["4.0", "6.1"])
@pytest.mark.parametrize(
    ("node", "why"),
    [
        ("", "no power reading, and no window"),
        ("\0" * 5000, "no power reading, and no window"),
        (power_text((), float, start_ms=START_MS, stop_ms=START_MS)[:-1], "no energy"),
        ("version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
)
def test_missing_is_never_zero(tmp_path: Path, node: str, why: str, rules: str) -> None:
    run = one_run(tmp_path, node, rules)
    assert not run.physical_joules and why in " ".join(run.notes)
    assert run.official_joules is None


def test_a_node_an_hour_off_is_moved_and_said(tmp_path: Path) -> None:
    times = [START_MS + 3_600_000 + 1000 * i for i in range(61)]
    run = one_run(tmp_path, power_text(times, lambda _: 500.0, start_ms=times[0], stop_ms=times[-1]))
    assert run.physical_joules == pytest.approx(30_000, rel=1e-9)
    assert any("+1 h off" in note for note in run.notes)


def test_a_run_that_was_hardly_measured_has_no_physical_energy(tmp_path: Path) -> None:
    times = [START_MS + 1000 * i for i in range(20)]
    run = one_run(tmp_path, power_text(times, lambda _: 500.0, start_ms=times[0], stop_ms=times[-1]))
    assert run.official_joules == pytest.approx(30_000) and run.physical_joules is None and run.difference is None
    assert run.coverage is not None and run.coverage < 0.5


def test_olympic_scores(tmp_path: Path) -> None:
    """The fastest and the slowest are dropped by time; energies are those of the same runs."""
    write_benchmark(tmp_path / "a", [3.0, 1.0, 2.0, 4.0, 5.0], [100, 9000, 200, 300, 9000], nodes=1)
    score = scored(tmp_path / "a", "6.1")
    assert score.dropped == {"result_1": "fastest", "result_4": "slowest"}
    assert score.minutes == pytest.approx(3.0)
    assert score.physical_joules == pytest.approx((100 * 180 + 200 * 120 + 300 * 240) / 3, rel=5e-3)


def test_failing_runs_are_the_dropped_slowest(tmp_path: Path) -> None:
    files = write_benchmark(tmp_path / "a", [3.0, 1.0, 2.0, 4.0, 5.0])
    files[0].write_text(result_text(START_MS, 3.0, accuracy=0.99))
    score = scored(tmp_path / "a", "6.1")
    assert score.dropped == {"result_0": "fails checks", "result_1": "fastest"}
    assert score.minutes == pytest.approx((2 + 4 + 5) / 3)
    files[2].write_text(result_text(START_MS, 2.0, accuracy=0.99))
    score = scored(tmp_path / "a", "6.1")
    assert score.minutes is None and "2 of 5 runs fail" in score.notes[0]


def test_unet3d_drops_four_at_each_end(tmp_path: Path) -> None:
    # A folder named unet3d is enough for the official code, whatever the logs say of themselves.
    write_benchmark(tmp_path / "unet3d", [float(minutes) for minutes in range(1, 11)])
    score = scored(tmp_path / "unet3d", "6.1")
    assert score.minutes == pytest.approx((5 + 6) / 2)


def test_scaling(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "a", [1.0, 2.0, 3.0], [100, 100, 100])
    (tmp_path / "a" / "scaling.json").write_text('{"scaling_factor": 1.25}')
    score = scored(tmp_path / "a", "6.1")
    assert score.minutes == pytest.approx(2.5) and score.unscaled_minutes == pytest.approx(2.0)
    assert score.joules == pytest.approx(1.25 * score.unscaled_joules)
    assert score.difference == pytest.approx(0.25, abs=0.01)
    assert any(cause.kind == "scaling" for cause in score.causes)
    (tmp_path / "a" / "scaling.json").write_text('{"scaling_factor": "x"}')
    score = scored(tmp_path / "a", "6.1")
    assert score.minutes is None and score.unscaled_minutes == pytest.approx(2.0) and "scaling.json" in score.notes[0]


def random_power(random_: random.Random, start: float, stop: float) -> str:
    """A node's log of another logger: other rates, stamps, orders, padding, efficiencies."""
    step = random_.choice((200, 500, 1000, 1037))
    begin, end = start + random_.randint(-90_000, 9_000), stop + random_.randint(-9_000, 90_000)
    times = [
        begin + step * i + random_.choice((0, 0, random_.randint(0, step))) for i in range(int((end - begin) / step))
    ]
    if random_.random() < 0.3:
        times = [t - t % 1000 for t in times]
    if random_.random() < 0.3:
        random_.shuffle(times)
    digits = random_.choice((0, 1, 3))
    text = power_text(
        times,
        lambda _: round(random_.uniform(-20, 9000), digits) if digits else random_.randint(0, 900),
        start_ms=begin,
        stop_ms=random_.choice((end, end, None, max(times) + 7)),
        efficiency=random_.choice((None, 0.94, 0.9612)),
    )
    return (
        text if random_.random() < 0.5 else "".join(f"{random_.randint(0, 9)}: {row}\r\n" for row in text.splitlines())
    )


def test_made_submissions_score_as_by_the_official_package(tmp_path: Path) -> None:
    random_ = random.Random(7)
    folders = []
    for number in range(12):
        benchmark = random_.choice(("llama2_70b_lora", "unet3d"))
        folder = tmp_path / str(number) / benchmark
        minutes = [round(random_.uniform(0.5, 3), 4) for _ in range(random_.choice((3, 5, 10)))]
        files = write_benchmark(folder, minutes)
        for index, length in enumerate(minutes):
            start = START_MS + index * 86_400_000
            power = folder / "power" / files[index].stem
            power.mkdir(parents=True)
            for node in range(random_.randint(1, 3)):
                (power / f"node_{node}.txt").write_text(random_power(random_, start, start + length * 60e3))
            if random_.random() < 0.5:
                estimate = line("interconnect_power_est", 1, 500.5) + line("conversion_eff", 1, 0.5)
                (power / "sw_0.txt").write_text(line("conversion_eff", 1, 0.9) + estimate)
        if random_.random() < 0.5:
            spoilt = random_.randrange(len(files))
            files[spoilt].write_text(
                files[spoilt].read_text().replace('"lora_rank", "value": 16', '"lora_rank", "value": 8')
            )
        if random_.random() < 0.5:
            (folder / "scaling.json").write_text('{"scaling_factor": 1.0123}')
        folders.append((folder, benchmark, random_.choice(("4.1", "5.0", "5.1", "6.0", "6.1"))))
    says = official(folders)
    compared = 0
    for folder, _, name in folders:
        score = scored(folder, name)
        runs = says[str(folder)]["runs"]
        assert isinstance(runs, dict)
        for run in score.runs:
            if run.counts:
                assert run.official_joules is not None and run.is_official
                assert math.isclose(run.official_joules, runs[run.name], rel_tol=1e-12, abs_tol=1e-9)
                compared += 1
        for ours, theirs in ((score.minutes, "minutes"), (score.joules, "joules")):
            their = says[str(folder)][theirs]
            assert (ours is None) == (their is None), (folder, theirs, ours, their)
            assert ours is None or math.isclose(ours, their, rel_tol=1e-12)  # type: ignore[arg-type]
    assert compared > 40
