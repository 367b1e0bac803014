"""`power-director recover`: makes a session of what a crash, a kill or a power cut left."""

from __future__ import annotations

from pathlib import Path

import msgspec

from director.answers.progress import progress_bar
from director.answers.report_command import report
from director.running.notices import say
from director.running.run_options import ReportOptions
from director.running.series import SeriesRun, load_series, report_series, store_series
from director.session.files import MANIFEST, SPOOL, SessionError, hold, load_manifest, spool_path, store_manifest
from director.session.ingest import ingest
from director.session.job_record import with_job
from director.session.manifest import Host, Manifest
from power_agent.host_facts import boot_id
from power_agent.spool import SpoolDamaged, SpoolReader


def recover(session: Path, options: ReportOptions) -> None:
    """Finish a session that was left unfinished, and report it. Doing it twice changes nothing.

    Raises:
        SessionError: it is not a session, or is still being measured.
        OSError: the disk is full or fails.
    """
    session = session.resolve()
    load_manifest(session)
    with hold(session):
        if not _finish(session, options):
            say(f"{session} is {load_manifest(session).state}: there is nothing to recover")
        report(session, options)


def recover_series(directory: Path, options: ReportOptions) -> None:
    """Finish every run of a series that was left unfinished, and report the series. Doing it twice changes nothing.

    Raises:
        SessionError: it is not a series, or a run is damaged or still being measured; the others are finished.
        OSError: the disk is full or fails.
    """
    directory = directory.resolve()
    series = load_series(directory)
    listed = {run.directory for run in series.runs}
    refusals, finished = [], 0
    for path in sorted(directory.glob(f"run-*/{MANIFEST}")):
        session = path.parent
        try:
            with hold(session):
                finished += _finish(session, options)
        except SessionError as error:
            refusals.append(str(error))
            continue
        if session.name not in listed:  # the director died before it could
            series.runs.append(_run_as_found(session))
            store_series(directory, series)
    if refusals:
        raise SessionError("\n".join(refusals))
    if not finished:
        say(f"every run of {directory} is finished: there is nothing to recover")
    report_series(directory, options)


def _run_as_found(session: Path) -> SeriesRun:
    """A run whose end the series does not tell. Where its session does not either, it counts as interrupted."""
    work = load_manifest(session).workload
    if work is None or (work.exit_code is None and work.signal is None):
        return SeriesRun(directory=session.name, status=0, interrupted=True)
    return SeriesRun(directory=session.name, status=-work.signal if work.signal is not None else work.exit_code or 0)


def _finish(session: Path, options: ReportOptions) -> bool:
    """Make a session of what is there, for whoever holds it; False where that was done before."""
    manifest = load_manifest(session)
    if manifest.state in ("complete", "recovered") and not (session / SPOOL).exists():
        return False
    _refuse_while_sampling(session, manifest)
    fleet, still_to_come = manifest.fleet, []
    if fleet is None:
        lost = [problem for host in manifest.hosts for problem in _lost(session, manifest, host)]
        store_manifest(session, msgspec.structs.replace(manifest, missing=[*manifest.missing, *lost]))
    else:
        still_to_come = [record.host for record in fleet.agents if record.agent and not record.whole]
        fleet.state = "complete"
        store_manifest(session, with_job(session, manifest))
    with progress_bar(quiet=options.quiet) as step:
        step("storing the readings", 0, 0)
        manifest = ingest(session, "complete" if manifest.state == "complete" else "recovered", still_to_come)
    if options.quiet:  # else the report tells it
        for problem in manifest.missing:
            say(f"missing: {problem}")
    return True


def _refuse_while_sampling(session: Path, manifest: Manifest) -> None:
    for host in manifest.hosts:
        meta = _meta(session, host)
        here = bool(host.boot_id) and host.boot_id == boot_id()
        if here and _is_sampler(meta.get("pid", ""), session):
            work = meta.get("work_pid")
            until = f"until the job (pid {work}) has ended" if work is not None else "until it has ended"
            raise SessionError(
                f"{session} is still being measured: the sampler (pid {meta['pid']}) goes on {until}; "
                "recover it after that"
            )


def _is_sampler(pid: str, session: Path) -> bool:
    """Whether that process is the sampler of this session, and not a later process of the same number."""
    try:
        command = Path("/proc", pid, "cmdline").read_bytes() if pid.isdecimal() else b""
    except OSError:
        return False
    return b"power_agent.sampler" in command and str(session).encode() in command


def _lost(session: Path, manifest: Manifest, host: Host) -> list[str]:
    """What an early end took, in plain words."""
    if manifest.state != "measuring":
        return []
    lost = []
    meta = _meta(session, host)
    workload = manifest.workload
    if not spool_path(session, host.name).exists():
        lost.append(f"there is no spool of {host.name}: no readings")
    elif "finished_ns" not in meta:
        lost.append(f"sampling on {host.name} was cut off: the readings of its last second may be missing")
    if workload is not None and workload.ended_ns is None:
        if "work_ended_ns" in meta:
            lost.append("the director died before the job ended: how the job ended and what it used is not known")
        elif "work_pid" in meta:
            lost.append("the job's end was not seen: its energy is given up to the last reading")
        else:
            lost.append("the director died before it had started the job, or at that moment")
    return lost


def _meta(session: Path, host: Host) -> dict[str, str]:
    try:
        reader = SpoolReader(spool_path(session, host.name))
    except SpoolDamaged:
        return {}  # ingest says what is wrong with it
    try:
        return reader.meta()
    finally:
        reader.close()
