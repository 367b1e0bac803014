"""The file that a process appends its marks to: one line a write, never an exception, every loss counted."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from os import write
from time import monotonic_ns

MARKS_VERSION = 1
_RANK_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "PMI_RANK")  # torchrun, Open MPI, Slurm, PMI
_HIGH_DESCRIPTOR = 900  # below the usual limit of 1024


class MarkFile:
    """Appends lines to this process's file. One write per line, so threads need no lock."""

    def __init__(self, directory: str, lane: str | None = None) -> None:
        self.lost = 0
        self._torn = False
        self._descriptor = -1
        self.path = f"{directory}/{os.getpid()}-{monotonic_ns()}.marks"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = _out_of_reach(os.open(self.path, flags, 0o666))
        # What marks write to. After trouble it is -1, so that the next write fails at once and comes to
        # `write_after_trouble`; while all is well no mark pays for a test.
        self.fd = self._descriptor
        self.put(_header(lane))

    def put(self, line: bytes) -> None:
        try:
            if write(self.fd, line) != len(line):
                self.note_torn()
        except OSError:
            self.write_after_trouble(line)

    def note_torn(self) -> None:
        """The last line came to the disk in part."""
        self.lost += 1
        self._torn = True
        self.fd = -1

    def write_after_trouble(self, line: bytes) -> None:
        """Write the count of lost marks, then this line; or count this line as lost."""
        if self.fd != -1:  # the first failure: what can be done now was tried just now
            self.fd = -1
            self.lost += 1
            return
        note = b'%b{"op":"lost","count":%d}\n' % (b"\n" if self._torn else b"", self.lost)
        try:
            written = write(self._descriptor, note + line)
        except OSError:
            self.lost += 1
            return
        if written == len(note) + len(line):
            self._torn = False
            self.fd = self._descriptor
        else:
            self.note_torn()

    def finish(self) -> None:
        """At the end of the process: write the count of lost marks if that is possible now, and tell the user."""
        if self.lost:
            lost = self.lost
            if self.fd == -1:
                self.write_after_trouble(b"")
            say(f"{lost} marks could not be written to {self.path}; is the disk full?")

    def retire(self) -> None:
        """Let later marks go nowhere. The descriptor keeps its number, which a thread may be about to write to."""
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, self._descriptor, inheritable=False)
            os.close(nowhere)
        except OSError:
            pass  # the number stays what it was: marks still come to the file

    def __del__(self) -> None:
        if self._descriptor != -1:
            self.close()

    def close(self) -> None:
        self.fd = -1
        try:  # noqa: SIM105 (contextlib would be imported into every workload)
            os.close(self._descriptor)
        except OSError:
            pass
        self._descriptor = -1


def _out_of_reach(fd: int) -> int:
    """Move a descriptor up. Programs that become daemons close the low ones, and get those numbers again for files of
    their own; marks must never land in these."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_DESCRIPTOR)
    except (OSError, ValueError):
        return fd
    os.close(fd)
    return high


def say(text: str) -> None:
    try:  # noqa: SIM105 (as above)
        write(2, f"power-agent: {text}\n".encode("utf-8", "replace"))
    except OSError:
        pass


def _header(lane: str | None) -> bytes:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 (pathlib takes 15 ms)
            boot_id = file.read().strip()
    except OSError:
        boot_id = ""
    header = {
        "op": "header",
        "version": MARKS_VERSION,
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "argv0": str((getattr(sys, "argv", None) or [""])[0])[:256].encode("utf-8", "replace").decode(),
        "rank": _rank(),
        "boot_id": boot_id,
        "lane": lane,
    }
    return json.dumps(header).encode() + b"\n"


def _rank() -> int | None:
    for variable in _RANK_VARIABLES:
        try:
            return int(os.environ[variable])
        except (KeyError, ValueError):
            continue
    return None
