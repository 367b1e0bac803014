"""The audit of published results and of damaged ones, and the command."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_audit import NODE, audited, made_benchmark, made_session, readings, with_value

from director.cli import main
from director.mlperf.audit.audit_command import audit_one
from director.mlperf.audit.audited import Audited
from director.mlperf.audit.findings import RULES
from director.mlperf.audit.uncertainty import ranges_of, read_channels, uncertainties
from director.mlperf.finding import find

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden logs (../shared/golden) are not here")


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    return made_benchmark(tmp_path / "acme" / "results" / "big" / "llama2_70b_lora")


@pytest.fixture
def session(tmp_path: Path) -> Path:
    return made_session(tmp_path / "inference_results_v4.1" / "session")


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
