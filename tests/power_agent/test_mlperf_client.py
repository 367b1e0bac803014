"""MLPerf's power client against our server: the workload comes first, and what was measured is kept."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlperf_bench import FAST_S, WORKLOAD, Bench, agent, description
from ptdaemon_server import PtdaemonServer

from director.mlperf.protocol.ptd_meter import PtdSource
from power_agent.cli import main
from power_agent.mlperf_client import MlperfClient, Plan
from power_agent.mlperf_loadgen import NoLoadgenLog, find_logs, load_times


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with PtdaemonServer(period_s=FAST_S) as ptd:
        yield Bench(tmp_path, ptd, tmp_path)


def source(bench: Bench) -> PtdSource:
    return PtdSource("127.0.0.1", bench.ptd.port, settle_s=0.0, tail_s=0.1, poll_s=0.05)


def plan(bench: Bench, port: int, workload: str, back_within_s: float = 0.0) -> Plan:
    return Plan(
        host="127.0.0.1",
        port=port,
        workload=workload,
        ranging_workload=None,
        loadgen_logs=bench.folder / "logs",
        output=bench.folder / "out",
        ranges=(230.0, 4.0),
        back_within_s=back_within_s,
    )


def loadgen(bench: Bench, seconds: float = 0.3) -> str:
    return shlex.join([sys.executable, str(WORKLOAD), str(bench.folder / "logs"), str(seconds)])


class Proxy:
    """Stands before a server: what it says of the time is moved, and it can cut what passes."""

    def __init__(self, port: int) -> None:
        self.shift_s = 0.0
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            self._open += [client, server]
            for here, there, moves in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass, args=(here, there, moves), daemon=True).start()

    def _pass(self, here: socket.socket, there: socket.socket, moves: bool) -> None:
        with suppress(OSError):
            while content := here.recv(65536):
                if moves and content[:10].isdigit() and content[10:11] == b".":
                    content = f"{float(content) + self.shift_s}\r\n".encode()
                there.sendall(content)
        with suppress(OSError):
            there.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(bench: Bench) -> Iterator[Proxy]:
    with bench.serving(source(bench)) as server:
        proxy = Proxy(server.port)
        try:
            yield proxy
        finally:
            proxy.close()


def test_the_workloads_exit_code_is_kept_and_so_is_what_was_measured(bench: Bench) -> None:
    with bench.serving(source(bench)) as server:
        done = subprocess.run(agent(server, bench, seconds=0.3, code=3), capture_output=True, text=True)
    assert done.returncode == 3
    assert "ranging: the workload failed with exit code 3" in done.stderr
    session = Path(done.stdout.strip())
    assert (session / "ranging" / "spl.txt").stat().st_size > 0
    assert not (session / "run_1" / "mlperf_log_detail.txt").exists()
    assert (bench.ptd.amperes, bench.ptd.volts) == (5.0, 300.0)


def test_the_workloads_output_and_signal_are_its_own(bench: Bench) -> None:
    with bench.serving(source(bench)) as server:
        words = agent(server, bench, "--max-volts", "230", "--max-amps", "4")
        words[words.index("--run-workload") + 1] = "echo out; echo err >&2; kill -TERM $$"
        done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout.startswith("out\n") and "err\n" in done.stderr


def test_clocks_too_far_apart_stop_it_before_the_workload(bench: Bench) -> None:
    with proxied(bench) as proxy:
        proxy.shift_s = 0.5
        outcome = MlperfClient(plan(bench, proxy.port, f"touch {bench.folder / 'ran'}")).run()
    assert outcome.status is None and outcome.folder is None
    assert "no clock is set here" in outcome.problems[0]
    assert not (bench.folder / "ran").exists()


@pytest.mark.parametrize("shift_s", [float("nan"), float("inf"), float("-inf")])
def test_a_servers_time_that_is_none_stops_it_before_the_workload(bench: Bench, shift_s: float) -> None:
    with proxied(bench) as proxy:
        proxy.shift_s = shift_s
        outcome = MlperfClient(plan(bench, proxy.port, f"touch {bench.folder / 'ran'}")).run()
    assert outcome.folder is None and "the server's time is" in outcome.problems[0]
    assert not (bench.folder / "ran").exists()


def test_clocks_too_far_apart_after_the_workload_are_told_and_nothing_is_lost(bench: Bench) -> None:
    with proxied(bench) as proxy:
        client = MlperfClient(plan(bench, proxy.port, loadgen(bench, 1.0)))
        thread = threading.Thread(target=_move_when_it_runs, args=(proxy, bench), daemon=True)
        thread.start()
        outcome = client.run()
        thread.join(10)
    assert outcome.status == 0 and outcome.folder is not None
    assert any("after it the clocks of client and server were" in text for text in outcome.problems)
    assert (outcome.folder / "run_1" / "spl.txt").stat().st_size > 0
    assert (outcome.folder / "run_1" / "mlperf_log_detail.txt").exists()


def _move_when_it_runs(proxy: Proxy, bench: Bench) -> None:
    deadline = time.monotonic() + 10
    while not any("running the workload" in log.read_text() for log in bench.folder.glob("out/*/power/client.log")):
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)
    proxy.shift_s = 3.0


def test_a_connection_lost_while_the_workload_runs_is_made_again(bench: Bench) -> None:
    with proxied(bench) as proxy:
        client = MlperfClient(plan(bench, proxy.port, loadgen(bench, 1.0), back_within_s=10.0))
        thread = threading.Thread(target=_cut_when_it_runs, args=(proxy, bench), daemon=True)
        thread.start()
        outcome = client.run()
        thread.join(10)
    assert outcome.problems == [] and outcome.status == 0 and outcome.folder is not None
    said, heard = ([m["cmd"] for m in description(outcome.folder, side)["messages"]] for side in ("client", "server"))
    assert said == heard and said.count("mlcommons/power client v3") == 2
    assert (outcome.folder / "run_1" / "spl.txt").stat().st_size > 0


def _cut_when_it_runs(proxy: Proxy, bench: Bench) -> None:
    _move_when_it_runs(proxy, bench)
    proxy.shift_s = 0.0
    proxy.cut()


def test_a_server_that_is_gone_costs_its_files_and_not_the_workload(bench: Bench) -> None:
    with proxied(bench) as proxy:
        client = MlperfClient(plan(bench, proxy.port, loadgen(bench, 1.0)))

        def cut() -> None:
            _cut_when_it_runs(proxy, bench)
            proxy.close()

        thread = threading.Thread(target=cut, daemon=True)
        thread.start()
        outcome = client.run()
        thread.join(10)
    assert outcome.status == 0 and outcome.folder is not None
    assert any("files stay at the server" in text for text in outcome.problems)
    assert (outcome.folder / "run_1" / "mlperf_log_detail.txt").exists()
    assert description(outcome.folder, "client")["notes"][1:] != []


def test_no_logs_of_loadgen_are_told(bench: Bench) -> None:
    with bench.serving(source(bench)) as server:
        outcome = MlperfClient(plan(bench, server.port, "true")).run()
    assert outcome.status == 0
    assert any("there is no mlperf_log_detail.txt below it" in text for text in outcome.problems)


def test_nobody_listens_and_nothing_is_run(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    outcome = MlperfClient(plan(bench, port, f"touch {bench.folder / 'ran'}")).run()
    assert outcome.problems == [f"no MLPerf power server at 127.0.0.1:{port}: Connection refused"]
    assert not (bench.folder / "ran").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--server", ":4950"], "give HOST or HOST:PORT"),
        (["--label", "a b"], "only letters"),
        (["--max-amps", "3"], "go together"),
        (["--max-amps", "-3", "--max-volts", "230"], "positive"),
        (["--output", "logs/out"], "must not lie in"),
    ],
)
def test_wrong_usage_is_told(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--server", "h", "--run-workload", "x", "--loadgen-logs", "logs", "--output", "out"]
    assert main(["mlperf", *base, *words]) == 2
    assert told in capsys.readouterr().err


# ---- LoadGen's logs


def test_of_several_logs_that_of_this_run_is_found(tmp_path: Path) -> None:
    for name in ("old", "new"):
        subprocess.run([sys.executable, str(WORKLOAD), str(tmp_path / name / "deep"), "0.05"], check=True)
    times = load_times(tmp_path / "new" / "deep" / "mlperf_log_detail.txt")
    assert find_logs(tmp_path, times["begin"] - 0.01, times["end"] + 0.01) == tmp_path / "new" / "deep"
    with pytest.raises(NoLoadgenLog, match="is of another run, which began"):
        find_logs(tmp_path, times["begin"] + 1, times["end"] + 2)
    (tmp_path / "new" / "deep" / "mlperf_log_summary.txt").unlink()
    with pytest.raises(NoLoadgenLog, match=r"has no mlperf_log_summary\.txt"):
        find_logs(tmp_path, times["begin"] - 0.01, times["end"] + 0.01)


@given(st.binary(max_size=300), st.sampled_from([b"power_begin", b"power_END 99-99-2024 99:99:99.999", b""]))
def test_no_bytes_break_the_search(tmp_path_factory: pytest.TempPathFactory, content: bytes, edge: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "detail"
    path.write_bytes(content[:150] + edge + content[150:])
    load_times(path)
