"""`power-director run --hosts`: a command on this machine, measured on others by the director that serves here."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from director.answers.report_command import SUMMARY, write_out
from director.answers.summary import Summary
from director.fleet.local_socket import DirectorClient, hosts_to_sample, new_request
from director.running.environment import result_changing
from director.running.fleet_marks import MarksProblem, close_marks, open_marks
from director.running.job_stdout import JobStdout
from director.running.measurement import STDOUT_TIMEOUT_S, NotStarted
from director.running.notices import say
from director.running.run_options import ReportOptions, RunOptions, UsageError
from director.session.files import SPOOL, SessionError, load_manifest
from director.session.fleet_record import Fleet
from director.session.job_record import JobRecord, forget_job, write_job
from director.session.log_files import plan_sources, reads_stdout
from director.session.manifest import PhaseSource
from director.session.manifest import Workload as WorkloadRecord
from power_agent.host_facts import as_text
from power_agent.marks import DIRECTORY_VARIABLE
from power_agent.stages import in_order
from power_agent.wire.messages import SamplerChoices, SessionAnswer, SessionRequest, Stage
from power_agent.workload import CannotStart, Ended, Signals, Workload, check_program, deaf_threads, held_signals

PATIENCE_S = 15.0  # with a director that does not answer, before the job
END_PATIENCE_S = 30.0  # and after it


@dataclass(frozen=True)
class FleetOptions:
    """What makes a run one of several hosts."""

    hosts: list[str]  # empty: all that are free
    sessions: Path
    run_dir: Path
    choices: SamplerChoices
    stages: list[Stage] = field(default_factory=list)  # the command is run once in each; empty: testing alone


def run_on_fleet(options: RunOptions, fleet: FleetOptions) -> int:
    """Measure the hosts while the command runs here. Returns its exit code, or minus the signal that killed it.

    In two stages it is run twice, unless the first time does not end well.

    Raises:
        NoDirector: none serves here; UsageError: it refuses; CannotStart: the command cannot be run. Nothing was run.
    """
    check_program(options.argv[0])
    with deaf_threads():
        client = DirectorClient(fleet.sessions)
    try:
        with held_signals() as signals:
            run = _FleetRun(options, fleet, client, signals)
            try:
                return run.run()
            except NotStarted as stop:
                say("interrupted before the job was started. Nothing was run")
                return -stop.number
    finally:
        client.close()


class _FleetRun:
    def __init__(self, options: RunOptions, fleet: FleetOptions, client: DirectorClient, signals: Signals) -> None:
        self._options = options
        self._fleet = fleet
        self._client = client
        self._signals = signals
        self._sources = plan_sources(options.mllog, options.loadgen, options.phase_patterns, options.phase_log)
        self._stages = in_order(fleet.stages)
        self._stdout: JobStdout | None = None
        self._missing: list[str] = []
        self._idle_ns: list[tuple[int, int]] = []

    def run(self) -> int:
        name = self._begin()
        session = self._fleet.sessions / name
        try:
            status = self._run_stages(session, name)
        except (SessionError, OSError) as error:
            self._end(name, session, report=False)
            raise UsageError(f"the session {name} cannot be used: {error}") from error
        except (NotStarted, CannotStart):
            self._end(name, session, report=False)
            raise
        self._end(name, session, report=True)
        return status

    def _run_stages(self, session: Path, name: str) -> int:
        """Run the command once in each stage; how the last one ended, which is the first that did not end well."""
        record = load_manifest(session).fleet
        assert record is not None
        environment = self._prepare(session, record, name)
        status = 0
        for stage in self._stages:
            is_first, is_last = stage == self._stages[0], stage == self._stages[-1]
            if not is_first:
                self._next_stage(name)
            if is_last:
                self._idle()
            if self._signals.ending is not None:
                if is_first:
                    raise NotStarted(self._signals.ending)
                return -self._signals.ending
            job, started = self._start(session, record, environment, is_last=is_last)
            ended = self._wait(job)
            self._after(session, started, ended, is_last=is_last)
            status = -ended.signal if ended.signal is not None else ended.exit_code or 0
            if status or self._signals.ending is not None:
                break
        return status

    def _wait(self, job: Workload) -> Ended:
        try:
            return job.wait(lambda: None, self._stdout.copy_window_size if self._stdout else lambda: None)
        except Exception as error:  # a mistake of ours: the job goes on, and somebody must wait for it
            self._note(f"a mistake of this program: {type(error).__name__}: {error}")
            return job.wait(lambda: None)

    def _next_stage(self, name: str) -> None:
        """Ask for the testing stage, and wait until it is measured; the job is run in it in any case."""

        def is_done(answer: SessionAnswer) -> bool:
            return (answer.state, answer.stage) == ("measuring", "testing")

        request = SessionRequest(request=new_request(), want="next", session=name)
        awaited = hosts_to_sample(self._fleet.hosts)
        answer = self._client.follow(request, is_done, PATIENCE_S, self._interrupted, awaited)
        if self._signals.ending is not None:
            return
        if answer is None or not is_done(answer):
            why = answer.reason if answer is not None else "the director does not answer"
            self._note(f"the testing stage was not begun: {why}; the job was run in it all the same")
        elif not self._options.report.quiet:
            say("the ranging stage has ended; the job is run again, and measured")

    def _begin(self) -> str:
        """Ask for a session, and wait until its hosts are measured. Returns its name."""
        options = self._options
        request = SessionRequest(
            request=new_request(),
            want="start",
            hosts=self._fleet.hosts,
            label=options.label,
            argv=[as_text(word)[:4096] for word in options.argv[:1000]],
            cwd=_cwd(),
            stages=self._stages,
            choices=self._fleet.choices,
        )
        last: list[SessionAnswer] = []

        def is_done(answer: SessionAnswer) -> bool:
            last[:] = [answer]
            return answer.state == "measuring"

        awaited = hosts_to_sample(self._fleet.hosts)
        answer = self._client.follow(request, is_done, PATIENCE_S, self._interrupted, awaited)
        if answer is not None and answer.state == "refused":
            raise UsageError(answer.reason)
        answer = answer or (last[0] if last else None)
        if answer is None or answer.session is None:
            raise (
                NotStarted(self._signals.ending)
                if self._signals.ending
                else UsageError(f"the director that serves {self._fleet.sessions} does not answer")
            )
        if self._signals.ending is not None:
            self._end(answer.session, self._fleet.sessions / answer.session, report=False)
            raise NotStarted(self._signals.ending)
        if answer.state != "measuring":
            say("warning: the director does not answer any more; the job is started, and what is measured is unknown")
        for warning in answer.warnings:
            say(f"warning: {warning}")
        if not options.report.quiet:
            say(f"measuring into {self._fleet.sessions / answer.session}")
        return answer.session

    def _prepare(self, session: Path, record: Fleet, name: str) -> dict[str, str]:
        """Make the place for marks. Returns the job's environment."""
        try:
            open_marks(session, name, record, self._fleet.run_dir)
        except MarksProblem as problem:
            self._note(str(problem))
        return {**os.environ, DIRECTORY_VARIABLE: str(self._fleet.run_dir / name)}

    def _start(
        self, session: Path, record: Fleet, environment: dict[str, str], *, is_last: bool
    ) -> tuple[Workload, WorkloadRecord]:
        """Start the job, and note what is known of it then. Phases are read from its output in the last stage alone."""
        if is_last and reads_stdout(self._sources):
            self._stdout = JobStdout(session / SPOOL)
        started = WorkloadRecord(
            argv=[as_text(word) for word in self._options.argv],
            cwd=_cwd(),
            host=record.director_host,
            started_ns=time.monotonic_ns(),
        )
        self._write(session, started)
        try:
            job_end = self._stdout.job_end if self._stdout is not None else None
            job = Workload(self._options.argv, environment, self._signals, job_end)
        except CannotStart:
            forget_job(session)
            raise
        if self._stdout is not None:
            self._stdout.given()
        return job, started

    def _after(self, session: Path, started: WorkloadRecord, ended: Ended, *, is_last: bool) -> None:
        """Note how the job ended, whatever state the director is in."""
        work = msgspec.structs.replace(started, ended_ns=time.monotonic_ns(), **vars(ended))
        self._write(session, work)
        if is_last and self._signals.ending is None and self._options.idle_s > 0:
            self._idle()
            self._write(session, work)
        if self._stdout is not None and not self._stdout.finish(STDOUT_TIMEOUT_S):
            self._note("the job's output is still held open or not yet read; its copy may lack the end")
            self._write(session, work)

    def _end(self, name: str, session: Path, *, report: bool) -> None:
        """Ask for the session's end, and show its results when they are there."""
        request = SessionRequest(request=new_request(), want="stop", session=name)
        asked_ending = self._signals.ending
        self._signals.ending = None  # one that asks to end from here on ends the waiting, not the session

        def is_done(answer: SessionAnswer) -> bool:
            return answer.state == "complete" or not report

        answer = self._client.follow(request, is_done, END_PATIENCE_S, self._interrupted)
        interrupted, self._signals.ending = self._signals.ending is not None, asked_ending
        close_marks(name, self._fleet.run_dir)
        if not report:
            return
        if answer is None or answer.state not in ("complete", "refused"):
            why = "interrupted" if interrupted else "the director does not answer"
            say(f"{why}; nothing is lost. For the results: power-director session stop {name}")
        elif answer.state == "refused":
            say(f"the session could not be ended: {answer.reason}")
        else:
            show_results(session, answer, self._options.report)

    def _idle(self) -> None:
        """Take a baseline, and note the time that it really lasted."""
        if self._options.idle_s > 0:
            begin_ns = time.monotonic_ns()
            self._signals.sleep(self._options.idle_s)
            self._idle_ns.append((begin_ns, time.monotonic_ns()))

    def _interrupted(self) -> bool:
        self._signals.take(0.0)
        return self._signals.ending is not None

    def _write(self, session: Path, work: WorkloadRecord) -> None:
        job = JobRecord(
            workload=work,
            phase_sources=[msgspec.structs.replace(source, host=_log_host(source, work)) for source in self._sources],
            environment=result_changing(os.environ),
            idle_ns=self._idle_ns,
            factors=self._options.factors,
            missing=self._missing,
        )
        try:
            write_job(session, job)
        except OSError as error:
            say(f"warning: {session}: what is known of the job cannot be written: {error.strerror}")

    def _note(self, problem: str) -> None:
        self._missing.append(problem)
        say(f"warning: {problem}")


def show_results(session: Path, answer: SessionAnswer, options: ReportOptions) -> bool:
    """Show the results of a session that is complete; False where there are none."""
    from director.answers.terminal_table import print_summary

    try:
        raw = (session / SUMMARY).read_bytes()
        summary = msgspec.json.decode(raw, type=Summary)
    except (OSError, msgspec.DecodeError):
        for warning in answer.warnings:
            say(f"warning: {warning}")
        return False
    if not options.quiet:
        print_summary(summary, sys.stderr, explain=options.explain)
        say(f"to read in a browser: {session / 'report.html'}")
    if options.json is not None:
        write_out(raw, options.json)
    return True


def _log_host(source: PhaseSource, work: WorkloadRecord) -> str:
    """Logs are of this machine; marks are of each host's own."""
    return "" if source.kind == "marks" else work.host


def _cwd() -> str:
    try:
        return as_text(str(Path.cwd()))[:4096]
    except OSError:  # somebody removed it, which is no reason not to run
        return ""
