"""Where the job of a session of several hosts makes its marks: one path that is the same on every host.

An agent makes that directory on its host, and hands over what comes there. On a machine without an agent of the
session, such as often the director's, it is a link into the session's own directory.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from director.session.fleet_record import Fleet
from power_agent.host_facts import boot_id


class MarksProblem(Exception):
    """The directory for marks cannot be had here: why. Marks that the job makes on this machine will be missing."""


def open_marks(session: Path, name: str, fleet: Fleet, run_dir: Path) -> None:
    """See that the directory for the marks of a session is on this machine, too.

    Raises:
        MarksProblem: it cannot be made.
    """
    path = run_dir / name
    if any(record.boot_id == boot_id() or record.host == socket.gethostname() for record in fleet.agents):
        return  # that agent makes it, or has
    target = session / "marks" / fleet.director_host
    try:
        target.mkdir(exist_ok=True)
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(target.resolve())
        elif path.resolve() != target.resolve():
            raise FileExistsError(17, "there is another link", str(path))
    except OSError as error:
        why = error.strerror or str(error)
        raise MarksProblem(f"{path} cannot be made: {why}; marks of this machine are lost; see --run-dir") from error


def close_marks(name: str, run_dir: Path) -> None:
    """Remove the link, if there is one; what was marked is in the session.

    The directory of the links goes with the last of them: an agent that is started here later wants one of its own.
    """
    with suppress(OSError):
        if (run_dir / name).is_symlink():
            (run_dir / name).unlink()
            run_dir.rmdir()
