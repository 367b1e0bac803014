"""The command line of `power-agent mlperf`."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

EXAMPLES = """\
examples, on the system under test:
  power-agent mlperf --server meter-host:4950 --run-workload './run.sh' \\
      --loadgen-logs logs --output results
  power-agent mlperf --server 127.0.0.1 --run-workload ./run.sh --loadgen-logs logs \\
      --output results --max-volts 240 --max-amps 5

The server is `power-director serve --mlperf`, or MLPerf's own server.py; see
docs/mlperf/serve-mlperf.md. The workload runs twice, for ranging and for testing; with --max-volts and
--max-amps once, in those ranges, which is not valid for a submission.

Exit status: the workload's, where it failed; 1, it ran well and the folder is
not whole, or it was not run; 2, wrong usage; 0, all is there.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    option = parser.add_argument
    option("--server", required=True, metavar="HOST[:PORT]", help="the power server (default port: 4950)")
    option("--run-workload", required=True, metavar="CMD", help="the shell command that is measured")
    option("--ranging-workload", metavar="CMD", help="a shorter one for the ranging stage, with the same peak power")
    option("--loadgen-logs", required=True, type=Path, metavar="DIR", help="where the workload leaves LoadGen's logs")
    option("--output", required=True, type=Path, metavar="DIR", help="where the session folder goes")
    option("--label", default="", metavar="TEXT", help="part of the folder's name: letters, digits, - and _")
    option("--max-volts", type=float, metavar="V", help="with --max-amps: no ranging stage, these ranges")
    option("--max-amps", type=float, metavar="A", help="with --max-volts: no ranging stage, these ranges")
    option("--stop-server", action="store_true", help="ask the server to end after this session")


def measure(arguments: argparse.Namespace) -> int:
    """Measure. Returns the exit status."""
    from power_agent.mlperf_client import MlperfClient, Plan
    from power_agent.mlperf_protocol import DEFAULT_PORT, is_label
    from power_agent.workload import leave_like

    host, colon, port = arguments.server.rpartition(":")
    if not colon:
        host, port = arguments.server, str(DEFAULT_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) <= 65535:
        return _fail(f"--server {arguments.server}: give HOST or HOST:PORT")
    if not is_label(arguments.label):
        return _fail(f"--label {arguments.label}: only letters, digits, - and _, at most 100")
    given = (arguments.max_volts, arguments.max_amps)
    if any(number is not None and not (math.isfinite(number) and number > 0) for number in given):
        return _fail("--max-volts and --max-amps are positive numbers")
    if (given[0] is None) != (given[1] is None):
        return _fail("--max-volts and --max-amps go together")
    logs, output = arguments.loadgen_logs.resolve(), arguments.output.resolve()
    if output == logs or logs in output.parents:
        return _fail("--output must not lie in --loadgen-logs: its copies would be taken for new logs")
    plan = Plan(
        host=host.strip("[]"),
        port=int(port),
        workload=arguments.run_workload,
        ranging_workload=arguments.ranging_workload,
        loadgen_logs=logs,
        output=output,
        label=arguments.label,
        ranges=given if given[0] is not None else None,
        stop_server=arguments.stop_server,
    )
    outcome = MlperfClient(plan).run()
    if outcome.folder is not None:
        print(outcome.folder, flush=True)
    if outcome.status:
        return leave_like(outcome.status)
    return 1 if outcome.problems else 0


def _fail(text: str) -> int:
    print(f"power-agent: {text}", file=sys.stderr)
    return 2
