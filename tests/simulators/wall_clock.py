"""Processes whose wall clock a test sets, while nobody else's moves: builds wall_clock.c, which is preloaded."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from nvml_stub import compiler

SOURCE = Path(__file__).with_suffix(".c")


def build(directory: Path) -> Path:
    """Compile the library. A compiler must be there: see nvml_stub.compiler."""
    found = compiler()
    assert found is not None
    library = directory / "libwall_clock.so"
    options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([found, *options, "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


class WallClock:
    """The wall clock of those processes that are started with `environment`."""

    def __init__(self, library: Path | None, file: Path) -> None:
        """Without a library the clock cannot be set."""
        self._file = file
        self.offset_s = 0
        file.write_bytes(bytes(8))
        self.environment = {} if library is None else {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(file)}

    def step(self, seconds: int) -> None:
        """Set it, from one instant to the next."""
        self.offset_s += seconds
        with self._file.open("r+b") as file:  # in place: it is mapped
            file.write(struct.pack("=q", self.offset_s * 1_000_000_000))
