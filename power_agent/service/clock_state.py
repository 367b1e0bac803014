"""What chrony, PTP and the kernel say of this host's wall clock, for the heartbeat: read at times, never waited for.

Nothing here sets a clock. Tools that are not installed are left out; the kernel always answers.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Final

from power_agent.mark_file import say
from power_agent.service.own_thread import OwnThread

EVERY_S: Final = 60.0
TOOL_S: Final = 2.0  # a tool that takes longer says nothing
_MOST_TEXT: Final = 200
_STA_UNSYNC: Final = 0x0040  # linux/timex.h
_TIME_ERROR: Final = 5
_LEAPS: Final = ("Normal", "Insert second", "Delete second", "Not synchronised")


class ClockState:
    """Runs from `start` to `close`; `latest` never waits."""

    def __init__(self, search_path: str | None = None, tell: Callable[[str], None] = say) -> None:
        """`search_path`: where to look for tools, as PATH; None: PATH."""
        self._search_path = search_path
        self._latest: dict[str, str] = {}
        self._thread = OwnThread("clock state", self._turn, tell)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End; each tool is waited for TOOL_S at most."""
        self._thread.close()

    def latest(self) -> dict[str, str]:
        """What was read last, as text by name; empty before the first look is over."""
        return self._latest

    def _turn(self) -> None:
        self._latest = read_state(self._search_path)
        self._thread.sleep(EVERY_S)


def read_state(search_path: str | None = None) -> dict[str, str]:
    """Ask the kernel and the tools that are there. Takes up to TOOL_S per tool."""
    state = kernel_state()
    chrony = _output(["chronyc", "-n", "-c", "tracking"], search_path)
    if chrony is not None:
        state |= parse_chrony(chrony)
    ptp = _output(["pmc", "-u", "-b", "0", "GET TIME_STATUS_NP"], search_path)
    if ptp is not None:
        state |= parse_ptp(ptp)
    return {name: value[:_MOST_TEXT] for name, value in state.items()}


class _Timex(ctypes.Structure):
    """`struct timex` of linux/timex.h."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def kernel_state() -> dict[str, str]:
    """adjtimex(2), which only reads here: is the wall clock steered by anybody, and how wrong may it be?"""
    timex = _Timex(modes=0)
    result = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if result < 0:
        return {"kernel": f"adjtimex: {os.strerror(ctypes.get_errno())}"}
    steered = result != _TIME_ERROR and not timex.status & _STA_UNSYNC
    state = {"kernel": "synchronised" if steered else "not synchronised", "kernel_ppm": f"{timex.freq / 65536:.3f}"}
    return state | ({"kernel_max_error_s": f"{timex.maxerror * 1e-6:.6f}"} if steered else {})


def parse_chrony(text: str) -> dict[str, str]:
    """The line of `chronyc -c tracking`: fields in the order of its page in the manual."""
    fields = text.strip().split(",")
    try:
        stratum, offset, ppm, delay, dispersion = (fields[2], *(float(fields[i]) for i in (4, 7, 10, 11)))
    except (IndexError, ValueError):
        return {"chrony": "its answer is not understood"}
    leap = fields[13] if len(fields) > 13 else ""
    if not all(map(math.isfinite, (offset, ppm, delay, dispersion))):
        return {"chrony": "its answer is not understood"}
    return {
        "chrony": "not synchronised" if leap not in _LEAPS[:3] else f"{fields[1] or fields[0]}, stratum {stratum}",
        "chrony_offset_s": f"{offset:.9f}",
        "chrony_ppm": f"{ppm:.3f}",
        "chrony_root_distance_s": f"{delay / 2 + dispersion:.9f}",  # RFC 5905: how wrong it may be against true time
    }


def parse_ptp(text: str) -> dict[str, str]:
    """What `pmc` says of ptp4l: TIME_STATUS_NP of linuxptp."""
    found = dict(re.findall(r"^\s*(master_offset|gmPresent|gmIdentity)\s+(\S+)\s*$", text, re.MULTILINE))
    if "master_offset" not in found:
        return {"ptp": "ptp4l does not answer"}
    state = {
        "ptp": f"grandmaster {found.get('gmIdentity', '')}" if found.get("gmPresent") == "true" else "no grandmaster"
    }
    return state | {"ptp_offset_ns": found["master_offset"]}


def _output(command: list[str], search_path: str | None) -> str | None:
    """What a tool prints; None: it is not there, or does not answer."""
    program = shutil.which(command[0], path=search_path)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, timeout=TOOL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
