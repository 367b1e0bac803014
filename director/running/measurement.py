"""One measured run: sampler, idle baseline, job, tail. It ends with everything in the session's spool directory."""

from __future__ import annotations

import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path

from director.running.job_stdout import JobStdout
from director.running.live_line import live_line
from director.running.notices import say
from director.running.recording import Recording
from director.running.run_options import RunOptions
from director.session.files import SPOOL, spool_path
from director.session.log_files import reads_stdout
from director.session.manifest import Manifest
from power_agent.clock import make_clock
from power_agent.marks import DIRECTORY_VARIABLE
from power_agent.messages import ReplayClockSpec
from power_agent.recorder import Recorder
from power_agent.workload import Signals, Workload, held_signals

REPEAT_VARIABLE = "POWER_AGENT_REPEAT"
STDOUT_TIMEOUT_S = 10.0


class NotStarted(Exception):
    """Somebody asked for the end before the job was started, by this signal."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted before the job was started. Nothing was run, and no session is kept")
        self.number = number


class Measurement:
    """Measures one run into a new session directory."""

    def __init__(
        self, options: RunOptions, session: Path, *, name: str, replay: ReplayClockSpec | None, index: int | None
    ) -> None:
        self._options = options
        self._recording = Recording(options, session, name=name, replay=replay, index=index)
        self._clock = make_clock(replay)
        self._speed = replay.speed if replay is not None else 1.0
        self._stdout: JobStdout | None = None
        self.interrupted = False  # somebody asked for the end

    @property
    def manifest(self) -> Manifest:
        """What is known so far."""
        return self._recording.manifest

    def run(self) -> None:
        """Do it all.

        Raises:
            NotStarted, CannotStart: the job was not started.
            OSError: the session directory cannot be written; the job was not started.
        """
        recording = self._recording
        try:
            recorder = recording.begin()
            if reads_stdout(self.manifest.phase_sources):
                self._stdout = JobStdout(recording.session / SPOOL)
        except KeyboardInterrupt:
            raise NotStarted(signal.SIGINT) from None
        with held_signals() as signals:
            try:
                self._idle(signals)
                if signals.ending is not None:
                    raise NotStarted(signals.ending)
                with self._live_line():
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
            recording.change(state="ingesting", missing=recorder.problems)
            recording.store_if_possible()
        self.interrupted = signals.ending is not None

    def _live_line(self) -> AbstractContextManager[None]:
        host = self.manifest.hosts[0].name
        spool = spool_path(self._recording.session, host)
        has_job = bool(self._options.argv)
        return live_line(self._options.live, spool, self._recording.marks, host, self._clock, has_job=has_job)

    def _run_job(self, recorder: Recorder, signals: Signals) -> None:
        recording = self._recording
        environment = {**os.environ, DIRECTORY_VARIABLE: str(recording.marks)}
        if self.manifest.repeat_index is not None:
            environment[REPEAT_VARIABLE] = str(self.manifest.repeat_index)
        started_ns = self._clock.monotonic_ns()
        stdout = self._stdout
        job = Workload(self._options.argv, environment, signals, stdout.job_end if stdout is not None else None)
        recording.change_workload(started_ns=started_ns)
        try:
            if stdout is not None:
                stdout.given()
            recorder.work_started(job.pid)
            recording.store_if_possible()
            ended = job.wait(recorder.look, stdout.copy_window_size if stdout is not None else lambda: None)
        except Exception as error:  # a mistake of ours: the job goes on, and somebody must wait for it
            recorder.note(f"a mistake of this program: {type(error).__name__}: {error}; the job goes on unwatched")
            ended = job.wait(lambda: None)
        ended_ns = self._clock.monotonic_ns()
        recording.change_workload(ended_ns=ended_ns, **vars(ended))
        recorder.work_ended()
        recording.store_if_possible()

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
        self._recording.change(idle_ns=[*self.manifest.idle_ns, (begin_ns, self._clock.monotonic_ns())])
