"""What PTDaemon was asked and what it replied, read back from its own log.

The log holds every reply, and of commands what they did: a range set, a measurement begun under a mark. Ranges are told
as PTDaemon set them, which may be the next larger one to what was asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from director.mlperf.inference.ptd_log import lines, time_of

_SENT = ": Response to client sent: "
_STAMP_LENGTH = 23
_RANGE = re.compile(r": (Volt|Ampere|Amp) range set to (Auto|[\d.]+)[VA]?\s*")
_GO = re.compile(r": Go with mark '([^']*)'")
_STARTING = re.compile(r"Starting untimed measurement, .* at (\d+)ms with (\d+) rampup samples")
_COMMANDS = (  # how a reply begins, and the command that it answers
    ("Hello, ", "Hello"),
    ("Ranges,", "RR"),
    ("Stopping untimed measurement", "Stop"),
    ("Error: no measurement to stop", "Stop"),
    ("Invalid number of parameters", "RL,*,*"),
    ("Uncertainty,", "Uncertainty"),
    ("Watts,", "Watts"),
)


@dataclass(frozen=True)
class Message:
    """A command and its reply."""

    cmd: str
    reply: str
    at_s: float | None  # seconds since the epoch, the log's clock taken as UTC


def read_messages(path: Path) -> list[Message]:
    """All messages of a log but samples (RL sends hundreds), in order.

    Raises:
        NoLog: the log cannot be read, or is not UTF-8.
        ValueError: a time stamp is none.
    """
    found: list[Message] = []
    range_command = mark = ""
    for _, line in lines(path):
        text = line[_STAMP_LENGTH:]
        if match := _RANGE.fullmatch(text):
            range_command = f"SR,{match[1][0]},{match[2]}"
        elif match := _GO.match(text):
            mark = match[1]
        elif text.startswith(_SENT):
            reply = text[len(_SENT) :].rstrip()
            command = _command(reply, range_command, mark)
            if command:
                found.append(Message(command, reply, time_of(line)))
    return found


def last_session(messages: list[Message]) -> tuple[str, list[Message]]:
    """Name and messages of the last session in a log that has a ranging and a testing stage; "" without one."""
    gos = [(n, m.cmd.split(",", 3)[3]) for n, m in enumerate(messages) if m.cmd.startswith("Go,")]
    for at, mark in reversed(gos):
        name = mark.removesuffix("_testing")
        rangings = [n for n, other in gos if other == f"{name}_ranging" and n < at]
        if name == mark or not rangings:
            continue
        hellos = [n for n, message in enumerate(messages) if message.cmd == "Hello"]
        first = max((n for n in hellos if n < rangings[-1]), default=0)
        end = min((n for n in hellos if n > at), default=len(messages))
        return name, messages[first:end]
    return "", []


def _command(reply: str, range_command: str, mark: str) -> str:
    """The command that a reply answers; "" for samples and what is not known."""
    if match := _STARTING.fullmatch(reply):
        return f"Go,{match[1]},{match[2]},{mark}"
    if reply in ("Range V changed", "Range A changed"):
        return range_command if range_command.startswith(f"SR,{reply[6]}") else ""
    if reply.startswith("Last ") and " samples" in reply:
        return "RL,*,*" if "channel" in reply else "RL"
    if ",version=" in reply:
        return "Identify"
    return next((command for begin, command in _COMMANDS if reply.startswith(begin)), "")
