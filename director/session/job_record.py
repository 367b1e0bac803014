"""The job of a session of several hosts, as `power-director run --hosts` notes it for whoever makes the session.

It lies in the session's spool directory from the job's start on: the manifest belongs to the director that serves.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from director.session.files import SPOOL, give_up_reserve, write_durably
from director.session.manifest import Factors, Manifest, PhaseSource, Workload

_JOB = f"{SPOOL}/job.json"


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a job adds to the manifest."""

    workload: Workload
    phase_sources: list[PhaseSource]
    environment: dict[str, str] = {}
    idle_ns: list[tuple[int, int]] = []
    factors: Factors = Factors()
    missing: list[str] = []


def write_job(session: Path, job: JobRecord) -> None:
    """Note it, durable.

    Raises:
        OSError: the disk is full or fails.
    """
    try:
        write_durably(session / _JOB, msgspec.json.encode(job))
    except OSError:
        if not give_up_reserve(session):
            raise
        write_durably(session / _JOB, msgspec.json.encode(job))


def with_job(session: Path, manifest: Manifest) -> Manifest:
    """The manifest with what was noted of the job, if anything was."""
    missing: list[str] = []
    try:
        job = msgspec.json.decode((session / _JOB).read_bytes(), type=JobRecord)
    except FileNotFoundError:
        return manifest
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        missing = [f"{session / _JOB} cannot be read ({error}): what job was run, and how it ended, is not known"]
        return msgspec.structs.replace(manifest, missing=[*manifest.missing, *missing])
    if job.workload.ended_ns is None:
        missing = ["`power-director run` died before the job ended: how the job ended is not known"]
    return msgspec.structs.replace(
        manifest,
        workload=job.workload,
        phase_sources=job.phase_sources,
        environment=job.environment,
        idle_ns=job.idle_ns,
        factors=job.factors,
        missing=list(dict.fromkeys([*manifest.missing, *job.missing, *missing])),
    )


def forget_job(session: Path) -> None:
    """Take back what was noted: the job was not started."""
    with suppress(OSError):
        (session / _JOB).unlink()
