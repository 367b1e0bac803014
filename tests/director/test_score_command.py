"""`power-director score` and what it finds, on made submissions of many layouts, as a user would call it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_training import line, write_benchmark

from director.cli import main
from director.mlperf.finding import InferenceSession, TrainingBenchmark, Unreadable, find


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "training_results_v5.1"
    write_benchmark(
        root / "acme" / "results" / "big" / "llama2_70b_lora", [3.0, 1.0, 2.0], [500, 500, 500], margin_ms=9e3
    )
    write_benchmark(root / "acme" / "results" / "small" / "llama2_70b_lora", [3.0, 1.0, 2.0])
    (root / "acme" / "systems").mkdir()
    return root


def test_a_whole_repository_in_tables_csv_and_json(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, full = tmp_path / "s.csv", tmp_path / "s.json"
    assert main(["score", "--csv", str(table), "--json", str(full), str(repository)]) == 0
    shown = capsys.readouterr()
    assert "acme · big · llama2_70b_lora" in shown.out and "round 5.1 (the folder names it)" in shown.out
    assert "9.0 s before run_start" in shown.out and "no folder power" in shown.out and not shown.err
    big, small = json.loads(full.read_text())
    assert (big["submitter"], big["system"], big["round"]) == ("acme", "big", "5.1")
    assert big["minutes"] == pytest.approx(2.0) and big["counted"] == ["result_2"]
    assert small["official_joules"] is None and small["minutes"] == pytest.approx(2.0)
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [row["kind"] for row in rows] == ["training run"] * 3 + ["training benchmark"] + ["training run"] * 3 + [
        "training benchmark"
    ]
    assert float(rows[3]["official_joules"]) == big["official_joules"]
    assert rows[0]["counts"] == "False" and rows[0]["why_not"] == "slowest" and rows[4]["official_joules"] == ""


def test_every_level_may_be_given_and_is_scored_once(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    big = repository / "acme" / "results" / "big"
    for paths in (
        [repository],
        [repository / "acme"],
        [big],
        [big / "llama2_70b_lora"],
        [big, big / "llama2_70b_lora"],
    ):
        assert main(["score", "--json", "-", *map(str, paths)]) == 0
        shown = capsys.readouterr()
        scores = json.loads(shown.out)
        assert [s["system"] for s in scores if s["system"] == "big"] == ["big"]
        assert "MLPerf Training scores" in shown.err


def test_rules(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--rules", "6.1", "--json", "-", str(repository)]) == 0
    assert {s["round"] for s in json.loads(capsys.readouterr().out)} == {"6.1"}
    assert main(["score", "--rules", "9.9", str(repository)]) == 2
    assert "--rules 9.9 is no round; there are" in capsys.readouterr().err
    plain = tmp_path / "mine" / "llama2_70b_lora"
    write_benchmark(plain, [1.0, 2.0, 3.0])
    for file in plain.glob("result_*.txt"):  # without what round 6.1 asks for
        kept = [row for row in file.read_text().splitlines(keepends=True) if '"config_filename"' not in row]
        file.write_text("".join(kept))
    assert main(["score", "--json", "-", str(plain)]) == 0
    (score,) = json.loads(capsys.readouterr().out)
    assert score["round"] == "6.0" and "the newest whose checks all runs pass" in score["round_from"]


def test_nothing_to_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(tmp_path)]) == 1
    assert "nothing to score" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "absent")]) == 1
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["score", str(tmp_path / "file")]) == 1
    assert "give the folder" in capsys.readouterr().err
    assert main(["score"]) == 2


def test_spoiled_results_give_notes_and_never_a_traceback(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    power = repository / "acme" / "results" / "big" / "llama2_70b_lora" / "power"
    (power / "result_0" / "node_0.txt").write_text("version https://git-lfs.github.com/spec/v1\n")
    node = power / "result_1" / "node_1.txt"
    node.write_bytes(node.read_bytes().replace(b"\n", b"\r\n") + b":::MLLOG {\xe9\n")
    (power / "result_2" / "node_0.txt").write_bytes(b"")
    (power / "result_2" / "sw_0.txt").write_text(line("interconnect_power_est", 0, "much"))
    results = power.parent
    (results / "result_3.txt").write_bytes(bytes(range(256)) * 20)
    assert main(["score", str(repository)]) == 0
    shown = capsys.readouterr()
    for part in ("git lfs pull", "node_1.txt:", "sw_0.txt:1", "the log has no MLLOG line"):
        assert part.lower() in shown.out.lower(), part
    assert "Traceback" not in shown.err + shown.out


def test_loops_of_links_and_closed_folders(repository: Path, tmp_path: Path) -> None:
    (repository / "acme" / "loop").symlink_to(repository)
    (repository / "acme" / "up").symlink_to("..")
    (repository / "acme" / "itself").symlink_to("itself")
    (repository / "acme" / "nowhere").symlink_to("gone")
    outside = tmp_path / "elsewhere" / "llama2_70b_lora"
    write_benchmark(outside, [1.0])
    (repository / "acme" / "linked").symlink_to(outside.parent)
    (repository / "acme" / "again").symlink_to(outside.parent)
    found = list(find([repository]))
    assert sum(isinstance(item, TrainingBenchmark) for item in found) == 3
    closed = repository / "acme" / "closed"
    closed.mkdir(mode=0)
    refused = {item.path.name for item in find([repository]) if isinstance(item, Unreadable)}
    assert refused == {"itself"} | (set() if os.geteuid() == 0 else {"closed"})
    (found_from_loop,) = find([repository / "acme" / "itself"])
    assert isinstance(found_from_loop, Unreadable)


def test_inference_sessions_are_found_with_their_names(tmp_path: Path) -> None:
    session = tmp_path / "inference_results_v4.1" / "closed" / "acme" / "results" / "big" / "bert" / "Offline"
    (session / "performance" / "run_1").mkdir(parents=True)
    (session / "performance" / "run_1" / "spl.txt").write_text("")
    (found,) = find([tmp_path])
    assert isinstance(found, InferenceSession) and found.path == session / "performance"
    named = (found.submitter, found.system, found.benchmark, found.scenario, found.round)
    assert named == ("acme", "big", "bert", "Offline", "4.1")


@pytest.mark.parametrize(
    ("name", "round_name"),
    [
        *(("training_results_v4.0", "4.0"), ("v5.1", "5.1"), ("training_6.1.0", "6.1")),
        *(("training_results_v5.0-main", "5.0"), ("torch-2.1", ""), ("mlperf-logging-4.1.68", "")),
        *(("8xB200", ""), ("results", "")),
    ],
)
def test_the_round_that_a_folder_names(tmp_path: Path, name: str, round_name: str) -> None:
    write_benchmark(tmp_path / name / "a" / "b", [1.0])
    (found,) = find([tmp_path / name])
    assert isinstance(found, TrainingBenchmark) and found.round == round_name


def test_outputs_that_cannot_be_written(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--csv", str(tmp_path / "no" / "s.csv"), str(repository)]) == 1
    assert "s.csv cannot be written" in capsys.readouterr().err


def test_memory_and_processes_with_many_runs(tmp_path: Path) -> None:
    """Forty runs go through the pool; the tables keep the order of names."""
    write_benchmark(tmp_path / "acme" / "big" / "unet3d", [1 + n / 100 for n in range(40)], [500] * 40, nodes=1)
    command = [sys.executable, "-m", "director.cli", "score", "--csv", "-", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = list(csv.DictReader(io.StringIO(ended.stdout)))
    assert len(rows) == 41 and [row["run"] for row in rows[:3]] == ["result_0", "result_1", "result_10"]
    assert sum(row["counts"] == "True" for row in rows[:-1]) == 32
