"""A workload that leaves LoadGen's logs: python loadgen_workload.py FOLDER SECONDS [EXIT_CODE]."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def stamp(at_s: float) -> str:
    """As LoadGen writes it: UTC to the millisecond."""
    milliseconds = round(at_s * 1000)
    return f"{time.strftime('%m-%d-%Y %H:%M:%S', time.gmtime(milliseconds // 1000))}.{milliseconds % 1000:03d}"


def main() -> int:
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    begin_s = time.time() + 0.02
    time.sleep(0.02 + seconds)
    end_s = time.time()
    time.sleep(0.02)
    metadata = '"metadata": {"is_error": false, "is_warning": false, "file": "loadgen.cc", "line_no": 1}'
    lines = [
        f':::MLLOG {{"key": "power_{name}", "value": "{stamp(at_s)}", "time_ms": 0.0, "namespace": "mlperf::logging", '
        f'"event_type": "POINT_IN_TIME", {metadata}}}'
        for name, at_s in (("begin", begin_s), ("end", end_s))
    ]
    (folder / "mlperf_log_detail.txt").write_text("\n".join(lines) + "\n")
    (folder / "mlperf_log_summary.txt").write_text("Result is : VALID\n")
    return int(sys.argv[3]) if len(sys.argv) > 3 else 0


if __name__ == "__main__":
    sys.exit(main())
