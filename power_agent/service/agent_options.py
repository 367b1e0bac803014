"""The options of an agent: of `power-agent serve`, and of the agent that `power-agent run` starts where none serves."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from power_agent.option_values import merged, rate, setting

if TYPE_CHECKING:
    from power_agent.service.agent import AgentOptions

DEFAULT_RUN_DIR = "/tmp/power-agent"


def add_agent_options(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    option = parser.add_argument
    option("--director", required=True, metavar="ADDR", help="where it listens, such as tcp://10.0.0.5:5570")
    option("--host", default=os.uname().nodename, metavar="NAME", help="the name of this host there")
    state = "/var/lib/power-agent" if os.geteuid() == 0 else "~/.local/state/power-agent"
    option("--state", metavar="DIR", help=f"where recordings wait for the director; default: {state}")
    option(
        "--run-dir",
        default=DEFAULT_RUN_DIR,
        metavar="DIR",
        help=f"for marks, the same on all hosts; default: {DEFAULT_RUN_DIR}",
    )
    option("--keys", metavar="DIR", help="where keys are kept; default: ~/.config/power-agent")
    option("--driver", action="append", metavar="NAME", help="only this driver; may be given more than once")
    option("--rate", type=rate, action="append", default=[], metavar="DRIVER[.GROUP]=HZ", help="readings per second")
    option("--set", type=setting, action="append", default=[], metavar="DRIVER.KEY=VALUE", help="a setting of a driver")
    option("--root", default="/", metavar="DIR", help="where /sys, /proc and /dev of the machine are, such as /host")


def default_state() -> str:
    """Where recordings are kept unless told otherwise: of root and of others.

    Raises:
        NoHome: there is no home to keep them in.
    """
    from power_agent.config_folder import home

    if os.geteuid() == 0:
        return "/var/lib/power-agent"
    base = os.environ.get("XDG_STATE_HOME") or str(home() / ".local/state")
    return str(Path(base, "power-agent"))


def agent_options(arguments: argparse.Namespace) -> AgentOptions:
    """What they say.

    Raises:
        AddressProblem, KeyProblem: the address or the keys cannot be used.
        ValueError: the host's name or a rate cannot be used.
        NoHome: the user has none, and no folders are named.
    """
    import msgspec

    from power_agent.config_folder import NoHome, default_folder
    from power_agent.service.agent import AgentOptions
    from power_agent.service.agent_session import SamplerSettings
    from power_agent.service.enroll import SECRET
    from power_agent.stream_plan import check_rates
    from power_agent.wire.keys import load_pin, load_secret
    from power_agent.wire.messages import HostName
    from power_agent.wire.sockets import Address

    address = Address.parse(arguments.director)
    try:
        msgspec.convert(arguments.host, HostName)
    except msgspec.ValidationError:
        raise ValueError(f"{arguments.host!r} is no name of a host: up to 63 letters, digits and . _ -") from None
    check_rates(dict(arguments.rate))
    state = Path(arguments.state or default_state())
    try:
        folder = Path(arguments.keys) if arguments.keys else default_folder()
    except NoHome:
        if not address.is_loopback:
            raise
        folder = None  # nor are there keys
    own, director_key = None, None
    if folder is not None and (not address.is_loopback or (folder / SECRET).exists()):
        pin = load_pin(folder)
        if not address.is_loopback or pin.address == str(address):
            own, director_key = load_secret(folder / SECRET), bytes.fromhex(pin.key)
    return AgentOptions(
        director=address,
        host=arguments.host,
        state=state,
        run_dir=Path(arguments.run_dir),
        own=own,
        director_key=director_key,
        sampling=SamplerSettings(
            drivers=arguments.driver,
            rates_hz=dict(arguments.rate),
            settings=merged(arguments.set),
            root=Path(arguments.root).absolute(),
        ),
    )
