"""MLPerf Inference's power client: ranging and testing of one workload, and the official session folder.

The workload comes first: once it runs, nothing here stops it, and what was measured is kept whatever fails afterwards.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from power_agent.mlperf_link import Link, LinkFailed, Refused
from power_agent.mlperf_loadgen import NoLoadgenLog, copy_logs, find_logs
from power_agent.mlperf_protocol import (
    CLOCKS_APART_S,
    FILES,
    FOLDERS,
    Record,
    checksums,
    is_session_name,
    sources_of,
    write_json,
)
from power_agent.workload import CannotStart, Ended, Workload, held_signals

BACK_WITHIN_S = 60.0
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Plan:
    """What is measured, with which server, and where the folder goes."""

    host: str
    port: int
    workload: str  # a shell command
    ranging_workload: str | None  # a shorter one for the ranging stage; None: the same
    loadgen_logs: Path
    output: Path
    label: str = ""
    ranges: tuple[float, float] | None = None  # volts and amperes: no ranging stage
    stop_server: bool = False
    back_within_s: float = BACK_WITHIN_S  # how long a lost server is looked for after the workload


@dataclass(frozen=True)
class Outcome:
    """How it went."""

    folder: Path | None  # None: no session was begun
    status: int | None  # of the workload that ran last: exit code, or −signal; None: it was not run
    problems: Sequence[str]  # why the folder is not whole


class MlperfClient:
    """Measures one plan, once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._record = Record()
        self._link = Link(plan.host, plan.port, self._record, self._log)
        self._log_lines: list[str] = []
        self._log_file: TextIO | None = None
        self._problems: list[str] = []
        self._session = ""
        self._uuids = (str(uuid.uuid4()), "")
        self._folder: Path | None = None
        self._status: int | None = None

    def run(self) -> Outcome:
        """Measure. Never raises for what a server, a disk or the workload does."""
        try:
            self._open_session()
            for stage in ("testing",) if self._plan.ranges is not None else ("ranging", "testing"):
                if not self._stage(stage):
                    break
        except (LinkFailed, CannotStart, OSError) as error:
            self._problem(str(error))
        except KeyboardInterrupt:
            self._problem("interrupted")
            self._status = 130 if self._status is None else self._status
        self._finish()
        self._link.close()
        return Outcome(self._folder, self._status, self._problems)

    def _open_session(self) -> None:
        plan = self._plan
        self._link.connect()
        if plan.stop_server:
            self._link.expect_ok("stop")
        self._check_clocks_before()
        reply = self._link.command(f"new,{plan.label},{self._uuids[0]}")
        name, comma, server_uuid = reply.removeprefix("OK ").partition(",")
        if not (reply.startswith("OK ") and comma and is_session_name(name)):
            raise LinkFailed(f"the server begins no session: {reply[:200]}")
        self._session, self._uuids = name, (self._uuids[0], server_uuid)
        folder = plan.output / name
        (folder / "power").mkdir(parents=True)
        self._folder = folder
        self._log_file = (folder / "power" / "client.log").open("w", encoding="utf-8", newline="\n")
        self._log_file.writelines(self._log_lines)
        self._say(f"session {name}")

    def _stage(self, stage: str) -> bool:
        """Measure one run of the workload. Whether the next stage makes sense."""
        plan = self._plan
        command = plan.ranging_workload if stage == "ranging" and plan.ranging_workload else plan.workload
        self._check_clocks_before()
        self._record.add_phase(stage)
        given = "" if plan.ranges is None else f",{plan.ranges[0]:g},{plan.ranges[1]:g}"
        self._link.expect_ok(f"session,{self._session},start,{stage}{given}")
        self._record.add_phase(stage)
        self._check_clocks_before()
        self._say(f"{stage}: running the workload")
        began_s = time.time()
        ended = self._run(command)
        ended_s = time.time()
        self._status = ended.exit_code if ended.exit_code is not None else -(ended.signal or 0)
        self._check_clocks_after(stage)
        self._record.add_phase(stage)
        stopped = self._stop(stage)
        self._record.add_phase(stage)
        if stopped:
            self._check_clocks_after(stage)
        copied = self._copy_logs(stage, began_s, ended_s)
        if self._status:
            how = f"exit code {self._status}" if self._status > 0 else f"signal {-self._status}"
            self._problem(f"{stage}: the workload failed with {how}")
            return False
        return stopped and copied

    def _run(self, command: str) -> Ended:
        self._log(f"running the workload {command!r}")
        with held_signals() as signals:
            ended = Workload(["/bin/sh", "-c", command], os.environ, signals).wait(lambda: None)
        self._log(f"the workload ended: exit code {ended.exit_code}, signal {ended.signal}")
        return ended

    def _stop(self, stage: str) -> bool:
        """End the stage at the server, over a new connection if the old one was lost meanwhile."""
        command = f"session,{self._session},stop,{stage}"
        deadline = time.monotonic() + self._plan.back_within_s
        lost = ""
        while True:
            try:
                if lost:
                    self._link.connect()
                    if self._plan.stop_server:  # which the server forgets with the connection
                        self._link.expect_ok("stop")
                self._link.expect_ok(command)
            except LinkFailed as error:
                if isinstance(error, Refused) or time.monotonic() > deadline:
                    self._problem(f"{stage}: {lost or error}")
                    return False
                lost = lost or str(error)
                self._log(f"the server was lost: {error}; trying again")
                time.sleep(1.0)
            else:
                return True

    def _copy_logs(self, stage: str, began_s: float, ended_s: float) -> bool:
        assert self._folder is not None
        try:
            source = find_logs(self._plan.loadgen_logs, began_s, ended_s)
            copy_logs(source, self._folder / FOLDERS[stage])
        except (NoLoadgenLog, OSError) as error:
            self._problem(f"{stage}: {error}")
            return False
        self._log(f"copied LoadGen's logs from {source}")
        return True

    def _finish(self) -> None:
        """Write client.json, end the session, and fetch its files; what fails is a problem more."""
        folder = self._folder
        if folder is None:
            return
        self._log("the runs are done")
        if self._log_file is not None:
            self._log_file.close()
            self._log_file = None
        files = [*(_ROOT / "power_agent").glob("mlperf_*.py"), _ROOT / "drivers" / "line_socket.py"]
        try:
            sources = sources_of(files, _ROOT)
            content = self._record.description(self._session, *self._uuids, checksums(folder), sources)
            notes = ["MLPerf's client.py did not run: power-agent spoke its protocol.", *self._problems]
            write_json(folder / "power" / "client.json", {**content, "notes": notes})
        except OSError as error:
            self._problem(f"client.json: {error}")
        try:
            self._link.expect_ok(f"session,{self._session},done")
        except LinkFailed as error:
            self._problem(f"the session's files stay at the server: {error}")
            return
        missed = 0
        for file in FILES:
            if self._plan.ranges is not None and file.startswith("ranging/"):
                continue
            try:
                self._link.download(self._session, file, folder / file)
            except (LinkFailed, OSError) as error:
                missed += 1
                self._problem(str(error))
        if not missed:
            try:
                self._link.expect_ok(f"cleanup,{self._session}")
            except LinkFailed as error:
                self._say(f"the server did not clean up: {error}")

    def _check_clocks_before(self) -> None:
        apart = max(map(abs, self._link.clocks_apart_s()))
        if apart > CLOCKS_APART_S:
            raise LinkFailed(
                f"the clocks of client and server are up to {apart * 1e3:.0f} ms apart, {CLOCKS_APART_S * 1e3:.0f} ms "
                "are allowed: synchronize both with chrony or NTP; no clock is set here. The workload was not run"
            )

    def _check_clocks_after(self, stage: str) -> None:
        try:
            apart = max(map(abs, self._link.clocks_apart_s()))
        except LinkFailed as error:
            self._log(f"{stage}: the clocks were not compared: {error}")
            return
        if apart > CLOCKS_APART_S:
            self._problem(f"{stage}: after it the clocks of client and server were {apart * 1e3:.0f} ms apart")

    def _problem(self, text: str) -> None:
        self._problems.append(text)
        self._log(text, "ERROR")
        self._say(text)

    def _say(self, text: str) -> None:
        print(f"power-agent: {text}", file=sys.stderr, flush=True)

    def _log(self, text: str, level: str = "INFO") -> None:
        now_s = time.time()
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now_s))},{int(now_s * 1000) % 1000:03d}"
        line = f"power-agent {stamp} [{level}] {text}\n"
        try:
            if self._log_file is not None:
                self._log_file.write(line)
                self._log_file.flush()
            else:
                self._log_lines.append(line)
        except OSError:
            return  # a full disk is told where the folder's files are written
