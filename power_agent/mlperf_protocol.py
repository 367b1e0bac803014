"""MLPerf Inference's own power protocol, version 3: its words, its files, and the record that both sides keep.

Lines of text over TCP, one reply per command; files come in chunks, each with its length before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from drivers.line_socket import LineSocket

DEFAULT_PORT = 4950
CLIENT_GREETING = "mlcommons/power client v3"
SERVER_GREETING = "mlcommons/power server v3"
OK = "OK"
STAGES = ("ranging", "testing")
FOLDERS: Mapping[str, str] = {"ranging": "ranging", "testing": "run_1"}
FILES = (
    "power/ptd_logs.txt",
    "ranging/spl.txt",
    "power/server.json",
    "power/server.log",
    "run_1/spl.txt",
    "run_1/ptd_out.txt",
)
CLOCKS_APART_S = 0.4  # more, and the official scripts do not measure
MAX_CHUNK_BYTES = 1 << 20
MAX_MESSAGES = 10_000
SEND_S = 60.0
_LABEL = re.compile(r"[-_A-Za-z0-9]{0,100}", re.ASCII)
_NAME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_[-_A-Za-z0-9]{0,100})?", re.ASCII)


def is_label(text: str) -> bool:
    """Whether a session may be labelled so."""
    return _LABEL.fullmatch(text) is not None


def is_session_name(text: str) -> bool:
    """Whether a session may be called so, and a folder with it."""
    return _NAME.fullmatch(text) is not None


def send_file(lines: LineSocket, path: Path) -> None:
    """Send a file in chunks.

    Raises:
        OSError: it cannot be read, or the other side is gone; before the first byte only where it cannot be opened.
    """
    with path.open("rb") as file:
        while chunk := file.read(MAX_CHUNK_BYTES):
            lines.send_line(str(len(chunk)), SEND_S)
            lines.send_bytes(chunk, SEND_S)
    lines.send_line("0", SEND_S)


def receive_file(lines: LineSocket, timeout_s: float) -> Iterator[bytes]:
    """The chunks of a file.

    Raises:
        ValueError: the other side sends something else: its text.
        Closed, TimeoutError: the other side is gone, or silent.
    """
    while True:
        text = lines.read_line(timeout_s)
        if not re.fullmatch(r"\d{1,7}", text, re.ASCII) or int(text) > MAX_CHUNK_BYTES:
            raise ValueError(text[:200])
        if not int(text):
            return
        yield lines.read_bytes(int(text), timeout_s)


class Record:
    """What `client.json` and `server.json` tell: messages, and when each stage was begun and ended."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.phases: dict[str, list[tuple[float, float]]] = {stage: [] for stage in STAGES}

    def add_message(self, command: str, command_s: float, reply: str) -> None:
        """A command and its reply, which was sent or came just now."""
        self.messages.append({"cmd": command, "cmd_time": command_s, "reply": reply, "reply_time": time.time()})

    def add_phase(self, stage: str) -> None:
        """The next of a stage's four instants: start asked, started, stop asked, stopped."""
        self.phases[stage].append((time.time(), time.monotonic()))

    def description(
        self, session: str, client_uuid: str, server_uuid: str, results: Mapping[str, str], sources: Mapping[str, str]
    ) -> dict[str, Any]:
        """The fields that both files have."""
        return {
            "version": "1.0",
            "timezone": -time.localtime().tm_gmtoff,
            "modules": {},
            "sources": dict(sources),
            "messages": self.messages,
            "uuid": {"client": client_uuid, "server": server_uuid},
            "session_name": session,
            "results": dict(results),
            "phases": self.phases,
        }


def checksums(folder: Path) -> dict[str, str]:
    """SHA-1 of every file below a folder, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha1(path) for path in files}


def sources_of(files: Iterable[Path], root: Path) -> dict[str, str]:
    """SHA-1 of our own source files, in the place of those of the official scripts."""
    return {path.relative_to(root).as_posix(): sha1(path) for path in sorted(files)}


def sha1(path: Path) -> str:
    """SHA-1 of a file, as MLPerf's scripts take it."""
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(MAX_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a description whole or not at all; a power cut leaves the old one or the new one."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        json.dump(content, file, indent=4, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
