"""The meter test, with means worked out by hand."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from made_session import made_clock, made_manifest, made_marks, made_stream

from director.answers.results import write_results
from director.cli import main
from director.mlperf.qualify.live import LiveTest, record
from director.mlperf.qualify.meter_test import QualifyRefused, qualify
from director.session.files import load_manifest, store_manifest
from director.session.manifest import PhaseSource
from drivers.contract import Accuracy, Channel, Status

NS = 1_000_000_000
MARKS = [PhaseSource(kind="marks", file="marks")]
LEVELS = ["--level", "idle=10", "--level", "half=400", "--level", "full=800"]
# per level: watts of the reference, and what the meter reads more in each of the five minutes
WATTS = {10: 100.0, 400: 300.0, 800: 500.0}
MORE = (0.0, 3.0, 6.0, -90.0, 90.0)  # the Olympic mean drops −90 and +90: 3 W more


def reading(t: float, more: tuple[float, ...] = (0.0,) * 5) -> float:
    """Power at the end of a second: constant in each minute of a level, 50 W between levels."""
    for begin, watts in WATTS.items():
        minute = int((t - 1 - begin) // 60)
        if 0 <= minute < 5:
            return watts + more[minute]
    return 50.0


def spl(path: Path, more: tuple[float, ...] = (0.0,) * 5, skip: range = range(0)) -> Path:
    lines = [
        f"Time,03-04-2031 {10 + t // 3600:02d}:{t // 60 % 60:02d}:{t % 60:02d}.000,Watts,{reading(t, more):.6f},"
        "Volts,230.0,Amps,1.0,PF,0.9,Mark,m"
        for t in range(1200)
        if t not in skip
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_olympic_means_differences_and_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meter, reference = spl(tmp_path / "meter.txt", MORE), spl(tmp_path / "reference.txt")
    assert main(["qualify", str(meter), str(reference), *LEVELS, "--json", str(tmp_path / "q.json")]) == 0
    found = json.loads((tmp_path / "q.json").read_text())
    assert found["passes"] and found["limit_percent"] == 5 and found["accuracy_known"]
    for level, watts, percent in zip(found["levels"], (100, 300, 500), (3.0, 1.0, 0.6), strict=True):
        assert level["meter"]["minutes"] == pytest.approx([watts + more for more in MORE], rel=1e-9)
        assert level["meter"]["olympic"] == pytest.approx(watts + 3, rel=1e-9)
        assert level["reference"]["olympic"] == pytest.approx(watts, rel=1e-9)
        assert level["difference_percent"] == pytest.approx(percent, rel=1e-7)
        # ±0.5 % of reading each: at least 2·0.5/√3 % of one, and √2 of that for two
        assert level["expanded_percent"] >= 2 * 0.5 / 3**0.5 * 2**0.5
    said = capsys.readouterr().out
    assert "the meter qualifies" in said and "+3.00 ±" in said
    assert main(["qualify", str(meter), str(reference), *LEVELS, "--limit", "2.9"]) == 1
    said = capsys.readouterr().out
    assert "does not qualify" in said and said.count("NO") == 1


def test_both_meters_are_drawn_over_the_minutes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[test]'")
    words = ["qualify", str(spl(tmp_path / "a$b_<meter>.txt", MORE)), str(spl(tmp_path / "reference.txt")), *LEVELS]
    plot, again = tmp_path / "plot.svg", tmp_path / "again.svg"
    assert main([*words, "--plot", str(plot)]) == 0
    assert main([*words, "--plot", str(again)]) == 0
    assert plot.read_bytes() == again.read_bytes()
    text = plot.read_text()
    for told in (
        "the meter qualifies (limit 5 %)",
        "idle: meter 103.00 ± 0.74 W",
        "+0.60 ± 0.97 %",
        "a$b_&lt;meter&gt;",
    ):
        assert told in text
    assert main([*words, "--plot", str(tmp_path / "plot.png")]) == 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert main([*words, "--plot", str(tmp_path / "no" / "plot.png")]) == 2
    assert main([*words, "--plot", str(tmp_path / "plot.pdf")]) == 2
    error = capsys.readouterr().err
    assert "plot.png cannot be written" in error and "neither in .svg nor in .png" in error


def live_test(tmp_path: Path, loads: list[tuple[str, str]], meter_watts: float = 102.0) -> LiveTest:
    """Two meters that are replayed from files, and levels of a second."""
    for name, column, watts in (("meter", "node_watts", meter_watts), ("reference", "wall_watts", 100.0)):
        rows = "".join(f"{at / 100:.2f},{watts}\n" for at in range(6000))
        (tmp_path / f"{name}.csv").write_text(f"t_s,{column}\n{rows}")
    return LiveTest(
        loads=loads,
        channels=("replay/node/node_watts", "replay/wall/wall_watts"),
        settle_s=0.05,
        output=tmp_path / "session",
        drivers=["replay:meter", "replay:reference"],
        settings={f"replay:{name}": {"path": str(tmp_path / f"{name}.csv")} for name in ("meter", "reference")},
        minute_s=0.2,
    )


def test_live_on_two_drivers_with_loads_that_are_stopped(tmp_path: Path) -> None:
    loads = [(name, f"sh -c 'echo {name} $$ >> {tmp_path}/loads; sleep 99 & wait'") for name in ("half", "full")]
    test = live_test(tmp_path, loads)
    session, outcome = record(test)
    assert outcome.status == 0 and not outcome.interrupted
    found = qualify((session, session), test.channels, test.levels, 5.0, test.minute_s)
    assert [level.name for level in found.levels] == ["idle", "half", "full"] and not found.accuracy_known
    assert [level.difference_percent for level in found.levels] == pytest.approx([2.0] * 3, rel=1e-6)
    assert all(level.meter.minutes == pytest.approx([102.0] * 5, rel=1e-6) for level in found.levels)
    ran = [line.split() for line in (tmp_path / "loads").read_text().splitlines()]
    assert [name for name, _ in ran] == ["half", "full"]
    groups = {int(pid) for _, pid in ran}
    for process in psutil.process_iter(["status"]):  # also what a load had started
        with contextlib.suppress(ProcessLookupError):
            assert os.getpgid(process.pid) not in groups or process.info["status"] == psutil.STATUS_ZOMBIE


def test_a_load_that_ends_too_early_makes_no_test(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session, outcome = record(live_test(tmp_path, [("half", "true"), ("full", "sleep 9")]))
    assert outcome.status == 1 and (session / "manifest.json").is_file()
    assert "half: 'true' ended with status 0; a load must last until it is stopped" in capfd.readouterr().err


def test_a_meter_that_is_not_there_costs_no_time(tmp_path: Path) -> None:
    test = live_test(tmp_path, [("half", "sleep 9"), ("full", "sleep 9")])
    (tmp_path / "meter.csv").unlink()
    with pytest.raises(QualifyRefused, match="no meter here has a channel replay/node") as error:
        record(test)
    assert "replay:meter" in str(error.value) and not test.output.exists()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "words,why",
    [
        (["a", "b", "--settle", "3", *LEVELS], "--settle is only for a live test"),
        (["a", *LEVELS], "name two traces"),
        (["--load", "half=x"], "2 loads of different names"),
        (["--load", "half=x", "--load", "idle=y"], "2 loads of different names"),
        (["--load", "half='x", "--load", "full=y"], "is no command"),
        (["--load", "half=x", "--load", "full="], "is not NAME=CMD"),
        (["a", "b", "--load", "half=x", "--load", "full=y"], "traces and --level are for what was recorded"),
        (["--load", "half=x", "--load", "full=y"], "needs --channel and --reference-channel"),
        (["--load", "half=x", "--load", "full=y", "--channel", "c", "--reference-channel", "c"], "its own reference"),
        (["--load", "half=no-such", "--load", "full=y", "--channel", "c", "--reference-channel", "d"], "not found"),
        (
            ["--load", "h=true", "--load", "f=true", "--channel", "c", "--reference-channel", "d"],
            "no meter here has a channel c of power",
        ),
    ],
)
def test_options_that_contradict_each_other(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qualify", *words]) == 2
    assert why in capsys.readouterr().err


def made(session: Path) -> Path:
    """A session that reads two meters at the same instants; the phases are the levels."""
    node = Channel(
        name="bmc/node/power",
        device="node",
        quantity="power",
        unit="W",
        kind="gauge",
        scope="node",
        scale=0.001,
        update_period_s=1.0,
        stamped=True,
        window_s=1.0,
        accuracy=Accuracy(reading_fraction=0.02),
    )
    wall = msgspec.structs.replace(node, name="meter/wall/power", device="wall", scope="wall")
    times = np.arange(1200, dtype=np.int64)
    values = [np.array([1000 * reading(t, more) for t in times.tolist()]) for more in (MORE, (0.0,) * 5)]
    file = made_stream(session, [node, wall], times * NS, values, rate_hz=1.0)
    made_marks(session, [("idle", 10 * NS, 320 * NS), ("half", 400 * NS, 700 * NS), ("full", 800 * NS, 1101 * NS)])
    made_manifest(session, [file], (0, 1199 * NS), clock_file=made_clock(session, 0, 1199 * NS), phase_sources=MARKS)
    write_results(session)
    return session


def test_two_channels_of_a_session_at_its_phases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = str(made(tmp_path / "session"))
    names = ["--channel", "bmc/node/power", "--reference-channel", "meter/wall/power"]
    levels = ["--level", "idle", "--level", "half", "--level", "full"]
    assert main(["qualify", session, session, *names, *levels, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [level["difference_percent"] for level in found["levels"]] == pytest.approx([3.0, 1.0, 0.6], rel=1e-7)
    assert main(["qualify", session, session, *levels]) == 2
    assert "2 power channels; name one: bmc/node/power, meter/wall/power" in capsys.readouterr().err
    assert main(["qualify", session, session, *names[:2], "--reference-channel", "bmc/node/power", *levels]) == 2
    assert "its own reference" in capsys.readouterr().err
    assert main(["qualify", session, session, *names, *levels[:4], "--level", "command"]) == 2
    assert "must be disjoint" in capsys.readouterr().err


def test_an_energy_counter_is_a_meter_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole mJ, more of them than a double holds exactly; a reading inside a minute is missing."""
    session = made(tmp_path)
    kind = {"device": "pdu", "scale": 0.001, "update_period_s": 1.0, "stamped": True}
    counter = Channel(name="pdu/energy", quantity="energy", unit="J", kind="counter", scope="node", **kind)  # type: ignore[arg-type]
    times = np.arange(1200, dtype=np.int64)
    counts = 2**60 + 1 + np.cumsum([round(1000 * reading(t, MORE)) for t in times.tolist()], dtype=np.int64)
    statuses = np.zeros(1200, np.uint8)
    statuses[430] = Status.MISSING
    file = made_stream(session, [counter], times * NS, [counts], rate_hz=1.0, statuses=[statuses], number=1)
    manifest = load_manifest(session)
    manifest.hosts[0].streams.append(file)
    store_manifest(session, manifest)
    names = ["--channel", "pdu/energy", "--reference-channel", "meter/wall/power"]
    levels = ["--level", "idle", "--level", "half", "--level", "full"]
    assert main(["qualify", str(session), str(session), *names, *levels, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [level["difference_percent"] for level in found["levels"]] == pytest.approx([3.0, 1.0, 0.6], rel=1e-6)
    assert found["levels"][1]["meter"]["minutes"] == pytest.approx([300.0 + more for more in MORE], rel=1e-6)


def test_what_does_not_cover_a_level_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = str(spl(tmp_path / "good.txt"))
    gap = str(spl(tmp_path / "gap.txt", skip=range(500, 510)))
    cases = [
        ([good, gap, *LEVELS], "of minute 2 of half were measured"),
        ([good, gap, *LEVELS[:4]], "3 different levels"),
        ([good, gap, *LEVELS[:4], "--level", "full=690"], "must be disjoint"),
        ([good, gap, *LEVELS[:4], "--level", "full=1000"], "of full were measured"),
        ([good, gap, *LEVELS[:4], "--level", "full"], "say full=SECONDS"),
        ([good, str(tmp_path / "none"), *LEVELS], "cannot be read"),
        ([good, gap, *LEVELS[:4], "--level", "full=-1"], "0 or more"),
    ]
    for words, why in cases:
        assert main(["qualify", *words]) == 2
        assert why in capsys.readouterr().err
