"""A disk so small that a test can fill it: a tmpfs, which root alone may mount."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path


class SmallDisk:
    """A file system of its own at `path`, until closed; where that is not allowed, a plain folder."""

    def __init__(self, path: Path, mib: int) -> None:
        path.mkdir()
        self.path = path
        self._ballast = path / "ballast"
        words = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(path)]
        self.is_small = os.getuid() == 0 and subprocess.run(words, capture_output=True).returncode == 0

    def fill(self, seconds: float) -> None:
        """Keep it full for so long, to the last byte."""
        end_s = time.monotonic() + seconds
        with self._ballast.open("ab", buffering=0) as ballast:
            while time.monotonic() < end_s:
                with suppress(OSError):
                    while ballast.write(bytes(1 << 20)):
                        pass
                time.sleep(0.02)

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        if self.is_small:
            subprocess.run(["umount", "-l", str(self.path)], check=True)
