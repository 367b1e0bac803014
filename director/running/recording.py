"""A session while it is measured: its directory, its manifest and its sampler, for whatever is measured in it."""

from __future__ import annotations

import os
import socket
import time
from importlib.metadata import version
from pathlib import Path

import msgspec

from director.running.environment import result_changing
from director.running.estimate_notice import estimate_notice
from director.running.notices import say
from director.running.run_options import RunOptions
from director.session.files import SPOOL, give_up_reserve, reserve_space, spool_path, store_manifest
from director.session.log_files import plan_sources
from director.session.manifest import Host, Manifest, Workload
from power_agent.host_facts import as_text, boot_id, describe_host
from power_agent.messages import ReplayClockSpec, SamplerSpec
from power_agent.recorder import Recorder

MARKS = "marks"


class Recording:
    """Begins a session in an empty directory and keeps its manifest true."""

    def __init__(
        self,
        options: RunOptions,
        session: Path,
        *,
        name: str,
        replay: ReplayClockSpec | None = None,
        index: int | None = None,
    ) -> None:
        self.session = session
        self._options = options
        host = socket.gethostname() or "host"
        self.manifest = Manifest(
            tool_version=version("ml-power-agent"),
            session=name,
            label=options.label,
            state="measuring",
            created_wall_ns=time.time_ns(),
            hosts=[Host(name=host, boot_id=boot_id(), system=describe_host())],
            workload=_workload(options.argv, host) if options.argv else None,
            phase_sources=plan_sources(options.mllog, options.loadgen, options.phase_patterns, options.phase_log),
            environment=result_changing(os.environ),
            replay_clock=replay,
            factors=options.factors,
            repeat_index=index,
        )

    @property
    def marks(self) -> Path:
        """Where the workload's marks come."""
        return self.session / MARKS

    def begin(self, *, restarts: bool = True) -> Recorder:
        """Make the session and start its sampler. `restarts`: somebody looks after it once a second.

        Raises:
            OSError: the session directory cannot be written.
        """
        for folder in (SPOOL, MARKS):
            (self.session / folder).mkdir()
        reserve_space(self.session)
        store_manifest(self.session, self.manifest)
        recorder = Recorder(self._sampler_spec(), self.session / SPOOL, tell=say, restarts=restarts)
        if recorder.ready is not None:
            self.change(hosts=[msgspec.structs.replace(self.manifest.hosts[0], drivers=recorder.ready.drivers)])
        self._announce(recorder)
        return recorder

    def change(self, **fields: object) -> None:
        """Change the manifest."""
        self.manifest = msgspec.structs.replace(self.manifest, **fields)

    def change_workload(self, **facts: object) -> None:
        """Change what the manifest says of the workload."""
        assert self.manifest.workload is not None
        self.change(workload=msgspec.structs.replace(self.manifest.workload, **facts))

    def store_if_possible(self) -> None:
        """Once the job runs, a full disk is no reason to disturb it, but how it ended must not be lost."""
        try:
            try:
                store_manifest(self.session, self.manifest)
            except OSError:
                if not give_up_reserve(self.session):
                    raise
                store_manifest(self.session, self.manifest)
        except OSError as error:
            say(f"warning: {self.session}: the manifest cannot be written: {error.strerror}")

    def _sampler_spec(self) -> SamplerSpec:
        host = self.manifest.hosts[0].name
        return SamplerSpec(
            spool=str(spool_path(self.session, host)),
            host=host,
            drivers=self._options.drivers,
            rates_hz=self._options.rates_hz,
            settings=self._options.settings,
            root=str(self._options.root.resolve()),
            characteristics=None if self._options.use_characteristics else "",
            replay_clock=self.manifest.replay_clock,
        )

    def _announce(self, recorder: Recorder) -> None:
        if recorder.ready is None:
            return
        for state in recorder.ready.drivers:
            if not state.usable and self._options.drivers is not None:
                recorder.note(f"{state.driver} cannot be used: {state.reason}; {state.fix}")
        if self._options.report.quiet:
            return
        names = ", ".join(f"{stream.driver}.{stream.group}" for stream in recorder.ready.streams)
        say(f"measuring {names or 'nothing: no device can be read here'} into {self.session}")
        notice = estimate_notice(recorder.ready)
        if notice and self.manifest.repeat_index in (None, 1):
            say(notice)


def _workload(argv: list[str], host: str) -> Workload:
    try:
        folder = as_text(str(Path.cwd()))
    except OSError:  # somebody removed it, which is no reason not to run
        folder = ""
    return Workload(argv=[as_text(word) for word in argv], cwd=folder, host=host)
