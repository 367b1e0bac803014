"""`power-director run`: one measured run of a command, from the first check to its results."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from director.answers.report_command import SUMMARY, explain_failure, report
from director.answers.summary import Summary
from director.running.measurement import Measurement, NotStarted
from director.running.notices import say
from director.running.recording import MARKS
from director.running.run_options import RunOptions, UsageError
from director.session.files import hold
from power_agent.marks import DIRECTORY_VARIABLE
from power_agent.messages import ReplayClockSpec
from power_agent.workload import CannotStart, check_program, deaf_threads, left_behind


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: int  # the job's exit code, or minus the signal that killed it
    interrupted: bool  # somebody asked for the end
    summary: Summary | None = None  # None: there are no results


def run_once(options: RunOptions, session: Path, *, series: str = "", index: int | None = None) -> Outcome:
    """Measure one run into the new directory `session`, compute its results and print them.

    Args:
        options: what was asked for.
        session: the session directory to make.
        series: name of the series that it belongs to.
        index: which run of the series, from 1.

    Raises:
        UsageError, CannotStart: nothing was run.
    """
    if options.argv:
        check_program(options.argv[0])
    options, replay = _with_replay(options)
    make_directory(session)
    session = session.resolve()
    name = f"{series}/{session.name}" if series else session.name
    measurement = Measurement(options, session, name=name, replay=replay, index=index)
    try:
        with hold(session):
            measurement.run()
    except NotStarted as stop:
        shutil.rmtree(session, ignore_errors=True)
        say(str(stop))
        return Outcome(-stop.number, interrupted=True)
    except CannotStart:
        shutil.rmtree(session, ignore_errors=True)
        raise
    except Exception as error:
        work = measurement.manifest.workload
        if work is None or work.ended_ns is None:
            raise
        say(f"warning: measuring ended badly after the job: {type(error).__name__}: {error}")
    workload = measurement.manifest.workload
    status = 0
    if workload is not None:
        status = -workload.signal if workload.signal is not None else workload.exit_code or 0
    try:
        summary = _finish(options, session)
    except Exception as error:  # as where no process can be had: the job's end is told all the same
        say(f"{explain_failure(error)}. For the results: power-director recover {session}")
        summary = None
    return Outcome(status, measurement.interrupted, summary)


def default_directory(options: RunOptions) -> Path:
    """A new folder under ./power-sessions, named by the time (UTC) and the label or the command."""
    name = options.label or (Path(options.argv[0]).name if options.argv else "replay")
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    base = f"{stamp}-" + re.sub(r"[^\w.-]+", "-", name)[:40]
    path, count = Path("power-sessions", base), 1
    while path.exists():
        count += 1
        path = path.with_name(f"{base}-{count}")
    return path


def make_directory(path: Path) -> None:
    """Make a new directory, with its parents, that can be written; an empty one will do.

    Raises:
        UsageError: there is something in it already, or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        str(path.resolve()).encode()
        if any(path.iterdir()):
            raise UsageError(f"the output directory {path} is not empty; name a new one")
        probe = path / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except UnicodeEncodeError as error:
        raise UsageError(f"the output directory {path} has a name that is no UTF-8; name another") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"the output directory {path} cannot be written: {why}; name another") from error


def _with_replay(options: RunOptions) -> tuple[RunOptions, ReplayClockSpec | None]:
    """The options with the driver that replays the trace, and the clock of the trace."""
    if options.replay is None:
        return options, None
    from drivers.contract import Unavailable
    from drivers.replay.driver import trace_start_wall_ns

    path = options.replay.resolve()
    settings = {**options.settings.get("replay", {}), "path": str(path)}
    try:
        with deaf_threads():  # of pyarrow, where the trace is a session
            wall_ns = trace_start_wall_ns(path, settings)
    except Unavailable as error:
        raise UsageError(f"--replay {options.replay}: {error.reason}; {error.fix}") from error
    origin_ns = time.monotonic_ns()
    settings["start_ns"] = str(origin_ns)
    options = replace(
        options,
        drivers=list(dict.fromkeys([*(options.drivers or []), "replay"])),
        settings={**options.settings, "replay": settings},
    )
    return options, ReplayClockSpec(monotonic_origin_ns=origin_ns, wall_origin_ns=wall_ns, speed=options.replay_speed)


def _finish(options: RunOptions, session: Path) -> Summary | None:
    """Ingest and report, in a process of its own; None where that failed, which changes nothing about the job's end.

    What computes results starts threads: in this process they would take the signals of the next run of a series.
    """
    child = os.fork()
    if child == 0:
        os._exit(_ingest_and_report(options, session))
    while True:
        try:
            status = os.waitpid(child, 0)[1]
            break
        except KeyboardInterrupt:
            os.kill(child, signal.SIGINT)  # a terminal has told it, but somebody may mean us alone
    if status:
        return None
    return msgspec.json.decode((session / SUMMARY).read_bytes(), type=Summary)


def _ingest_and_report(options: RunOptions, session: Path) -> int:
    try:
        from director.answers.progress import progress_bar
        from director.session.ingest import ingest

        with hold(session):
            with progress_bar(quiet=options.report.quiet) as step:
                step("storing the readings", 0, 0)
                ingest(session, "complete")
            for pid, name in left_behind(DIRECTORY_VARIABLE, str(session / MARKS)):
                say(f"warning: the job left {name} (pid {pid}) running; what it uses from now on is not counted")
            report(session, options.report)
        return 0
    except KeyboardInterrupt:
        say(f"interrupted; nothing is lost. For the results: power-director recover {session}")
    except Exception as error:  # whatever is wrong with us, the readings are there and the user must know
        say(f"{explain_failure(error)}. The readings are kept. For the results: power-director recover {session}")
    return 1
