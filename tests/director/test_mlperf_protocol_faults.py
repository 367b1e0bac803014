"""What goes wrong between a client, our server and PTDaemon; and clients that mean harm."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meter_core import MeterCore
from meter_wire import TcpMeter
from metered_load import SquareLoad
from mlperf_bench import (
    CLIENT_UUID,
    FAST_S,
    Bench,
    Client,
    description,
    wait_for,
    wait_for_text,
)
from ptdaemon_server import Load, PtdaemonServer
from yokogawa_meter import Wt300

from director.mlperf.protocol.conversation import MAX_MISTAKES, Conversation
from director.mlperf.protocol.desk import Desk
from director.mlperf.protocol.driver_meter import DriverSource
from director.mlperf.protocol.meter import RangesAsked, SampleFile
from director.mlperf.protocol.ptd_meter import PtdSource
from director.mlperf.protocol.server import MAX_CONNECTIONS
from director.mlperf.protocol.session_log import SessionLog
from drivers.line_socket import Closed, LineSocket
from power_agent.mlperf_protocol import CLIENT_GREETING, SERVER_GREETING

# ---- what goes wrong


def test_a_lost_client_may_come_back_and_nothing_is_lost(bench: Bench) -> None:
    with bench.serving() as server:
        with Client(server) as client:
            name = client.new()
            assert client.say("session,*,start,testing,239,4") == "OK"
        spl = bench.output / name / "run_1" / "spl.txt"
        log = bench.output / name / "power" / "server.log"
        wait_for(lambda: "the client is lost" in log.read_text())
        before = spl.stat().st_size
        wait_for(lambda: spl.stat().st_size > before)  # measuring goes on
        with Client(server) as client:
            assert client.say("session,*,stop,testing") == "Error: unknown session"
            assert client.say(f"session,{name},stop,testing") == "OK"
            assert client.say("session,*,done") == "OK"
            server_json = json.loads(client.download(name, "power/server.json"))
    commands = [message["cmd"] for message in server_json["messages"]]
    assert commands.count(CLIENT_GREETING) == 2 and commands[-1] == f"session,{name},stop,testing"
    assert len(server_json["phases"]["testing"]) == 4


def test_a_client_that_does_not_come_back_leaves_a_whole_folder(bench: Bench) -> None:
    with bench.serving(rejoin_s=0.3) as server:
        with Client(server) as client:
            name = client.new()
            assert client.say("session,*,start,testing,239,4") == "OK"
        wait_for(lambda: (bench.output / name / "power" / "ptd_logs.txt").exists())
        wait_for(lambda: (bench.output / name / "power" / "server.json").exists())
        with Client(server) as client:
            client.new()
    server_json = description(bench.output / name, "server")
    assert len(server_json["phases"]["testing"]) == 4
    assert any("did not come back" in note for note in server_json["notes"])
    assert (bench.ptd.amperes, bench.ptd.volts) == (20.0, 600.0)


def test_a_server_that_is_stopped_keeps_what_was_measured(bench: Bench) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(bench.serving())
        client = stack.enter_context(Client(server))
        name = client.new()
        client.say("session,*,start,ranging")
        wait_for(lambda: (bench.output / name / "ranging" / "spl.txt").stat().st_size > 0)
        server.stop()
        wait_for(lambda: (bench.output / name / "power" / "server.json").exists())
    assert len(description(bench.output / name, "server")["phases"]["ranging"]) == 4


def test_a_second_client_waits_for_nobody_and_is_told_who_measures(bench: Bench) -> None:
    with bench.serving() as server, Client(server) as first, Client(server) as second:
        name = first.new()
        assert first.say("session,*,start,ranging") == "OK"
        assert float(second.say("time")) > 0
        reply = second.say(f"new,,{CLIENT_UUID}")
        assert reply.startswith(f"Error: session {name} of 127.0.0.1:")
        assert first.say("session,*,stop,ranging") == "OK"
        first.say("session,*,done")
        assert second.new() != name


def test_ptdaemon_is_lost_and_comes_back(bench: Bench) -> None:
    with bench.serving() as server, Client(server) as client:
        name = client.new()
        assert client.say("session,*,start,testing,239,4") == "OK"
        spl = bench.output / name / "run_1" / "spl.txt"
        wait_for(lambda: spl.stat().st_size > 0)
        bench.ptd.disconnect()
        log = bench.output / name / "power" / "server.log"
        wait_for(lambda: "PTDaemon measures again" in log.read_text())
        before = spl.stat().st_size
        wait_for(lambda: spl.stat().st_size > before)
        assert client.say("session,*,stop,testing") == "OK"
        assert client.say("session,*,done") == "OK"
    assert (bench.ptd.amperes, bench.ptd.volts) == (20.0, 600.0)
    assert bench.ptd.commands.count("SR,A,4") == 2


def test_ptdaemon_is_gone_at_the_end_and_what_it_gave_is_kept(bench: Bench) -> None:
    with bench.serving() as server, Client(server) as client:
        name = client.new()
        assert client.say("session,*,start,testing,239,4") == "OK"
        spl = bench.output / name / "run_1" / "spl.txt"
        wait_for(lambda: spl.stat().st_size > 0)
        bench.ptd.close()
        assert client.say("session,*,stop,testing") == "OK"
        assert client.say("session,*,done") == "OK"
    notes = description(bench.output / name, "server")["notes"]
    assert any("initial ranges could not be set again" in note for note in notes)
    assert spl.stat().st_size > 0


def test_no_ptdaemon_is_a_clear_answer_and_another_try_is_welcome(bench: Bench) -> None:
    bench.ptd.close()
    with bench.serving() as server, Client(server) as client:
        client.new()
        assert client.say("session,*,start,ranging").startswith("Error: no PTDaemon at 127.0.0.1:")
        assert client.say("session,*,start,ranging").startswith("Error: no PTDaemon at 127.0.0.1:")


def test_a_range_that_does_not_exist_is_a_clear_answer(bench: Bench) -> None:
    with bench.serving() as server, Client(server) as client:
        client.new()
        assert "there is no range for 50" in client.say("session,*,start,testing,239,50")
        assert client.say("session,*,start,testing,239,4") == "OK"


def test_uncertainty_above_one_percent_is_told_while_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with PtdaemonServer(lambda t_s: Load(100.0), period_s=FAST_S) as ptd:
        bench = Bench(tmp_path, ptd, tmp_path)
        source = PtdSource("127.0.0.1", ptd.port, settle_s=0.0, tail_s=0.1, poll_s=0.05)
        with bench.serving(source) as server, Client(server) as client:
            client.new()
            assert client.say("session,*,start,testing,230,20") == "OK"  # 0.05 % of 6 kVA are 3 W
            wait_for_text(capsys, "uncertainty is above 1%")


def test_clipping_is_told_while_it_runs(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    with bench.serving() as server, Client(server) as client:
        client.new()
        assert client.say("session,*,start,testing,239,1") == "OK"
        wait_for_text(capsys, "the meter clips in its range of 1 A")


def test_a_clock_of_ptdaemon_that_is_not_utc_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with PtdaemonServer(period_s=FAST_S, local_hours=-7.0) as ptd:
        bench = Bench(tmp_path, ptd, tmp_path)
        source = PtdSource("127.0.0.1", ptd.port, settle_s=0.0, tail_s=0.1, poll_s=0.05)
        with bench.serving(source) as server, Client(server) as client:
            client.new()
            client.say("session,*,start,ranging")
            client.say("session,*,stop,ranging")
    assert "-7.00 h off UTC: start it with TZ=UTC" in capsys.readouterr().err


def test_a_full_disk_holds_up_nothing(tmp_path: Path) -> None:
    samples = SampleFile(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        samples.write(["a"])
    with pytest.raises(OSError, match="No space left"):
        samples.write(["b"])
    assert samples.lost_lines == 0
    assert bytes(samples._waiting) == b"a\nb\n"
    samples.close()
    assert samples.lost_lines == 2, "nothing took them"


def test_what_a_full_disk_did_not_take_is_written_at_the_end(tmp_path: Path) -> None:
    samples = SampleFile(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        samples.write(["a", "b"])
    disk = os.open(tmp_path / "spl.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(disk, samples._fd)  # as if there were room again
    samples.close()
    os.close(disk)
    assert (samples.lost_lines, (tmp_path / "spl.txt").read_text()) == (0, "a\nb\n")


def test_a_range_that_is_refused_at_the_end_keeps_no_other_from_being_set(bench: Bench) -> None:
    with bench.serving() as server, Client(server) as client:
        name = client.new()
        assert client.say("session,*,start,testing,239,4") == "OK"
        bench.ptd.faults.refuses = "SR,V"
        assert client.say("session,*,stop,testing") == "OK"
        assert client.say("session,*,done") == "OK"
    assert bench.ptd.amperes == 20.0
    assert any("initial range of V" in note for note in description(bench.output / name, "server")["notes"])


def test_a_meter_of_ours_that_is_lost_keeps_the_ranges_of_its_stage(tmp_path: Path) -> None:
    core = MeterCore(time.monotonic, [SquareLoad(400.0, 400.0)], volts_range=300.0, amperes_range=20.0)
    with contextlib.closing(TcpMeter(Wt300(core))) as line:
        source = DriverSource("wt310e", {"port": line.place, "volts": "230", "amps": "10"}, tail_s=0.0)
        meter = source.open(SessionLog())
        samples = SampleFile(tmp_path / "spl.txt")
        meter.begin("testing", "mark", samples, RangesAsked("230", "2"))
        assert core.amperes_range == 2.0
        line.drop()
        core.amperes_range = 20.0  # as a meter that was without current
        wait_for(lambda: core.amperes_range != 20.0)
        assert core.amperes_range == 2.0
        meter.end()
        samples.close()
        meter.close()


# ---- hostile clients


def test_a_line_without_end_is_cut_off(bench: Bench) -> None:
    with bench.serving() as server, Client(server) as client:
        with contextlib.suppress(Closed, TimeoutError):
            for _ in range(200):
                client.lines.send_bytes(b"x" * 65536, 5.0)
        with pytest.raises(Closed):
            client.lines.read_line(5.0)
        with Client(server) as other:
            other.new()


def test_binary_is_answered_or_cut_off(bench: Bench) -> None:
    with bench.serving() as server:
        with Client(server, greeting="") as client:
            client.lines.send_bytes(bytes(range(256)) + b"\n", 5.0)
            assert client.lines.read_line(5.0) == SERVER_GREETING
            with pytest.raises(Closed):
                client.lines.read_line(5.0)
        with Client(server) as client, pytest.raises(Closed):  # twenty mistakes
            for _ in range(50):
                assert client.say("\x00\xff,,,").startswith("Error")
        with Client(server) as client:
            client.new()


def test_silent_clients_block_nobody(bench: Bench) -> None:
    with bench.serving() as server, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(Client(server, greeting="")) for _ in range(MAX_CONNECTIONS - 1)]
        silent[0].lines.send_bytes(b"mlcomm", 5.0)  # and stops
        with Client(server) as client:
            client.new()
            client.say("session,*,done")
            surplus = Client(server, greeting="")
            assert surplus.lines.read_line(5.0) == "Error: too many connections"
            surplus.lines.close()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=60),
            st.lists(
                st.sampled_from(
                    [
                        "new",
                        "session",
                        "*",
                        "",
                        "start",
                        "stop",
                        "ranging",
                        "testing",
                        "done",
                        "download",
                        "cleanup",
                        "../..",
                        "1e999",
                        "nan",
                        "239",
                    ]
                ),
                max_size=6,
            ).map(",".join),
        ),
        max_size=30,
    )
)
def test_no_words_break_a_conversation(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> None:
    """Whatever a client says, it gets a line per line, and no meter that is not there is used."""
    desk = Desk(tmp_path_factory.getbasetemp() / "fuzz", DriverSource("nothing", {}))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours = LineSocket(listener.accept()[0])
    lines = [CLIENT_GREETING, *(text.replace("\n", " ") for text in said)]
    theirs.sendall("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
    theirs.shutdown(socket.SHUT_WR)
    with contextlib.suppress(Closed):
        Conversation(ours, "fuzz", desk).run()
    ours.close()
    with theirs, theirs.makefile("rb") as replies:
        found = replies.read().splitlines()
    assert found[0] == SERVER_GREETING.encode()
    mistakes = sum(line.startswith(b"Error") for line in found)
    assert len(found) == len(lines) or mistakes == MAX_MISTAKES
