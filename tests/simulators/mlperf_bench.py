"""A simulated PTDaemon, our server of MLPerf's power protocol, and clients of it."""

from __future__ import annotations

import json
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ptdaemon_server import PtdaemonServer

from director.mlperf.inference.checker_versions import checker_of_round
from director.mlperf.inference.official_checks import official_checks
from director.mlperf.protocol.meter import MeterSource
from director.mlperf.protocol.ptd_meter import PtdSource
from director.mlperf.protocol.server import MlperfServer
from drivers.line_socket import LineSocket, connect
from power_agent.mlperf_protocol import CLIENT_GREETING, SERVER_GREETING, receive_file

ROOT = Path(__file__).parents[2]
WORKLOAD = ROOT / "tests" / "simulators" / "loadgen_workload.py"
COMMAND = "ptd-linux-x86 -l ptd.log -p 8888 -c 1,3 -y 77 10.0.0.1"
SOURCES = {"Check client sources checksum", "Check server sources checksum"}
CLIENT_UUID = "096f8d8b-fe7a-4428-a88e-1e77867ce45d"
DEADLINE_S = 20.0
FAST_S = 0.03


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_text(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Until standard error holds a text."""
    told = [""]

    def is_told() -> bool:
        told[0] += capsys.readouterr().err
        return text in told[0]

    wait_for(is_told)


@dataclass
class Bench:
    """A PTDaemon, and our server before it."""

    folder: Path
    ptd: PtdaemonServer
    ptd_log: Path
    sessions: list[LineSocket] = field(default_factory=list)
    server: MlperfServer | None = None

    @property
    def output(self) -> Path:
        return self.folder / "server"

    def source(self) -> PtdSource:
        return PtdSource(
            "127.0.0.1", self.ptd.port, self.ptd_log, COMMAND, settle_s=0.02, tail_s=0.1, poll_s=0.1, log_wait_s=0.3
        )

    @contextmanager
    def serving(self, source: MeterSource | None = None, rejoin_s: float = 600.0) -> Iterator[MlperfServer]:
        server = MlperfServer("127.0.0.1", 0, self.output, source or self.source(), rejoin_s=rejoin_s)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join(DEADLINE_S)
            assert not thread.is_alive()

    def only_session(self) -> Path:
        (folder,) = self.output.iterdir()
        return folder


class Client:
    """Says by hand what a client says."""

    def __init__(self, server: MlperfServer, greeting: str = CLIENT_GREETING) -> None:
        self.lines = connect("127.0.0.1", server.port, 5.0)
        if greeting:
            assert self.say(greeting) == SERVER_GREETING

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()

    def say(self, text: str) -> str:
        self.lines.send_line(text, 5.0)
        return self.lines.read_line(DEADLINE_S)

    def new(self, label: str = "") -> str:
        reply = self.say(f"new,{label},{CLIENT_UUID}")
        match = re.fullmatch(r"OK (\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d[-_\w]*),[0-9a-f-]{36}", reply)
        assert match is not None, reply
        return match[1]

    def download(self, session: str, file: str) -> bytes:
        self.lines.send_line(f"download,{session},{file}", 5.0)
        return b"".join(receive_file(self.lines, DEADLINE_S))


def agent(server: MlperfServer, bench: Bench, *more: str, seconds: float = 0.6, code: int = 0) -> list[str]:
    """The command of our client."""
    workload = shlex.join([sys.executable, str(WORKLOAD), str(bench.folder / "logs"), str(seconds), str(code)])
    return [
        *(sys.executable, "-m", "power_agent.cli", "mlperf", "--server", f"127.0.0.1:{server.port}"),
        *("--run-workload", workload, "--loadgen-logs", str(bench.folder / "logs")),
        *("--output", str(bench.folder / "out"), *more),
    ]


def failing(session: Path, round_name: str = "6.1") -> set[str]:
    version = checker_of_round(round_name)
    assert version is not None
    return {result.name for result in official_checks(session, version) if result.outcome == "FAIL"}


def description(session: Path, side: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads((session / "power" / f"{side}.json").read_text())
    return content
