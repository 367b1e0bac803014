"""The command line that PTDaemon was started with, as `server.json` records it."""

from __future__ import annotations

import shlex
from typing import Any

from director.mlperf.inference.checker_versions import CheckerVersion


def ptd_config(command: str, meter: str, version: CheckerVersion) -> Any:
    """PTDaemon's command line, taken apart: `ptd … [-c first,number] [-D] [-n|-g|-y|-U] TYPE PORT`.

    Args:
        meter: PTDaemon's name for the meter that it reads.

    Raises:
        ValueError: it is no such command line, or of another meter.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"--ptd-command cannot be read: {error}") from error
    expected = version.meters.get(meter)
    if len(words) < 3 or not words[-2].isdecimal() or int(words[-2]) != expected:
        raise ValueError(
            f"--ptd-command is to end in device number and port, as in 'ptd-linux-x86 -l ptd.log -p 8888 "
            f"{expected or 8} /dev/ttyUSB0'; PTDaemon's log is of {meter}, number {expected or 'not accepted'}"
        )
    given = words[words.index("-c") + 1] if "-c" in words[:-2] else ""
    if not all(part.isdecimal() for part in given.split(",") if given):
        raise ValueError(f"--ptd-command has the channels {given!r}, and not two numbers as in -c 1,3")
    config = {
        "command": words,
        "device_type": int(words[-2]),
        "interface_flag": next((word for word in words if word in ("-n", "-g", "-y", "-U")), ""),
        "dc_flag": "-D" if "-D" in words else None,
        "device_port": words[-1],
        "channel": [int(part) for part in given.split(",")] if given else None,
    }
    return [config] if version.analyzer_list else config
