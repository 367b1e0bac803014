"""MLPerf's power protocol: our server, our client and a simulated PTDaemon, over real sockets."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mlperf_bench import (
    DEADLINE_S,
    FAST_S,
    SOURCES,
    WORKLOAD,
    Bench,
    Client,
    agent,
    description,
    failing,
)
from ptdaemon_server import PtdaemonServer

from director.mlperf.protocol.driver_meter import DriverSource
from director.mlperf.protocol.meter import MeterFailed
from director.mlperf.protocol.ptd_log_file import PtdLogFile
from director.mlperf.protocol.ptd_meter import PtdSource
from director.mlperf.protocol.server import MlperfServer
from director.mlperf.protocol.session_log import SessionLog
from drivers.replay.spl_trace import open_spl
from power_agent.mlperf_protocol import sha1

# ---- whole sessions


def test_a_session_of_our_client_passes_the_official_checks_but_those_of_the_scripts(bench: Bench) -> None:
    with bench.serving() as server:
        done = subprocess.run(agent(server, bench, "--label", "made"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    session = Path(done.stdout.strip())
    assert session.name.endswith("_made")
    assert failing(session) == SOURCES
    assert (bench.ptd.amperes, bench.ptd.volts) == (20.0, 600.0)
    # 239 V are in 300 V; 3.05 A × 1.1 in 5 A; what PTDaemon then says, reckoned by hand
    server_json = description(session, "server")
    commands = [message["cmd"] for message in server_json["ptd_messages"]]
    set_ranges = [command for command in commands if command.startswith("SR")]
    assert set_ranges[:5] == ["SR,V,Auto", "SR,A,Auto", "SR,A,Auto", "SR,V,239.000000", set_ranges[4]]
    assert float(set_ranges[4].split(",")[2]) == pytest.approx(1.1 * 2100 / (3 * 239 * 0.96), abs=1e-5)
    assert set_ranges[5:] == ["SR,V,600.000000", "SR,A,20.000000"]
    told = [m["reply"] for m in server_json["ptd_messages"] if m["cmd"] == "Uncertainty"][-1].split(",")
    tangent = (1 - 0.96**2) ** 0.5 / 0.96
    share = 0.001 + 0.0005 * 3 * 300 * 5 / (2100 / 0.96) + 0.002 * tangent
    assert [float(text) for text in told[1:4]] == pytest.approx([share] * 3, abs=1e-6)
    assert f"uncertainty {share:.2%} on average" in (session / "power" / "server.log").read_text()
    assert "Uncertainty," in (session / "run_1" / "ptd_out.txt").read_text()
    # what the server keeps is what the client got
    for path, sha in server_json["results"].items():
        assert sha1(session / path) == sha
        assert (bench.only_session() / path).read_bytes() == (session / path).read_bytes()


def test_every_sample_of_ptdaemon_is_in_the_session_once(bench: Bench) -> None:
    spl = bench.folder / "own_spl.txt"
    bench.ptd._spl = spl
    with bench.serving() as server:
        done = subprocess.run(agent(server, bench), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    session = Path(done.stdout.strip())
    own = spl.read_text()
    fetched = "".join((session / run / "spl.txt").read_text() for run in ("ranging", "run_1"))
    assert fetched == own
    trace = open_spl(session / "run_1" / "spl.txt", {})  # and the replay driver reads them
    assert len(trace.streams[0].channels) == 4


def test_given_ranges_skip_ranging(bench: Bench) -> None:
    with bench.serving() as server:
        words = agent(server, bench, "--max-volts", "239", "--max-amps", "4")
        done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    session = Path(done.stdout.strip())
    assert not (session / "ranging").exists()
    assert (session / "run_1" / "spl.txt").read_text().count("_testing") > 10
    ranges = [m["cmd"] for m in description(session, "server")["ptd_messages"] if m["cmd"].startswith("SR")]
    assert ranges == ["SR,V,239", "SR,A,4", "SR,V,600.000000", "SR,A,20.000000"]


def test_a_shorter_workload_may_do_for_ranging(bench: Bench) -> None:
    short = shlex.join([sys.executable, str(WORKLOAD), str(bench.folder / "logs"), "0.2"])
    with bench.serving() as server:
        done = subprocess.run(agent(server, bench, "--ranging-workload", short), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    session = Path(done.stdout.strip())
    lines = {run: len((session / run / "spl.txt").read_text().splitlines()) for run in ("ranging", "run_1")}
    assert lines["ranging"] < lines["run_1"]
    assert failing(session) == SOURCES


def test_the_protocol_word_by_word(bench: Bench) -> None:
    with bench.serving() as server, Client(server) as client:
        assert abs(float(client.say("time")) - time.time()) < 5
        name = client.new("a-label")
        assert client.say(f"session,{name},stop,ranging").startswith("Error")
        assert client.say("session,*,start,testing") == (
            "Error: testing needs ranging before it, or volts and amperes after it"
        )
        assert client.say(f"session,{name},start,ranging") == "OK"
        assert client.say("session,*,start,ranging") == "OK"  # said twice is meant once
        assert client.say("session,*,start,testing").startswith("Error")
        assert client.say("session,other,stop,ranging") == "Error: unknown session"
        assert client.say("session,*,stop,ranging") == "OK"
        assert client.say("session,*,stop,ranging") == "OK"
        assert client.say("session,*,start,testing,0,4") == "Error: no such ranges"
        assert client.say("session,*,start,testing") == "OK"
        assert client.say("session,*,stop,testing") == "OK"
        assert client.say(f"download-,{name},power/server.json").startswith("Error")
        assert client.say(f"download,{name},power/server.json").startswith("Error")
        assert client.say(f"session,{name},done") == "OK"
        assert json.loads(client.download(name, "power/server.json"))["session_name"] == name
        assert client.say(f"download,{name},../../ptd_log.txt").startswith("Error")
        assert client.say(f"cleanup,{name}") == "OK"
    assert (bench.output / name / "run_1" / "spl.txt").stat().st_size > 0  # cleaning up deletes nothing
    phases = description(bench.output / name, "server")["phases"]
    assert [len(phases[stage]) for stage in ("ranging", "testing")] == [4, 4]


def test_no_clock_is_set_and_the_folder_says_so(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    with bench.serving() as server, Client(server) as client:
        name = client.new()
        assert client.say("set_ntp") == "OK"
        client.say("session,*,done")
    notes = description(bench.output / name, "server")["notes"]
    assert any("never sets a clock" in note for note in notes)
    assert "never sets a clock" in capsys.readouterr().err


def test_stop_ends_the_server_after_this_client(bench: Bench) -> None:
    server = MlperfServer("127.0.0.1", 0, bench.output, bench.source())
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    with Client(server) as client:
        assert client.say("stop") == "OK"
        client.new()
        client.say("session,*,done")
        assert thread.is_alive()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


# ---- PTDaemon's log


def test_of_ptdaemons_log_the_start_and_this_session_are_taken(tmp_path: Path) -> None:
    path, target = tmp_path / "log", tmp_path / "ptd_logs.txt"
    start = "x: Uncertainty checking for YokogawaWT310E is activated\nx: Waiting for a connection...\n"
    path.write_text(start + "x: ERROR: of another session\n" * 3)
    log = PtdLogFile(path, 0.2)
    with path.open("a") as file:
        file.write("x: Go with mark 'b_ranging'\nx: Completed test\n")
    assert log.copy(target)
    assert target.read_text() == start + "x: Go with mark 'b_ranging'\nx: Completed test\n"


def test_a_log_that_ends_too_early_is_told(tmp_path: Path) -> None:
    path, target = tmp_path / "log", tmp_path / "ptd_logs.txt"
    path.write_text("start\n")
    log = PtdLogFile(path, 0.2)
    path.write_text("start\nx: Go with mark 'b_testing'\n")
    assert not log.copy(target)
    path.write_text("new\n")  # started again, with a new log
    log.copy(target)
    assert target.read_text() == "new\n"


def test_without_its_log_and_command_the_folder_says_so(tmp_path: Path) -> None:
    with PtdaemonServer(period_s=FAST_S) as ptd:
        bench = Bench(tmp_path, ptd, tmp_path)
        source = PtdSource("127.0.0.1", ptd.port, settle_s=0.0, tail_s=0.1, poll_s=0.05)
        with bench.serving(source) as server:
            done = subprocess.run(agent(server, bench), capture_output=True, text=True)
    session = Path(done.stdout.strip())
    assert "without --ptd-log" in (session / "power" / "ptd_logs.txt").read_text()
    assert failing(session) == {*SOURCES, "Check errors and warnings from PTD logs"}


def test_a_command_line_of_another_meter_is_refused(bench: Bench) -> None:
    for command, told in (
        ("ptd -p 8888 49 /dev/ttyUSB0", "YokogawaWT330_multichannel, number 77"),
        ("ptd -c one,3 77 10.0.0.1", "not two numbers"),
        ("ptd 'x", "cannot be read"),
    ):
        with pytest.raises(MeterFailed, match=told):
            PtdSource("127.0.0.1", bench.ptd.port, None, command).open(SessionLog())
    PtdSource("127.0.0.1", bench.ptd.port, None, "ptd 77 -c").open(SessionLog()).close()


# ---- our own meters


def test_one_of_our_meters_in_the_place_of_ptdaemon(tmp_path: Path) -> None:
    trace = tmp_path / "wall.csv"
    trace.write_text("t_s,wall_watts,wall_volts\n" + "".join(f"{at / 10},250,230\n" for at in range(-600, 3000)))
    with PtdaemonServer() as ptd:
        bench = Bench(tmp_path, ptd, tmp_path)
        source = DriverSource("replay", {"path": str(trace), "start_ns": str(time.monotonic_ns())}, tail_s=0.3)
        with bench.serving(source) as server:
            done = subprocess.run(agent(server, bench, seconds=1.6), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    session = Path(done.stdout.strip())
    assert "power-director read replay/" in (session / "run_1" / "ptd_out.txt").read_text()
    watts = [line.split(",")[3] for line in (session / "run_1" / "spl.txt").read_text().splitlines()]
    assert watts and set(watts) == {"250.000000"}
    assert {
        "Check PTD commands and replies",
        "Check errors and warnings from PTD logs",
    } | SOURCES == failing(session)


def test_a_driver_without_the_power_of_the_machine_is_refused() -> None:
    with pytest.raises(MeterFailed, match="no measured power of the whole machine"):
        DriverSource("host", {}).open(SessionLog())
    with pytest.raises(MeterFailed, match="there is no driver"):
        DriverSource("yokogawaa", {}).open(SessionLog())


def test_of_several_outlets_none_is_taken_for_the_machine(tmp_path: Path) -> None:
    trace = tmp_path / "pdu.csv"
    trace.write_text("t_s,wall1_watts,wall2_watts\n0,250,100\n1,250,100\n")
    with pytest.raises(MeterFailed, match=r"2 machines or outlets.*replay/wall1/wall1_watts, replay/wall2/wall2_watts"):
        DriverSource("replay", {"path": str(trace)}).open(SessionLog())


# ---- the command


def serve(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "director.cli", "serve", "--mlperf", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        ([], "name the meter", 2),
        (["--ptd", "127.0.0.1:x"], "give HOST:PORT", 2),
        (["--ptd", "127.0.0.1:1", "--listen", "0.0.0.0:4950"], "no authentication", 2),
        (["--ptd", "127.0.0.1:1", "--driver", "replay"], "name the meter", 2),
        (["--ptd", "127.0.0.1:1"], "no PTDaemon at 127.0.0.1:1", 1),
        (["--driver", "replay", "--set", "rapl.x=1"], "give replay.KEY=VALUE", 2),
        (["--driver", "replay"], "replay", 1),
    ],
)
def test_mistakes_are_told_before_anybody_connects(words: list[str], told: str, code: int) -> None:
    done = serve(*words)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
