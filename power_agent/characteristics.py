"""What `power-director characterize` found out about channels of this machine: kept in a file, and put to use.

A driver's own word counts; only what it does not know is filled in.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import msgspec

from drivers.contract import Channel
from power_agent.config_folder import default_folder
from power_agent.event_log import EventLog

VERSION = 1
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class CharacteristicsUnreadable(Exception):
    """The file cannot be used: what, where, and what to do."""


class Characteristic(msgspec.Struct, frozen=True, kw_only=True):
    """Of one channel of one model of device."""

    channel: str
    model: str
    update_period_s: Seconds | None  # None: it has a new value at least as often as it was read
    window_s: Seconds | None  # None: of a counter, which needs none
    delay_s: Seconds  # as Channel.delay_s
    delay_u_s: Seconds  # k = 2
    noise: float  # standard deviation, in the channel's unit
    wall_ns: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]  # when it was measured
    session: str  # where its evidence is

    @property
    def day(self) -> str:
        """When it was measured, as a date (UTC)."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.wall_ns / 1e9))


class _File(msgspec.Struct, kw_only=True):
    version: int
    channels: list[Characteristic]


class Characteristics:
    """All that is known, by channel and model."""

    def __init__(self, known: list[Characteristic]) -> None:
        self._known = {(each.channel, each.model): each for each in known}

    def of(self, channel: Channel) -> Characteristic | None:
        """What is known of a channel; None: nothing, or another device had its name."""
        return self._known.get((channel.name, channel.model))

    def fill(self, channel: Channel) -> Channel:
        """The channel, with what its driver does not know of it."""
        known = self.of(channel)
        if known is None:
            return channel
        filled: dict[str, float] = {}
        names = []
        if channel.update_period_s is None and known.update_period_s is not None:
            filled["update_period_s"] = known.update_period_s
            names.append("update period")
        window_s = channel.window_s
        if window_s is None and channel.kind == "gauge" and known.window_s is not None:
            filled["window_s"] = window_s = known.window_s
            names.append("window")
        if channel.delay_s == 0 and channel.delay_u_s == 0:
            # What was measured best is the age of the window's middle; another window has its end elsewhere.
            filled["delay_s"] = max(0.0, known.delay_s + ((known.window_s or 0.0) - (window_s or 0.0)) / 2)
            filled["delay_u_s"] = known.delay_u_s
            names.append("delay")
        if not names:
            return channel
        note = f"{', '.join(names)} characterised on {known.day}"
        text = f"{channel.description}; {note}" if channel.description else note
        return msgspec.structs.replace(channel, **filled, description=text)


NOTHING_KNOWN = Characteristics([])


def default_file() -> Path:
    """The user's file."""
    return default_folder() / "characteristics.json"


def load_characteristics(path: Path) -> Characteristics:
    """Read the file; one that is not there knows nothing.

    Raises:
        CharacteristicsUnreadable: it cannot be read, or is damaged.
    """
    return Characteristics(_load(path))


def for_sampling(file: str | None, log: EventLog) -> Characteristics:
    """What is in the file that a sampler is told of; nothing, and a warning in the log, where that cannot be read."""
    if file == "":
        return NOTHING_KNOWN
    try:
        return load_characteristics(Path(file) if file is not None else default_file())
    except (CharacteristicsUnreadable, RuntimeError) as error:  # of a user without a home
        log.add("warning", "characteristics", f"{error}; what drivers themselves say is used")
        return NOTHING_KNOWN


def store_characteristics(path: Path, found: list[Characteristic]) -> None:
    """Add to the file, or replace what it says of the same channels. The file is whole at any time.

    Raises:
        CharacteristicsUnreadable: what is there cannot be read; it is left as it is.
        OSError: it cannot be written.
    """
    known = {(each.channel, each.model): each for each in [*_load(path), *found]}
    content = msgspec.json.encode(_File(version=VERSION, channels=[known[key] for key in sorted(known)]))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(msgspec.json.format(content, indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _load(path: Path) -> list[Characteristic]:
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CharacteristicsUnreadable(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CharacteristicsUnreadable(
            f"{path} is damaged: {error}; remove it, and characterize the devices again"
        ) from error
    if file.version > VERSION:
        raise CharacteristicsUnreadable(f"{path} was written by a newer version of this program: update ml-power-agent")
    return file.channels
