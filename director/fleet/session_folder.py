"""The directory of a fleet's session: made, written durably, and held against others."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from director.session.files import (
    MANIFEST,
    SPOOL,
    SessionError,
    give_up_reserve,
    hold,
    load_manifest,
    reserve_space,
    spool_path,
    store_manifest,
    sync_directory,
)
from director.session.fleet_record import Fleet
from director.session.manifest import Host, Manifest, PhaseSource, Workload
from power_agent.clock import HostClock, read_pair
from power_agent.spool import SpoolUnwritable, SpoolWriter

MARKS = "marks"
LOCAL: Final = "@local"  # who asked for a session on the director's own machine; no host can be called so


class SessionFolder:
    """One session's directory while this director keeps it."""

    def __init__(self, path: Path, manifest: Manifest, tell: Callable[[str], None]) -> None:
        self.path = path
        self.manifest = manifest
        self._tell = tell
        self._held = ExitStack()
        self._unwritable = False
        self._clock: SpoolWriter | None = None
        self._clock_failed = False

    @property
    def name(self) -> str:
        """The session's name."""
        return self.manifest.session

    @classmethod
    def make(
        cls,
        path: Path,
        name: str,
        fleet: Fleet,
        *,
        label: str,
        workload: Workload | None,
        tell: Callable[[str], None],
    ) -> SessionFolder:
        """Make the directory of a new session, durable.

        Raises:
            OSError: it cannot be written; nothing of it is left.
        """
        manifest = Manifest(
            tool_version=version("ml-power-agent"),
            session=name,
            label=label,
            state="measuring",
            created_wall_ns=time.time_ns(),
            hosts=hosts_of(fleet),
            reference_boot_id=fleet.director_boot_id if fleet.asker else "",
            workload=workload,
            phase_sources=[PhaseSource(kind="marks", file=MARKS)],
            fleet=fleet,
        )
        path.mkdir()
        try:
            for folder in (SPOOL, MARKS):
                (path / folder).mkdir()
            reserve_space(path)
            store_manifest(path, manifest)
            sync_directory(path.parent)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        folder_of_it = cls(path, manifest, tell)
        folder_of_it.hold()
        return folder_of_it

    def hold(self) -> None:
        """Keep `recover` and other directors out.

        Raises:
            SessionError: another one is at work there.
        """
        self._held.enter_context(hold(self.path))

    def release(self) -> None:
        """Let others in, and record the clock no more."""
        if self._clock is not None:
            self._clock.close()
            self._clock = None
        self._held.close()

    def save(self, fleet: Fleet) -> bool:
        """Write the manifest with this record; False where that cannot be done now, which is told once."""
        manifest = msgspec.structs.replace(self.manifest, fleet=fleet, hosts=hosts_of(fleet, self.manifest.hosts))
        if fleet.state == "ingesting" and manifest.state == "measuring":
            manifest = msgspec.structs.replace(manifest, state="ingesting")
        try:
            try:
                store_manifest(self.path, manifest)
            except OSError:
                if not give_up_reserve(self.path):
                    raise
                store_manifest(self.path, manifest)
        except OSError as error:
            if not self._unwritable:
                self._tell(
                    f"session {self.name}: its manifest cannot be written: {error.strerror}; the session waits where "
                    "it is until that works again, and the agents go on"
                )
            self._unwritable = True
            return False
        if self._unwritable:
            self._tell(f"session {self.name}: its manifest can be written again")
        self._unwritable = False
        self.manifest = manifest
        return True

    def reload(self) -> None:
        """Read the manifest that another process has written.

        Raises:
            SessionError: it is not there or damaged.
        """
        self.manifest = load_manifest(self.path)

    def record_clock(self) -> None:
        """Note the director's wall clock beside its monotonic clock, for logs that are stamped in wall time."""
        fleet = self.manifest.fleet
        if fleet is None:
            return
        path = spool_path(self.path, fleet.director_host)
        try:
            if self._clock is None:
                if path.exists() and not path.stat().st_size:  # it could not be made when the disk was full
                    path.unlink()
                self._clock = SpoolWriter(path, {"host": fleet.director_host}, resume=path.exists())
            self._clock.write(clock=[read_pair(HostClock())])
        except (SpoolUnwritable, OSError) as error:
            if not self._clock_failed:
                self._tell(f"session {self.name}: the director's wall clock is not recorded until that works: {error}")
            self._clock_failed = True
        else:
            self._clock_failed = False


def hosts_of(fleet: Fleet, known: Sequence[Host] = ()) -> list[Host]:
    """The manifest's hosts: the one that asked first. What ingest found of them is kept."""
    by_name = {host.name: host for host in known}
    hosts: list[Host] = []
    for record in fleet.agents:
        before = by_name.get(record.host, Host(name=record.host))
        host = msgspec.structs.replace(
            before,
            boot_id=record.boot_id or before.boot_id,
            system=record.system or before.system,
            drivers=record.drivers or before.drivers,
        )
        hosts.insert(0 if record.host == fleet.asker else len(hosts), host)
    return hosts


def director_host(hosts: Sequence[str]) -> str:
    """The name under which the director's machine stands in a session: an agent on it may have that machine's own."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname() or "director").lstrip(".-")[:50] or "director"
    return name if name not in hosts else f"{name}-director"


def new_name(sessions: Path, label: str) -> str:
    """The name of a new session, by the time (UTC) and what it is called."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    base = f"{stamp}-" + (re.sub(r"[^A-Za-z0-9_.+-]+", "-", label)[:40] or "session")
    name, count = base, 1
    while (sessions / name).exists():
        count += 1
        name = f"{base}-{count}"
    return name


def find_folders(sessions: Path, tell: Callable[[str], None]) -> Iterator[SessionFolder]:
    """The sessions that a director kept, in the order of their names; those that cannot be read are told of."""
    for path in sorted(sessions.glob(f"*/{MANIFEST}")):
        folder = open_folder(path.parent, tell)
        if folder is not None:
            yield folder


def open_folder(path: Path, tell: Callable[[str], None]) -> SessionFolder | None:
    """The session in a directory, if a director kept it; where it cannot be read that is told."""
    try:
        # A look is cheaper than reading each of thousands of manifests with all its types.
        if b'"fleet": {' not in (path / MANIFEST).read_bytes():
            return None
        manifest = load_manifest(path)
    except (OSError, SessionError) as error:
        tell(f"{error}; it is left as it is")
        return None
    return SessionFolder(path, manifest, tell) if manifest.fleet is not None else None
