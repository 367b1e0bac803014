"""The options that say which devices are read, how fast and with what settings."""

from __future__ import annotations

import argparse

from director.commands.values import names
from power_agent.option_values import rate, setting


def add_device_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add `drivers`, `rate` and `set`: names or None, (name, Hz) pairs, (driver, key, value) triples."""
    option = parser.add_argument
    option("--drivers", type=names, metavar="A,B", help="only these drivers (default: all that work here)")
    option("--rate", type=rate, action="append", default=[], metavar="DRIVER[.GROUP]=HZ", help="readings per second")
    option(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="DRIVER.KEY=VALUE",
        help="a setting of a driver",
    )
