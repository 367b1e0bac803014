"""`server.log`: written as it happens, and shown to who runs the server."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Literal, TextIO

_KEPT = 2000  # lines before a session has a file


class SessionLog:
    """Lines of one connection, and of its session from `open` on. Any thread may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before: list[str] = []
        self._file: TextIO | None = None
        self.warnings: list[str] = []  # each text once

    def open(self, path: Path) -> None:
        """Write to a file from now on, what came before included."""
        with self._lock:
            self._file = path.open("a", encoding="utf-8", newline="\n")
            self._file.writelines(self._before)
            self._file.flush()
            self._before.clear()

    def info(self, text: str) -> None:
        self._write("INFO", text)

    def warn(self, text: str) -> None:
        """A line that whoever runs the server sees too, once per text."""
        with self._lock:
            new = text not in self.warnings and len(self.warnings) < _KEPT
            if new:
                self.warnings.append(text)
        self._write("WARNING", text)
        if new:
            print(f"power-director: warning: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the file; later lines are kept in memory, within a bound, and go nowhere."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, level: Literal["INFO", "WARNING"], text: str) -> None:
        now_s = time.time()
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now_s))},{int(now_s * 1000) % 1000:03d}"
        line = f"power-director {stamp} [{level}] {text}\n"
        with self._lock:
            if self._file is not None:
                try:
                    self._file.write(line)
                    self._file.flush()
                except OSError as error:  # a full disk must not end a measurement
                    print(f"power-director: server.log: {error}", file=sys.stderr, flush=True)
            elif len(self._before) < _KEPT:
                self._before.append(line)
