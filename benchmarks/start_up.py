"""What starting costs: import of the package, and `--help` of both commands, beside the bare interpreter.

Method. Each command runs --runs times after one warm-up; printed are the medians of wall time, and for the import the
difference in resident memory that the interpreter reports of itself. The bound is `python -c pass` in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

RSS = "import {module}; print([l for l in open('/proc/self/status') if l.startswith('VmRSS')][0].split()[1])"
HEAVY = "import sys, {module}; print(sorted({{'numpy', 'pandas', 'pyarrow', 'torch'}} & set(sys.modules)) or 'none')"


def median_ms(command: list[str], runs: int) -> float:
    """Median wall time of a command."""
    times = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times[1:])


def output(program: str) -> str:
    """What a one-line program prints."""
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    bare = median_ms([sys.executable, "-c", "pass"], runs)
    imported = median_ms([sys.executable, "-c", "import power_agent"], runs)
    memory = (int(output(RSS.format(module="power_agent"))) - int(output(RSS.format(module="sys")))) / 1024
    print(f"python -c pass:        {bare:6.1f} ms  (the bound)")
    print(f"import power_agent:    {imported - bare:+6.1f} ms  {memory:+.1f} MB")
    for module in ("power_agent.cli", "director.cli"):
        took = median_ms([sys.executable, "-m", module, "--help"], runs)
        loaded = output(HEAVY.format(module=module))
        print(
            f"{module + ' --help:':22} {took:6.1f} ms  ({took / bare:.1f} × the bound), heavy modules loaded: {loaded}"
        )


if __name__ == "__main__":
    main()
