"""The options of `power-director serve --mlperf`, and what it does."""

from __future__ import annotations

import argparse
import ipaddress
import signal
import sys
from pathlib import Path

from director.commands.parser import WrongUsage, fail
from power_agent.mlperf_protocol import DEFAULT_PORT

_PTD_PORT = 8888
OPTIONS = "MLPerf Inference's own client"


def add_mlperf_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only `--mlperf` has; `--listen` is the fleet's too."""
    option = parser.add_argument_group(OPTIONS).add_argument
    text = f"serve that instead of agents; without --listen on 127.0.0.1:{DEFAULT_PORT}"
    option("--mlperf", action="store_true", help=text)
    option("--ptd", metavar="HOST:PORT", help=f"measure with the PTDaemon that listens there (port {_PTD_PORT})")
    option("--ptd-log", type=Path, metavar="FILE", help="where PTDaemon's standard output goes; for ptd_logs.txt")
    option("--ptd-command", metavar="CMD", help="the command that PTDaemon was started with; for server.json")
    option("--driver", metavar="NAME", help="measure with one of our own meters instead; not for submissions")
    option("--set", action="append", default=[], metavar="NAME.KEY=VALUE", help="a setting of that driver")
    option(
        "--allow-network", action="store_true", help="allow --listen where other machines reach it, and any may measure"
    )
    option("--output", type=Path, metavar="DIR", help="where session folders go (default: mlperf-sessions)")
    option("--settle-seconds", type=float, default=10.0, metavar="S", help="wait after a range was set (default: 10)")


def first_of_mlperf(arguments: argparse.Namespace) -> str | None:
    """The first option given that means nothing without `--mlperf`."""
    for option in ("ptd", "ptd_log", "ptd_command", "driver", "set", "allow_network", "output"):
        if getattr(arguments, option):
            return f"--{option.replace('_', '-')}"
    return None


def serve_mlperf(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C, or until a client asks to stop. Returns the exit status.

    Raises:
        WrongUsage: the options do not go together.
    """
    from director.mlperf.protocol.driver_meter import DriverSource
    from director.mlperf.protocol.meter import MeterFailed, MeterSource
    from director.mlperf.protocol.ptd_meter import PtdSource
    from director.mlperf.protocol.server import MlperfServer
    from director.mlperf.protocol.session_log import SessionLog

    if (arguments.ptd is None) == (arguments.driver is None):
        raise WrongUsage("name the meter: --ptd HOST:PORT, or --driver NAME for one of our own")
    if arguments.settle_seconds < 0:
        raise WrongUsage("--settle-seconds cannot be negative")
    host, port = _address(arguments.listen or "127.0.0.1", DEFAULT_PORT, "--listen")
    if not _is_loopback(host) and not arguments.allow_network:
        raise WrongUsage(
            f"--listen {host}: MLPerf's protocol has no authentication, so anyone who reaches the port may measure and "
            "read the sessions. Add --allow-network if only those can who may, or listen on 127.0.0.1 behind `ssh -L`"
        )
    source: MeterSource
    if arguments.ptd is not None:
        ptd_host, ptd_port = _address(arguments.ptd, _PTD_PORT, "--ptd")
        source = PtdSource(
            ptd_host, ptd_port, arguments.ptd_log, arguments.ptd_command, settle_s=arguments.settle_seconds
        )
    else:
        settings = dict(_setting(text, arguments.driver) for text in arguments.set)
        source = DriverSource(arguments.driver, settings)
    try:
        source.open(SessionLog()).close()  # a mistake is told now, not to the first client
        server = MlperfServer(host, port, arguments.output or Path("mlperf-sessions"), source)
    except MeterFailed as error:
        return fail(str(error), 1)
    except OSError as error:
        return fail(f"--listen {host}:{port}: {error.strerror or error}", 1)
    for missing, file in (("--ptd-log", "ptd_logs.txt"), ("--ptd-command", "ptd_config of server.json")):
        if arguments.ptd is not None and getattr(arguments, missing[2:].replace("-", "_")) is None:
            print(
                f"power-director: without {missing} there is no {file}, and the official checks fail", file=sys.stderr
            )
    print(f"power-director: MLPerf's clients connect to {server.host}:{server.port}", file=sys.stderr, flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    server.serve()
    return 0


def _address(text: str, default_port: int, option: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default_port)
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise WrongUsage(f"{option} {text}: give HOST:PORT, such as 127.0.0.1:{default_port}")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _setting(text: str, driver: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    kind, dot, key = name.rpartition(".")
    if not (equals and dot and key) or kind != driver:
        raise WrongUsage(f"--set {text}: give {driver}.KEY=VALUE")
    return key, value
