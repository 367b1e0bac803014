"""`power-director recover`: makes a session of what a crash, a kill or a power cut left."""

from __future__ import annotations

from pathlib import Path

import msgspec

from director.answers.report_command import report
from director.running.environment import boot_id
from director.running.notices import say
from director.running.run_options import ReportOptions
from director.session.files import SPOOL, SessionError, hold, load_manifest, spool_path, store_manifest
from director.session.ingest import ingest
from director.session.manifest import Host, Manifest
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
        manifest = load_manifest(session)  # as whoever held it before us left it
        if manifest.state in ("complete", "recovered") and not (session / SPOOL).exists():
            say(f"{session} is {manifest.state}: there is nothing to recover")
        else:
            _refuse_while_sampling(session, manifest)
            lost = [problem for host in manifest.hosts for problem in _lost(session, manifest, host)]
            manifest = msgspec.structs.replace(manifest, missing=[*manifest.missing, *lost])
            store_manifest(session, manifest)
            manifest = ingest(session, "complete" if manifest.state == "complete" else "recovered")
            for problem in manifest.missing:
                say(f"missing: {problem}")
        report(session, options)


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
