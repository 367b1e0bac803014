"""Which files of a session are sent, and how much of each.

Every user of a host may put files among its marks. Each has an allowance, so that nobody can fill the director's disk
or crowd out the marks of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from power_agent.service.sent_files import MOST_LOOKED_AT, SentFile, sent_files
from power_agent.wire.messages import HostFile

MOST_NAMES_BYTES: Final = 1 << 20  # of all names: they must fit into one HandOver
_host_file: msgspec.msgpack.Decoder[HostFile] = msgspec.msgpack.Decoder(HostFile)


@dataclass(frozen=True)
class Allowance:
    """Of one session."""

    files: int = 10_000  # as many as the director takes
    files_of_user: int = 5000
    bytes_of_user: int = 4 << 30  # about 40 million marks


class SessionFiles:
    """The files of some folders. One thread uses it."""

    def __init__(self, folders: Mapping[str, Path], allowance: Allowance | None = None) -> None:
        """`folders`: where files that begin with "marks" and "logs" are."""
        self._folders = dict(folders)
        self._allowance = allowance or Allowance()
        self._granted: dict[str, int] = {}  # bytes, by name
        self._files_of: Counter[int] = Counter()  # by user
        self._bytes_of: Counter[int] = Counter()
        self._names_bytes = 0
        self._unreadable: set[str] = set()
        self._first_problems: dict[str, str] = {}  # of each kind the first
        self._files_left_out: Counter[int] = Counter()  # by user, when all were last looked at
        self._bytes_left_out: Counter[int] = Counter()

    def found(self) -> Iterator[tuple[str, SentFile]]:
        """Each file that is sent, with its name at the director, and as its size what may be sent of it."""
        files: Counter[int] = Counter()
        size: Counter[int] = Counter()
        for kind, folder in self._folders.items():
            known = [name.removeprefix(f"{kind}/") for name in self._granted if name.startswith(f"{kind}/")]
            for file in sent_files(folder, known=known, on_more=self._note_more):
                name = f"{kind}/{file.name}"
                if name not in self._granted and not self._is_nameable(name, folder):
                    continue
                if name not in self._granted and not self._has_room(name, file.uid):
                    files[file.uid] += 1
                    size[file.uid] += file.size
                elif name not in self._unreadable:
                    granted = self._grant(name, file)
                    size[file.uid] += max(0, file.size - granted)
                    yield name, replace(file, size=min(file.size, granted))
        self._files_left_out, self._bytes_left_out = files, +size

    def is_unreadable(self, name: str, error: OSError) -> None:
        """This one cannot be read: leave it out from now on, unless it is gone anyway."""
        if not isinstance(error, FileNotFoundError):
            self._unreadable.add(name)
            self._first_problems.setdefault("unreadable", f"{name} is not sent: {error.strerror or error}")

    def left_out(self) -> list[str]:
        """What of it is not sent, with figures, which may still rise."""
        allowed = self._allowance
        texts = []
        for uid in sorted(self._files_left_out | self._bytes_left_out):
            files, size = self._files_left_out[uid], self._bytes_left_out[uid]
            which = f"{files} files and {size} bytes" if files else f"{size} bytes"
            texts.append(
                f"{which} that user {uid} put among the marks of this session are left out; of one user "
                f"{allowed.files_of_user} files and {allowed.bytes_of_user} bytes are kept"
            )
        return [*texts[:5], *self._first_problems.values()]

    def problems(self) -> list[str]:
        """The same for a person who looks on, without them."""
        users = ", ".join(str(uid) for uid in sorted(self._files_left_out | self._bytes_left_out)[:20])
        text = f"user {users} puts more among the marks than is kept: the rest is left out"
        return [*([text] if users else []), *self._first_problems.values()]

    def _is_nameable(self, name: str, folder: Path) -> bool:
        try:
            _host_file.decode(msgspec.msgpack.encode(name))
            return True
        except (msgspec.ValidationError, UnicodeEncodeError):
            text = f"{folder}/{name.partition('/')[2]} is not sent: give it a name of letters, digits and . _ + - alone"
            self._first_problems.setdefault("name", text.encode("utf-8", "backslashreplace").decode())
            return False

    def _has_room(self, name: str, uid: int) -> bool:
        allowed = self._allowance
        room = len(self._granted) < allowed.files and self._files_of[uid] < allowed.files_of_user
        return room and self._names_bytes + len(name) <= MOST_NAMES_BYTES

    def _grant(self, name: str, file: SentFile) -> int:
        """How many bytes may be sent of a file; never less than before."""
        if name not in self._granted:
            self._files_of[file.uid] += 1
            self._names_bytes += len(name)
        granted = self._granted.get(name, 0)
        more = min(max(0, file.size - granted), self._allowance.bytes_of_user - self._bytes_of[file.uid])
        self._bytes_of[file.uid] += more
        self._granted[name] = granted + more
        return granted + more

    def _note_more(self) -> None:
        text = f"there are more than {MOST_LOOKED_AT} files among the marks of this session; some are not looked at"
        self._first_problems.setdefault("more", text)
