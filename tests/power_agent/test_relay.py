"""The relay between a workload and its terminal: the same bytes, at once, and when they came."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from power_agent.relay import COPY_ENDED


def start(folder: Path, *arguments: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "power_agent.relay", str(log or folder / "log"), str(folder / "arrivals")]
    return subprocess.Popen(
        [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def arrivals(folder: Path) -> np.ndarray:
    return np.fromfile(folder / "arrivals", dtype="<i8").reshape(-1, 2)


def read_some(relay: subprocess.Popen[bytes]) -> bytes:
    assert relay.stdout is not None
    assert select.select([relay.stdout], [], [], 30)[0], "nothing came within 30 s"
    return os.read(relay.stdout.fileno(), 65_536)


def test_every_byte_comes_through_in_order(tmp_path: Path) -> None:
    data = np.random.default_rng(1).integers(0, 256, 5_000_000, dtype=np.uint8).tobytes()
    out, err = start(tmp_path).communicate(data, timeout=60)
    assert out == data and err == b""
    assert (tmp_path / "log").read_bytes() == data
    found = arrivals(tmp_path)
    assert found[0, 0] == 0 and (np.diff(found[:, 0]) > 0).all() and (np.diff(found[:, 1]) >= 0).all()
    assert found[-1, 0] < len(data)


def test_a_part_of_a_line_is_not_held_back_and_has_its_instant(tmp_path: Path) -> None:
    relay = start(tmp_path)
    assert relay.stdin is not None
    instants = []
    for part in (b"epoch 1", b" begins\nepoch 2", b" begins\n"):
        instants.append(time.monotonic_ns())
        os.write(relay.stdin.fileno(), part)
        assert read_some(relay) == part
        instants.append(time.monotonic_ns())
    relay.communicate(timeout=30)
    found = arrivals(tmp_path)
    assert found[:, 0].tolist() == [0, 7, 22]
    for row in range(3):
        assert instants[2 * row] <= found[row, 1] <= instants[2 * row + 1]


@pytest.mark.parametrize("log", ["/dev/full", "/nowhere/log"])
def test_without_room_for_the_copy_it_goes_on(tmp_path: Path, log: str) -> None:
    out, err = start(tmp_path, log=Path(log)).communicate(b"line\n" * 100_000, timeout=30)
    assert out == b"line\n" * 100_000
    assert err.count(b"\n") == 1 and b"the workload itself is not affected" in err


def test_the_copy_is_bounded_and_says_where_it_ends(tmp_path: Path) -> None:
    relay = start(tmp_path, "--max-bytes", "50")
    assert relay.stdin is not None
    for part in (b"a" * 10, b"b" * 30, b"c" * 5):
        os.write(relay.stdin.fileno(), part)
        assert read_some(relay) == part
    _, err = relay.communicate(timeout=30)
    assert (tmp_path / "log").read_bytes() == b"a" * 10  # and 16 bytes of arrivals; 30 and 16 more are too many
    assert arrivals(tmp_path)[:, 0].tolist() == [0, COPY_ENDED]
    assert b"after 10 bytes" in err


def test_it_outlives_the_signals_of_the_terminal(tmp_path: Path) -> None:
    relay = start(tmp_path)
    assert relay.stdin is not None
    os.write(relay.stdin.fileno(), b"ready")
    assert read_some(relay) == b"ready"
    relay.send_signal(signal.SIGINT)
    relay.send_signal(signal.SIGTERM)
    out, _ = relay.communicate(b"last words", timeout=30)
    assert out == b"last words" and relay.returncode == 0


def test_a_reader_that_leaves_ends_the_writer_as_without_us(tmp_path: Path) -> None:
    relay = f"{sys.executable} -m power_agent.relay {tmp_path}/log {tmp_path}/arrivals"
    script = f"set -o pipefail; yes | {relay} | head -1; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("y\n", f"{128 + signal.SIGPIPE}\n")
