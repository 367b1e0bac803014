"""One measurement: sampler, idle baseline, job, tail. It ends with everything in the session's spool directory."""

from __future__ import annotations

import os
import signal
import socket
import time
from importlib.metadata import version
from pathlib import Path

import msgspec

from director.running.environment import as_text, boot_id, describe_host, result_changing
from director.running.job_stdout import JobStdout
from director.running.notices import say
from director.running.recorder import Recorder
from director.running.run_options import RunOptions
from director.running.workload import Signals, Workload, held_signals
from director.session.files import SPOOL, give_up_reserve, reserve_space, spool_path, store_manifest
from director.session.log_files import plan_sources, reads_stdout
from director.session.manifest import Host, Manifest
from director.session.manifest import Workload as WorkloadFacts
from power_agent.clock import make_clock
from power_agent.messages import ReplayClockSpec, SamplerSpec

MARKS_VARIABLE = "POWER_AGENT_MARKS"
REPEAT_VARIABLE = "POWER_AGENT_REPEAT"
STDOUT_TIMEOUT_S = 10.0


class NotStarted(Exception):
    """Somebody asked for the end before the job was started, by this signal."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted before the job was started. Nothing was run, and no session is kept")
        self.number = number


def _workload(argv: list[str], host: str) -> WorkloadFacts:
    try:
        folder = as_text(str(Path.cwd()))
    except OSError:  # somebody removed it, which is no reason not to run
        folder = ""
    return WorkloadFacts(argv=[as_text(word) for word in argv], cwd=folder, host=host)


class Measurement:
    """Measures one run into a new session directory."""

    def __init__(
        self, options: RunOptions, session: Path, *, name: str, replay: ReplayClockSpec | None, index: int | None
    ) -> None:
        self._options = options
        self._session = session
        self._clock = make_clock(replay)
        self._speed = replay.speed if replay is not None else 1.0
        self._stdout: JobStdout | None = None
        self.interrupted = False  # somebody asked for the end
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

    def run(self) -> None:
        """Do it all.

        Raises:
            NotStarted, CannotStart: the job was not started.
            OSError: the session directory cannot be written; the job was not started.
        """
        for folder in (SPOOL, "marks"):
            (self._session / folder).mkdir()
        reserve_space(self._session)
        store_manifest(self._session, self.manifest)
        try:
            recorder = Recorder(self._sampler_spec(), self._session / SPOOL)
            if recorder.ready is not None:
                host = msgspec.structs.replace(self.manifest.hosts[0], drivers=recorder.ready.drivers)
                self._change(hosts=[host])
            self._announce(recorder)
            if reads_stdout(self.manifest.phase_sources):
                self._stdout = JobStdout(self._session / SPOOL)
        except KeyboardInterrupt:
            raise NotStarted(signal.SIGINT) from None
        with held_signals() as signals:
            try:
                self._idle(signals)
                if signals.ending is not None:
                    raise NotStarted(signals.ending)
                if self._options.argv:
                    self._run_job(recorder, signals)
                else:
                    self._wait_for_trace(signals)
                if signals.ending is None:
                    self._idle(signals)
                signals.sleep(recorder.tail_s / self._speed, to_the_end=True)
            finally:
                recorder.stop()
            if self._stdout is not None and not self._stdout.finish(STDOUT_TIMEOUT_S):
                say("warning: the job's output is still held open or not yet read; its copy may lack the end")
            self._change(state="ingesting", missing=recorder.problems)
            self._store_if_possible()
        self.interrupted = signals.ending is not None

    def _run_job(self, recorder: Recorder, signals: Signals) -> None:
        environment = {**os.environ, MARKS_VARIABLE: str(self._session / "marks")}
        if self.manifest.repeat_index is not None:
            environment[REPEAT_VARIABLE] = str(self.manifest.repeat_index)
        started_ns = self._clock.monotonic_ns()
        stdout = self._stdout
        job = Workload(self._options.argv, environment, signals, stdout.job_end if stdout is not None else None)
        self._change_workload(started_ns=started_ns)
        try:
            if stdout is not None:
                stdout.given()
            recorder.work_started(job.pid)
            self._store_if_possible()
            ended = job.wait(recorder.look, stdout.copy_window_size if stdout is not None else lambda: None)
        except Exception as error:  # a mistake of ours: the job goes on, and somebody must wait for it
            recorder.note(f"a mistake of this program: {type(error).__name__}: {error}; the job goes on unwatched")
            ended = job.wait(lambda: None)
        ended_ns = self._clock.monotonic_ns()
        self._change_workload(ended_ns=ended_ns, **vars(ended))
        recorder.work_ended()
        self._store_if_possible()

    def _wait_for_trace(self, signals: Signals) -> None:
        """Where nothing is run, the session lasts as long as the replayed trace."""
        from drivers.replay.driver import trace_duration_ns

        replay = self.manifest.replay_clock
        assert replay is not None and self._options.replay is not None
        duration_ns = trace_duration_ns(self._options.replay, self._options.settings.get("replay", {}))
        left_ns = replay.monotonic_origin_ns + duration_ns - self._clock.monotonic_ns()
        signals.sleep(left_ns * 1e-9 / self._speed)

    def _idle(self, signals: Signals) -> None:
        """Take a baseline, and note the time that it really lasted."""
        if self._options.idle_s <= 0:
            return
        begin_ns = self._clock.monotonic_ns()
        signals.sleep(self._options.idle_s / self._speed)
        self._change(idle_ns=[*self.manifest.idle_ns, (begin_ns, self._clock.monotonic_ns())])

    def _sampler_spec(self) -> SamplerSpec:
        host = self.manifest.hosts[0].name
        return SamplerSpec(
            spool=str(spool_path(self._session, host)),
            host=host,
            drivers=self._options.drivers,
            rates_hz=self._options.rates_hz,
            settings=self._options.settings,
            root=str(self._options.root.resolve()),
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
        say(f"measuring {names or 'nothing: no device can be read here'} into {self._session}")

    def _change_workload(self, **facts: object) -> None:
        assert self.manifest.workload is not None
        self._change(workload=msgspec.structs.replace(self.manifest.workload, **facts))

    def _change(self, **fields: object) -> None:
        self.manifest = msgspec.structs.replace(self.manifest, **fields)

    def _store_if_possible(self) -> None:
        """Once the job runs, a full disk is no reason to disturb it, but how it ended must not be lost."""
        try:
            try:
                store_manifest(self._session, self.manifest)
            except OSError:
                if not give_up_reserve(self._session):
                    raise
                store_manifest(self._session, self.manifest)
        except OSError as error:
            say(f"warning: {self._session}: the manifest cannot be written: {error.strerror}")
