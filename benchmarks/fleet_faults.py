"""What faults cost a fleet: readings due, recorded and lost while its parts are killed, stopped, cut off and filled up.

Method. Fleets of a director and two agents, each a process as users start it (tests/simulators/faulty_fleet.py),
measure jobs whose exit status is known. The agents sample a device at 200 Hz that keeps a journal of every reading it
gave; each reaches the director through a relay of its own. Sessions and recordings lie on small file systems that can
be filled (as root), and wall clocks are set by a preloaded library (with a C compiler). In each session two faults
happen one after the other, of a kind and at an instant that a seed draws; some last while the job ends. Before each
one, what is durable at the director is noted. In the end the session's traces are compared with the journals and with
that note: a reading of the journal that is in no trace is lost, and a fleet fails unless a killed sampler can have held
it in memory, for a second at most.

`--stopped`, `--cut` and `--full` are how long these faults last: 30, 60 and 10 s take a while.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "simulators"), str(ROOT / "tests" / "director")]

from faulty_fleet import Counts, Lasting, run_faults  # noqa: E402


def run(seed: int, lasting: Lasting) -> Counts | str:
    """One fleet; its counts, or what went wrong."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            return run_faults(Path(folder, "fleet"), seed, lasting)
        except Exception:
            return traceback.format_exc()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleets", type=int, default=15, help="each goes through every kind of fault once")
    parser.add_argument("--parallel", type=int, default=4, help="fleets at once")
    parser.add_argument("--seed", type=int, default=1, help="of the first fleet; the next ones count up")
    parser.add_argument("--stopped", type=float, default=3.0, metavar="S")
    parser.add_argument("--cut", type=float, default=3.0, metavar="S")
    parser.add_argument("--full", type=float, default=2.0, metavar="S")
    options = parser.parse_args()
    lasting = Lasting(options.stopped, options.cut, options.full)
    total, failed = Counts(), 0
    with ProcessPoolExecutor(options.parallel) as pool:
        seeds = {
            pool.submit(run, options.seed + number, lasting): options.seed + number for number in range(options.fleets)
        }
        for done in as_completed(seeds):
            counts = done.result()
            if isinstance(counts, str):
                failed += 1
                print(f"seed {seeds[done]} failed:\n{counts}", flush=True)
            else:
                total.add(counts)
    for kind, count in sorted(total.faults.items()):
        print(f"{count:5} × {kind}")
    print(
        f"{sum(total.faults.values())} faults, {total.sessions} sessions; {failed} of {options.fleets} fleets failed\n"
        f"readings: {total.due:,} due, of which {total.missed:,} were missed; {total.read:,} read; "
        f"{total.recorded:,} recorded\n"
        f"acknowledged readings lost: {total.acknowledged_lost} of {total.acknowledged:,}\n"
        f"unacknowledged readings lost: {total.lost}, at most {total.most_lost_s:.3f} s before a kill\n"
        f"duplicates: {total.duplicates}; exit statuses that were not the job's: {total.wrong_exits}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
