"""The command `power-agent enroll`: trust a director, and say what makes it trust this agent."""

from __future__ import annotations

import argparse
import os
import sys

from power_agent.fleet_extra import not_installed

SECRET = "agent.secret"
EXAMPLES = """\
example:
  power-agent enroll --director 10.0.0.5:5570 --key KEY

`power-director keys init` prints the KEY; then run on the director what this prints.
The secret key never leaves this machine.
"""


def add_options(enroll: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    enroll.add_argument("--director", required=True, metavar="HOST:PORT", help="where it listens")
    enroll.add_argument("--key", required=True, metavar="KEY", help="its public key, 64 hex digits")
    enroll.add_argument("--host", default=os.uname().nodename, metavar="NAME", help="the name of this host there")
    enroll.add_argument("--keys", metavar="DIR", help="where keys are kept; default: ~/.config/power-agent")


def enroll(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from pathlib import Path

    from power_agent.config_folder import NoHome, default_folder
    from power_agent.wire.keys import KeyProblem, load_secret, make_secret, parse_key, write_pin
    from power_agent.wire.sockets import Address, AddressProblem

    try:
        folder = Path(arguments.keys) if arguments.keys else default_folder()
    except NoHome as problem:
        print(f"power-agent: {problem}: name a folder with --keys", file=sys.stderr)
        return 1
    secret = folder / SECRET
    try:
        address = Address.parse(arguments.director)
        key = parse_key(arguments.key)
        own = load_secret(secret) if secret.exists() else make_secret(secret)
        write_pin(folder, str(address), key)
    except (KeyProblem, AddressProblem) as problem:
        print(f"power-agent: {problem}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"power-agent: {not_installed(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"power-agent: {folder} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(f"this agent trusts {address}. On the director: power-director keys add {arguments.host} {own.public.hex()}")
    return 0
