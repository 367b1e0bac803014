"""The options that say which machines of a fleet are measured, and how."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from director.commands.parser import WrongUsage
from power_agent.option_values import host_names, merged, setting

if TYPE_CHECKING:
    from power_agent.wire.messages import SamplerChoices

_RUN_DIR = Path("/tmp/power-agent")
_WORDS = ("auto", "on", "off")


def add_fleet_options(parser: argparse._ActionsContainer) -> None:
    """Add `hosts`: names or None, `ranges`: (driver, key, value) triples, and `run_dir`."""
    option = parser.add_argument
    option("--hosts", type=_hosts, metavar="A,B", help="the machines to measure; all: every one that is free")
    option(
        "--ranges",
        type=setting,
        action="append",
        default=[],
        metavar="DRIVER.KEY=NUMBER",
        help="a range of a meter, in place of a ranging stage, such as wt310e:rack1.volts=300",
    )
    text = f"where jobs put their marks, on every machine; a folder per session comes there (default: {_RUN_DIR})"
    option("--run-dir", type=Path, default=_RUN_DIR, metavar="DIR", help=text)


def choices(arguments: argparse.Namespace) -> SamplerChoices:
    """What agents are asked to sample.

    Raises:
        WrongUsage: a setting is neither a number nor auto, on or off, or a name is none of a driver.
    """
    import msgspec

    from power_agent.wire.messages import SamplerChoices

    settings: dict[str, dict[str, object]] = {}
    for driver, found in merged([*arguments.set, *arguments.ranges]).items():
        for key, value in found.items():
            settings.setdefault(driver, {})[key] = _value(driver, key, value)
    try:
        return msgspec.convert(
            {"drivers": arguments.drivers, "rates_hz": dict(arguments.rate), "settings": settings}, SamplerChoices
        )
    except msgspec.ValidationError as error:
        raise WrongUsage(f"agents would not take these drivers, rates and settings: {error}") from error


def _value(driver: str, key: str, text: str) -> float | str:
    if text in _WORDS:
        return text
    try:
        return float(text)
    except ValueError:
        raise WrongUsage(
            f"{driver}.{key}={text}: to other machines go numbers, auto, on and off alone, so that nothing here can be "
            "a path there; give other settings to `power-agent serve` on that machine"
        ) from None


def _hosts(text: str) -> list[str]:
    found = host_names(text)
    if not found:
        raise argparse.ArgumentTypeError("names no host; `all` stands for every one that is free")
    return [] if found == ["all"] else found
