"""`python -m director.mlperf.protocol`: the server alone, as `power-director serve --mlperf` runs it."""

from __future__ import annotations

import sys

from director.commands.parser import Parser, WrongUsage, fail
from director.mlperf.protocol.serve_command import add_mlperf_options, serve_mlperf


def main() -> int:
    """Returns the exit status."""
    parser = Parser(prog="python -m director.mlperf.protocol", description="Serve MLPerf Inference's power client.")
    add_mlperf_options(parser)
    try:
        return serve_mlperf(parser.parse_args())
    except WrongUsage as error:
        return fail(str(error), 2)


if __name__ == "__main__":
    sys.exit(main())
