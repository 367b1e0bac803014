"""One session of MLPerf's protocol: its stages, and the official folder that is left of it."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path
from typing import Literal

from director.mlperf.protocol.meter import MeterFailed, MeterSource, RangesAsked, SampleFile, StageMeter
from director.mlperf.protocol.session_log import SessionLog
from power_agent.mlperf_protocol import FOLDERS, Record, checksums, sources_of, write_json

State = Literal["initial", "ranging", "ranging done", "testing", "testing done", "done"]
NOT_OFFICIAL = "MLPerf's server.py did not run: power-director spoke its protocol and measured."
_ROOT = Path(__file__).parents[3]
_SOURCES = ("director/mlperf/protocol", "drivers/ptdaemon")
_NEW_NAME_S = 3.0


class Session:
    """Belongs to one thread at a time, which holds `lock`."""

    def __init__(self, root: Path, label: str, client_uuid: str, source: MeterSource, log: SessionLog) -> None:
        """Make its folder.

        Raises:
            OSError: it cannot be made.
        """
        self.folder = _new_folder(root, label)
        self.name = self.folder.name
        self.server_uuid = str(uuid.uuid4())
        self.state: State = "initial"
        self.notes: list[str] = [NOT_OFFICIAL]
        self.log = log
        self.lock = threading.RLock()  # of whoever works on it
        self._client_uuid = client_uuid
        self._source = source
        self._meter: StageMeter | None = None
        self._samples: SampleFile | None = None
        self._ranges: RangesAsked | None = None
        self._power = self.folder / "power"
        self._power.mkdir()
        log.open(self._power / "server.log")

    @property
    def measures(self) -> bool:
        """Whether a stage runs."""
        return self.state in FOLDERS

    def start(self, stage: str, ranges: RangesAsked | None, record: Record) -> str:
        """Begin a stage. Returns the reply."""
        if self.state == stage:
            return "OK"
        ready = {"initial"} if stage == "ranging" else {"ranging done"} | ({"initial"} if ranges is not None else set())
        if self.state not in ready:
            if stage == "testing" and self.state == "initial":
                return "Error: testing needs ranging before it, or volts and amperes after it"
            return f"Error: {stage} cannot begin, the session is in state {self.state}"
        if stage == "testing" and ranges is None:
            ranges = self._ranges
        record.add_phase(stage)
        folder = self.folder / FOLDERS[stage]
        try:
            folder.mkdir(exist_ok=True)
            if self._meter is None:
                self._meter = self._source.open(self.log)
            samples = SampleFile(folder / "spl.txt")
            try:
                self._meter.begin(stage, f"{self.name}_{stage}", samples, ranges)
            except MeterFailed:
                samples.close()
                raise
        except (MeterFailed, OSError) as error:
            record.phases[stage].pop()
            self.log.warn(f"{stage} did not begin: {error}")
            return f"Error: {error}"
        self._samples = samples
        self.state = "ranging" if stage == "ranging" else "testing"
        record.add_phase(stage)
        return "OK"

    def stop(self, stage: str, record: Record) -> str:
        """End a stage. Returns the reply."""
        if self.state == f"{stage} done":
            return "OK"
        if self.state != stage or self._meter is None or self._samples is None:
            return f"Error: {stage} does not run, the session is in state {self.state}"
        record.add_phase(stage)
        told = self._meter.end()
        self._samples.close()
        if self._samples.lost_lines:
            self.log.warn(f"{stage}: {self._samples.lost_lines} samples were lost, the disk did not take them")
        self._samples = None
        if stage == "ranging":
            self._ranges = self._meter.ranges_for_testing()
        else:
            self._write("run_1/ptd_out.txt", told)
        self.state = "ranging done" if stage == "ranging" else "testing done"
        record.add_phase(stage)
        self._save(record)
        return "OK"

    def finish(self, record: Record) -> None:
        """End what runs, give the meter back, and write the folder's descriptions. Never raises."""
        if self.state == "done":
            return
        if self.measures:
            self.stop(self.state, record)
        if self._meter is not None:
            self._meter.close()
            try:
                self._meter.write_logs(self._power)
            except OSError as error:
                self.log.warn(f"ptd_logs.txt was not written: {error}")
        self.state = "done"
        self.log.info(f"the session's folder is {self.folder}")
        self.log.close()
        self._save(record)

    def _save(self, record: Record) -> None:
        files = (file for part in _SOURCES for file in (_ROOT / part).glob("*.py"))
        try:
            content = record.description(
                self.name,
                self._client_uuid,
                self.server_uuid,
                {path: sha for path, sha in checksums(self.folder).items() if path != "power/server.json"},
                sources_of(files, _ROOT),
            )
            content.update({"ptd_messages": [], "ptd_config": []} if self._meter is None else self._meter.description())
            write_json(self._power / "server.json", {**content, "notes": [*self.notes, *self.log.warnings]})
        except OSError as error:
            self.log.warn(f"server.json was not written: {error}")

    def _write(self, path: str, text: str) -> None:
        try:
            (self.folder / path).write_text(text, encoding="utf-8")
        except OSError as error:
            self.log.warn(f"{path} was not written: {error}")


def _new_folder(root: Path, label: str) -> Path:
    """A folder named after the time and the label; within one second there can be one of each label."""
    root.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _NEW_NAME_S
    while True:
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        folder = root / (f"{stamp}_{label}" if label else stamp)
        try:
            folder.mkdir()
        except FileExistsError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return folder
