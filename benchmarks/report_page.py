"""The report page of a day on eight GPUs: seconds, memory and bytes to write it, and milliseconds to paint and zoom it.

Method. A session of 24 h with a wall meter at 1 Hz, two CPU packages and eight GPUs at 10 Hz, temperatures, clocks and
throttle reasons at 1 Hz, and 40 epochs is made (not timed). `power-director report` then runs on it in a fresh process:
wall time, CPU time, peak memory and the size of report.html. The page is opened from its file in headless Chromium,
software rendered, at 1280 × 900: first contentful paint as the browser tells it, and the time until the plots in the
window are drawn. Then the GPUs' plot is scrolled into view, and of 40 steps of zooming and moving the cursor the time
from the key's event to the frame after the plots in the window are redrawn is taken, median and largest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "simulators")]

from made_gpu_training import made_gpu_training  # noqa: E402

STEPS = 40
ZOOM = """async (keys) => {
    const charts = document.getElementById("charts"), took = [];
    for (const key of keys) {
        const from = performance.now();
        charts.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        await new Promise(requestAnimationFrame);
        await new Promise((done) => setTimeout(done));  // after the frame that the callbacks of this one made
        took.push(performance.now() - from);
    }
    return took;
}"""


def report(session: Path) -> tuple[float, float, float]:
    """Seconds, seconds of CPU and peak megabytes of the whole command."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "director.cli", "report", "--quiet", str(session)]
    pid = os.posix_spawn(sys.executable, command, {**os.environ, "PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"power-director report failed with status {status}")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def browse(page_path: Path, chromium: str) -> None:
    """Open the page, zoom and pan, and print how long that took."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto("about:blank")
        begin = time.perf_counter()
        page.goto(page_path.as_uri())
        page.wait_for_selector("#charts[data-ready]", state="attached")
        drawn = time.perf_counter() - begin
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        page.locator(".plot").nth(2).scroll_into_view_if_needed()
        took = page.evaluate(ZOOM, ["+", "ArrowRight", "+", "+", "-", "+", "+", "0"] * (STEPS // 8))
        print(f"  first paint: {paint:7.0f} ms")
        print(f"  plots drawn: {drawn * 1000:7.0f} ms")
        print(f"  zoom, pan:   {statistics.median(took):7.0f} ms median, {max(took):.0f} ms largest of {len(took)}")
        browser.close()


def main() -> None:
    """Make the session, write its page, and open it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="page-") as name:
        session = Path(name) / "session"
        manifest = made_gpu_training(session, arguments.hours * 3600, arguments.gpus)
        rows = sum(file.rows * len(file.stream.channels) for host in manifest.hosts for file in host.streams)
        print(f"{arguments.hours:g} h, {arguments.gpus} GPUs, {rows:,} values")
        seconds, cpu, megabytes = report(session)
        print(f"  report:      {seconds:7.2f} s, {cpu:.2f} s of CPU, {megabytes:.0f} MB peak")
        print(f"  report.html: {(session / 'report.html').stat().st_size / 1e6:7.2f} MB", flush=True)
        if arguments.chromium:
            browse(session / "report.html", arguments.chromium)
        else:
            print("  no Chromium here: painting and zooming were not measured")


if __name__ == "__main__":
    main()
