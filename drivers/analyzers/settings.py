"""The words that a user gives an analyzer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

from drivers.analyzers.description import Description
from drivers.contract import Accuracy, Scope, Unavailable
from drivers.settings import check_known, read_number

GENERAL = (
    "port",
    "baud",
    "timeout_s",
    "volts",
    "amps",
    "volts_seen",
    "amps_seen",
    "probe_s",
    "power_factor",
    "accuracy_percent",
    "integrate",
    "scope",
)
LEAST_POWER_FACTOR = 0.9
REPLY_S = 1.0  # for an answer to come
_LONGEST_PROBE_S = 600.0
_LONGEST_REPLY_S = 30.0


@dataclass(frozen=True)
class MeterSettings:
    """What was asked for. None and empty: as the meter is set."""

    port: str
    baud: int | None
    reply_s: float
    volts: str  # a number, "auto", or empty
    amperes: str
    volts_seen: float | None  # in a ranging stage, at most
    amperes_seen: float | None
    probe_s: float
    least_power_factor: float
    accuracy: Accuracy | None  # of power, where no specification of the meter is known
    integrate: bool
    scope: Scope
    knobs: Mapping[str, str]  # name → what to send


def check_settings(driver: str, settings: Mapping[str, str], more: tuple[str, ...]) -> None:
    """Refuse words that this driver does not have, and a port that is not told.

    Raises:
        Unavailable: names them.
    """
    check_known(driver, settings, (*GENERAL, *more))
    if not settings.get("port"):
        raise Unavailable("nobody said where the meter is", f"set {driver}.port=/dev/ttyUSB0 or tcp:HOST:PORT")


def read_settings(driver: str, settings: Mapping[str, str], description: Description) -> MeterSettings:
    """Read them all.

    Raises:
        Unavailable: one of them is not what it should be.
    """
    baud = read_number(driver, settings, "baud", "baud")
    probe_s = read_number(driver, settings, "probe_s", "seconds") or 0.0
    factor = read_number(driver, settings, "power_factor", "power factor")
    if factor is not None and not 0 < factor <= 1:
        raise Unavailable(f"{driver}.power_factor is {factor:g}", "give the least that the load has, such as 0.95")
    reply_s = read_number(driver, settings, "timeout_s", "seconds") or REPLY_S
    if reply_s > _LONGEST_REPLY_S:
        raise Unavailable(f"{driver}.timeout_s is {reply_s:g}", f"give at most {_LONGEST_REPLY_S:g} s")
    if probe_s > _LONGEST_PROBE_S:
        raise Unavailable(f"{driver}.probe_s is {probe_s:g}", f"give at most {_LONGEST_PROBE_S:g} s")
    if description.ranges is None:
        for word in ("volts", "amps"):
            if word in settings:
                raise Unavailable(f"{driver}.{word} is set, but no ranges are known of it", "leave it out")
    ranges = [_range(driver, settings, word) for word in ("volts", "amps")]
    if probe_s and any(ranges):
        raise Unavailable(f"{driver}.probe_s finds the ranges, and {driver}.volts or .amps sets them", "give one")
    scope = settings.get("scope", "wall")
    if scope not in get_args(Scope):
        raise Unavailable(f"{driver}.scope is {scope!r}", f"use one of: {', '.join(get_args(Scope))}")
    return MeterSettings(
        port=settings["port"],
        baud=round(baud) if baud else None,
        reply_s=reply_s,
        volts=ranges[0],
        amperes=ranges[1],
        volts_seen=read_number(driver, settings, "volts_seen", "volts"),
        amperes_seen=read_number(driver, settings, "amps_seen", "amperes"),
        probe_s=probe_s,
        least_power_factor=factor if factor is not None else LEAST_POWER_FACTOR,
        accuracy=_accuracy(driver, settings, description),
        integrate=_integrates(driver, settings, description),
        scope=cast(Scope, scope),
        knobs=_knobs(driver, settings, description),
    )


def _range(driver: str, settings: Mapping[str, str], word: str) -> str:
    text = settings.get(word, "").strip().lower()
    if text in ("", "auto"):
        return text
    number = read_number(driver, {word: text}, word, "volts" if word == "volts" else "amperes")
    if not number:
        raise Unavailable(f"{driver}.{word} is {text!r}", "give the highest that the load has, or auto")
    return text


def _accuracy(driver: str, settings: Mapping[str, str], description: Description) -> Accuracy | None:
    percent = read_number(driver, settings, "accuracy_percent", "percent")
    if percent is None:
        return None
    if description.specification is not None:
        raise Unavailable(
            f"{driver}.accuracy_percent is set, but the accuracy of {description.title} is known", "leave it out"
        )
    return Accuracy(reading_fraction=percent / 100, source="set by the user")


def wants_integral(settings: Mapping[str, str]) -> bool:
    """Whether the user wants the meter to integrate."""
    return settings.get("integrate", "").lower() == "on"


def _integrates(driver: str, settings: Mapping[str, str], description: Description) -> bool:
    if (text := settings.get("integrate", "off")).lower() not in ("on", "off"):
        raise Unavailable(f"{driver}.integrate is {text!r}", "use on or off")
    if wants_integral(settings) and description.integrator is None:
        raise Unavailable(
            f"{description.title} has no integrator that this driver knows", f"leave out {driver}.integrate"
        )
    return wants_integral(settings)


def _knobs(driver: str, settings: Mapping[str, str], description: Description) -> dict[str, str]:
    found = {}
    for knob in description.knobs:
        word = settings.get(knob.name, "").strip() if knob.name else ""
        if not word:
            continue
        if knob.words:
            if word.lower() not in knob.words:
                raise Unavailable(f"{driver}.{knob.name} is {word!r}", f"use one of: {', '.join(knob.words)}")
            found[knob.name] = knob.words[word.lower()]
        elif re.fullmatch(r"\d+\.?\d*", word):
            found[knob.name] = word
        else:
            raise Unavailable(f"{driver}.{knob.name} is {word!r}, which is no number", "give a number")
    return found
