"""`power-director run --hosts`: its command line, where it differs from that of a run on this machine alone."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from director.commands.fleet_options import choices
from director.commands.parser import WrongUsage, fail
from power_agent.fleet_extra import not_installed
from power_agent.stages import in_order

if TYPE_CHECKING:
    from director.running.run_options import RunOptions

_LOCAL_ALONE = {
    "output": "the director names the session's directory; --label gives it a name, --sessions says where",
    "replay": "a trace is replayed on this machine alone",
    "live": "figures meanwhile are had on this machine alone",
}


def run_on_hosts(arguments: argparse.Namespace, options: RunOptions) -> int:
    """Run it; returns the exit status."""
    for name, why in _LOCAL_ALONE.items():
        if getattr(arguments, name) not in (None, False):
            raise WrongUsage(f"--{name} does not go with --hosts: {why}")
    if options.repeat > 1:
        raise WrongUsage("--repeat does not go with --hosts: each run is a session of its own; call it N times")
    if str(options.root) != "/":
        raise WrongUsage("--root does not go with --hosts: give it to `power-agent serve` on each machine")
    chosen = choices(arguments)
    try:
        from director.fleet.local_socket import NoDirector
        from director.running.fleet_run import FleetOptions, run_on_fleet
    except ModuleNotFoundError as error:
        return fail(not_installed(error), 1)
    from power_agent.workload import leave_like

    fleet = FleetOptions(arguments.hosts, arguments.sessions, arguments.run_dir, chosen, in_order(arguments.stage))
    try:
        return leave_like(run_on_fleet(options, fleet))
    except NoDirector as problem:
        return fail(f"{problem}. The job was not started", 1)
