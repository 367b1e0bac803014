"""The clocks of a session's hosts: what each host's instants are on the session's clock. Traces are read through it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from director.session.clock_model import WALL_APART_NS, ClockModel, Instants, SyncedClock, WallTiedClock
from director.session.clock_pairs import ClockFileError, WallClock
from director.session.manifest import Host, Manifest, StreamFile
from director.session.sync_file import SyncFileError, read_parquet
from director.session.trace_store import Piece, iter_pieces, time_range
from drivers.contract import Channel

WIDE_NS = 10_000_000  # a bound from which on a reader should know of it


class SessionClocks:
    """Every host's clock. A host whose clock is the session's own is passed through at no cost."""

    def __init__(self, session: Path, manifest: Manifest) -> None:
        self._session = session
        self._manifest = manifest
        self._models: dict[str, ClockModel] = {}  # of hosts with another clock than the session's
        self._widest_ns: dict[str, int] = {}
        self._trouble: list[str] = []
        self.lost: set[str] = set()  # hosts whose instants cannot be placed at all
        for host in manifest.hosts:
            if manifest.reference_boot_id not in ("", host.boot_id):
                model = self._model(host)
                if model is None:
                    self.lost.add(host.name)
                else:
                    self._models[host.name] = model

    def to_session(self, host: str, host_ns: Instants) -> tuple[Instants, Instants]:
        """The session's instants of a host's, and how wrong each may be, in ns."""
        model = self._models.get(host)
        if model is None:
            return host_ns, np.zeros(len(host_ns), np.int64)
        at, bound = model.to_session(host_ns)
        self._note(host, bound)
        return at, bound

    def to_host(self, host: str, session_ns: Instants) -> Instants:
        """A host's instants of the session's."""
        model = self._models.get(host)
        return session_ns if model is None else model.to_host(session_ns)

    def bound_at(self, host: str, session_ns: Instants) -> Instants | None:
        """How wrong a host's instants may be there on the session's clock. None: its clock is the session's own."""
        model = self._models.get(host)
        return None if model is None else model.bound(model.to_host(session_ns))

    def workload_span(self) -> tuple[int | None, int | None, int]:
        """Begin and end of the command on the session's clock (None: not seen), and how wrong they may be."""
        work = self._manifest.workload
        if work is None or work.host in self.lost:
            return None, None, 0
        seen = [t for t in (work.started_ns, work.ended_ns) if t is not None]
        at, bound = self.to_session(work.host, np.array(seen, np.int64))
        placed = dict(zip(seen, at.tolist(), strict=True))
        edges = [None if t is None else placed[t] for t in (work.started_ns, work.ended_ns)]
        return edges[0], edges[1], int(bound.max(initial=0))

    def pieces(self, host: str, file: StreamFile, channels: list[Channel]) -> Iterator[Piece]:
        """A trace of the host, on the session's clock; see `iter_pieces`."""
        pieces = iter_pieces(self._session / file.file, channels)
        if host in self.lost:
            return iter(())
        model = self._models.get(host)
        return pieces if model is None else self._placed(host, model, pieces)

    def time_range(self, host: str, file: StreamFile) -> tuple[int, int] | None:
        """The first and last instant of a trace of the host, on the session's clock."""
        found = time_range(self._session / file.file)
        if found is None or host in self.lost:
            return None
        first, last = self.to_session(host, np.array(found, np.int64))[0].tolist()
        return first, last

    def warnings(self) -> list[str]:
        """What a reader must know, of all that was placed so far."""
        wide = [
            f"the clock of {host} is known to within {widest * 1e-9:.3g} s only: its U has grown by that. See that "
            "the network to the director is not congested, and that the agent runs before and after the work"
            for host, widest in self._widest_ns.items()
            if widest >= WIDE_NS and not isinstance(self._models[host], WallTiedClock)
        ]
        return [*self._trouble, *wide]

    def _placed(self, host: str, model: ClockModel, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            if len(piece.t_ns):
                self._note(host, model.bound(piece.t_ns[[0, -1]]))
            yield replace(piece, t_ns=piece.t_ns + model.offset(piece.t_ns))

    def _note(self, host: str, bound: Instants) -> None:
        if len(bound):
            self._widest_ns[host] = max(self._widest_ns.get(host, 0), int(bound.max()))

    def _wall(self, host: Host) -> WallClock:
        if not host.clock_file:
            raise ClockFileError(f"the wall clock of {host.name} was not recorded")
        return WallClock.from_file(self._session / host.clock_file)

    def _model(self, host: Host) -> ClockModel | None:
        reference = self._manifest.reference_boot_id
        reason = "the director heard no exchange of its clock"
        if host.sync_file:
            try:
                path = self._session / host.sync_file
                model = SyncedClock(read_parquet(path, host.boot_id, reference))
            except (SyncFileError, ValueError) as error:
                reason = str(error)
            else:
                self._trouble += [
                    f"the clock of {host.name} and that of the director went apart by {jump.jump_ns * 1e-9:+.3f} s at "
                    "one time, as where a machine sleeps or is moved; readings of that time may be misplaced by as much"
                    for jump in model.jumps
                ]
                return model
        known = [*self._manifest.hosts, *filter(None, [self._manifest.director])]
        directors = [other for other in known if other.boot_id == reference]
        try:
            walls = [self._wall(one) for one in (host, *directors[:1])]
            if not directors:
                raise ClockFileError("no host of the session has the director's clock")
        except ClockFileError as error:
            if not host.streams and not (self._session / "marks" / host.name).exists():
                # Nothing came from it, which is told elsewhere.
                return None
            self._trouble.append(
                f"the clock of {host.name} cannot be tied to the session's: {reason}, and {error}. Its readings and "
                "marks are kept, and no energy of it is given"
            )
            return None
        self._trouble.append(
            f"the clock of {host.name} is tied by wall time alone: {reason}. Its wall clock is taken to be within "
            f"{WALL_APART_NS * 1e-9:g} s of the director's, and U has grown by that"
            + (f"; of that clock the machine says: {host.wall_clock}" if host.wall_clock else "")
        )
        return WallTiedClock(*walls)
