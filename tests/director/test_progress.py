"""The progress bar, at a real terminal: seen while it works, gone afterwards, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import pytest

DEADLINE_S = 30.0
WORK = (
    "import time; from director.answers.progress import progress_bar\n"
    "with progress_bar(quiet={quiet}, delay_s={delay}) as step:\n"
    "    step('node0/gpu0', 1, 8); time.sleep({lasting})\n"
    "print('done')"
)


def shown(delay: float, lasting: float, *, quiet: bool = False, **environment: str) -> str:
    """What a terminal shows of work that takes so long."""
    controller, terminal = pty.openpty()
    code = WORK.format(delay=delay, lasting=lasting, quiet=quiet)
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    kept |= {"TERM": "xterm-256color", **environment}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=terminal, stderr=terminal, env=kept
    ) as process:  # fmt: skip
        os.close(terminal)
        output, deadline = b"", time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                output += os.read(controller, 65536)
            except OSError:  # the terminal's other end is closed
                break
        assert process.wait(DEADLINE_S) == 0
    os.close(controller)
    return output.decode()


def test_long_work_shows_how_far_it_is_and_leaves_nothing_behind() -> None:
    seen = shown(delay=0.1, lasting=1.0)
    assert "node0/gpu0 (2 of 8)" in seen
    assert "\x1b[?25h" in seen, "the cursor is back"
    assert seen.endswith("\x1b[2Kdone\r\n"), "the bar is wiped before the next word"
    assert "\x1b[3" in seen and "\x1b[3" not in shown(delay=0.1, lasting=1.0, NO_COLOR="1")


@pytest.mark.parametrize("why", ["short", "quiet", "dumb"])
def test_no_bar_where_none_is_wanted(why: str) -> None:
    delay, lasting = (60.0, 0.0) if why == "short" else (0.1, 0.5)
    assert shown(delay, lasting, quiet=why == "quiet", TERM="dumb" if why == "dumb" else "xterm") == "done\r\n"


def test_no_bar_goes_into_a_file() -> None:
    code = WORK.format(delay=0.1, lasting=0.5, quiet=False)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "FORCE_COLOR": "1"}, capture_output=True, timeout=DEADLINE_S
    )
    assert (done.stdout, done.stderr) == (b"done\n", b"")
