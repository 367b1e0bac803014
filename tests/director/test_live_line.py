"""The live line: what it tells, and that the job's own output is what it would have been without it."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.running.live_line import find_place
from director.running.live_phase import MOST_BYTES, LivePhase
from director.running.live_power import LivePowerReader
from drivers.contract import Channel, Row, Status
from power_agent.marks import shell_mark
from power_agent.messages import Stream, TickCount
from power_agent.row_buffer import RowBuffer
from power_agent.spool import Batch, SpoolWriter

DEADLINE_S = 60.0
TITLE = re.compile(rb"\x1b\]2;[^\x07]*\x07|\x1b\[2[23];2t")
S = 1_000_000_000


def at_a_terminal(folder: Path, line: str, term: str = "xterm-256color") -> bytes:
    """All that a terminal got while a shell ran the line, in which $RUN measures a command."""
    run = f"{sys.executable} -m director.cli run --drivers estimate"
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe("sh", ["sh", "-c", line.replace("$RUN", run)], {**os.environ, "TERM": term})
    seen, deadline = b"", time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            seen += os.read(master, 65536)
        except OSError:  # what Linux answers when the last program at the terminal has gone
            break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, seen
    os.close(master)
    return seen


def wait_for_lines(count: int) -> str:
    """Shell words for a job that ends after so many seconds, in which the line was drawn."""
    return f"sleep {count}.5"


def test_a_line_is_drawn_where_the_jobs_output_goes_to_files(tmp_path: Path) -> None:
    mark = f"{sys.executable} -m power_agent.cli mark"
    job = f"{mark} begin epoch --index 3; {mark} begin eval; echo out; echo err >&2; {wait_for_lines(2)}"
    seen = at_a_terminal(tmp_path, f"$RUN --output=s -- sh -c '{job}' >out 2>err")
    drawn = seen.decode().split("\r\x1b[2K")
    assert drawn[0] == "" and drawn[-1] == "", "nothing but the line, and it is gone at the end"
    # One package of a linear model: never less than idle power, which is more than nothing.
    pattern = r"\d:\d\d · epoch 3 › eval · ESTIMATE: \d+(\.\d)? W, [\d.]+ k?J( · \d+ readings missed)?"
    assert any(re.fullmatch(pattern, text) for text in drawn[1:-1]), drawn
    assert (tmp_path / "out").read_text() == "out\n"
    assert "err\n" in (tmp_path / "err").read_text()
    assert "\x1b" not in (tmp_path / "err").read_text()


# A progress bar, colour and a cursor that moves: what a line of ours among it would spoil.
SHOWMAN = """
import sys, time
for i in range(25):
    sys.stdout.write(f"\\r\\x1b[32m{i:3d} %\\x1b[0m\\x1b[K"); sys.stdout.flush(); time.sleep(0.1)
sys.stderr.write("\\nnot a whole line")
"""
SHOWN = b"".join(b"\r\x1b[32m%3d %%\x1b[0m\x1b[K" % i for i in range(25)) + b"\r\nnot a whole line"


def after_our_messages(seen: bytes) -> bytes:
    """What came after what we say before the job starts."""
    head, _, rest = seen.partition(b"`power-agent devices` tells what can be read\r\n")
    assert b"measuring estimate.power into" in head
    return rest


def test_a_terminal_that_the_job_writes_to_gets_what_the_job_writes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SHOWMAN)
    # The report that follows begins in a line of its own, although the job's last line has no end.
    seen = at_a_terminal(tmp_path, f"$RUN --output=s -- {sys.executable} job.py")
    assert after_our_messages(seen).startswith(SHOWN + b"\r\n")
    # Nor does a terminal where a pipe may end.
    seen = at_a_terminal(tmp_path, f"$RUN --output=t -- {wait_for_lines(1)} 2>&1 | cat >both")
    assert seen == b""


def test_who_asks_for_it_gets_a_title_and_the_jobs_output_in_between_is_whole(tmp_path: Path) -> None:
    # After a while the job takes the whole screen: from then on it is left alone.
    raw = "import tty; tty.setraw(0); sys.stdout.write('\\x1b[H\\x1b[2J'); sys.stdout.flush(); time.sleep(1.5)\n"
    (tmp_path / "job.py").write_text(SHOWMAN + raw)
    seen = at_a_terminal(tmp_path, f"$RUN --output=s --live -- {sys.executable} job.py")
    before, _, after = seen.partition(b"\x1b[H\x1b[2J")
    titles = TITLE.findall(before)
    assert titles[0] == b"\x1b[22;2t"
    assert re.match(rb"\x1b\]2;0:0\d \xc2\xb7 ESTIMATE: \d+", titles[1])
    assert after_our_messages(TITLE.sub(b"", before)) == SHOWN
    assert TITLE.findall(after) == [b"\x1b[23;2t"], "no title, and the old one comes back"


@pytest.mark.parametrize(("wanted", "term"), [(False, "xterm"), (None, "dumb"), (None, ""), (True, "dumb")])
def test_there_is_no_place_for_who_does_not_want_it_or_cannot_see_it(
    wanted: bool | None, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    assert find_place(wanted, has_job=True) is None


@pytest.mark.long
def test_in_the_background_nothing_is_drawn(tmp_path: Path) -> None:
    line = f"set -m; $RUN --output=s -- {wait_for_lines(1)} >out 2>err & wait"
    assert b"\x1b[2K" not in at_a_terminal(tmp_path, line)


def test_a_trace_that_is_replayed_alone_shows_its_line(tmp_path: Path) -> None:
    # 10 W for 120 s, 20 times as fast: nobody else writes to the terminal.
    (tmp_path / "t.csv").write_text("time_s,power_w\n" + "".join(f"{i},10.0\n" for i in range(121)))
    run = f"{sys.executable} -m director.cli run --replay=t.csv --replay-speed=20 --output=s --quiet --live"
    seen = at_a_terminal(tmp_path, run).decode()
    assert re.search(r"\r\x1b\[2K\d:\d\d · 10\.0 W, \d+(\.\d+)? J", seen), seen
    assert "\r\x1b[2K\r" not in seen


# What is told of the readings.

GAUGE = Channel(name="d/gpu0/power", device="gpu0", quantity="power", unit="W", kind="gauge", scope="gpu", scale=1e-3)
COUNTER = Channel(
    name="d/package-0/energy", device="package-0", quantity="energy", unit="J", kind="counter", scope="package",
    scale=1e-6, modulus=2**32,
)  # fmt: skip
STREAM = Stream(id=0, driver="d", group="power", rate_hz=10.0, channels=[GAUGE, COUNTER])


def batch(rows: list[tuple[int, float, int, bytes]]) -> Batch:
    buffer = RowBuffer(STREAM.channels, 1 << 20)
    for t_ns, milliwatts, microjoules, statuses in rows:
        buffer.add(Row(t_ns, 1000, [milliwatts, microjoules], statuses), t_ns)
    return Batch(STREAM.id, *buffer.take())


def test_power_and_energy_are_those_of_the_readings_since_the_work_began(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool", {})
    good = bytes([Status.NEW, Status.NEW])
    before = 2**32 - 30_000_000  # the counter wraps after 30 J

    def rows(begin_s: int, end_s: int) -> list[tuple[int, float, int, bytes]]:
        tenths = range(10 * begin_s, 10 * end_s + 1)
        return [(i * S // 10, 250_000.0, (before + 5_000_000 * i) % 2**32, good) for i in tenths]

    tick = TickCount(
        stream=0, due=20, taken=15, late=0, missed=5, extra=0, dropped_rows=2, lateness_log2_us=[0] * 32
    )  # fmt: skip
    writer.write(streams=[STREAM], batches=[batch(rows(-1, 0))])
    reader = LivePowerReader(tmp_path / "spool", "h", began_ns=0)
    nothing = reader.look()
    assert (nothing.watts, nothing.joules, nothing.devices) == (None, None, 2)
    # 250 W of the gauge and 50 W of the counter, for 2 s; across the wrap.
    writer.write(batches=[batch(rows(0, 1)), batch(rows(1, 2))], ticks=[tick])
    known = reader.look()
    assert known.watts == pytest.approx(300.0)
    assert known.joules == pytest.approx(600.0)
    assert (known.estimate, known.fresh, known.missed, known.dropped) == ("", 2, 5, 2)
    # A GPU that does not answer has no power and is not counted as zero; its energy stays what is known.
    bad = bytes([Status.MISSING, Status.NEW])
    writer.write(batches=[batch([(3 * S, 0.0, (before + 150_000_000) % 2**32, bad)])])
    assert reader.look().joules == pytest.approx(650.0)
    reader.close()
    writer.close()


def test_the_phase_is_the_innermost_that_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWER_AGENT_MARKS", str(tmp_path))
    phase = LivePhase(tmp_path)
    assert phase.look() == ""
    shell_mark("begin", "epoch", 3, {}, {})
    assert phase.look() == "epoch 3"
    shell_mark("begin", "eval", None, {}, {})
    assert phase.look() == "epoch 3 › eval"
    shell_mark("end", "eval", None, {}, {})
    shell_mark("end", "epoch", 3, {}, {})
    assert phase.look() == ""


def test_marks_of_a_shell_come_in_their_order_though_each_has_a_file(tmp_path: Path) -> None:
    said = [("begin", "a"), ("begin", "b"), ("begin", "c"), ("end", "c"), ("end", "b"), ("begin", "d")]
    for t_ns, (op, name) in enumerate(said, 1):
        header = json.dumps({"op": "header", "lane": "shell"})
        mark = json.dumps({"op": op, "name": name, "t_ns": t_ns, "thread": t_ns})
        (tmp_path / f"{t_ns * 5 % 7}.marks").write_text(f"{header}\n{mark}\n")
    assert LivePhase(tmp_path).look() == "a › d"


def test_of_too_many_marks_only_the_newest_are_read(tmp_path: Path) -> None:
    path = tmp_path / "1.marks"
    begin, end = '{{"op":"begin","name":"step","index":{0},"t_ns":{0},"thread":1}}\n', '{{"op":"end","name":"step","begin_ns":{0},"t_ns":{0}}}\n'  # fmt: skip # noqa: E501
    many = "".join(begin.format(i) + end.format(i) for i in range(10_000))
    assert len(many) > 10 * MOST_BYTES
    path.write_text(begin.format(-5) + many + begin.format(10_001))
    assert LivePhase(tmp_path).look() == "step 10001"


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([
    b'{"op":"begin","name":"a","t_ns":1,"thread":1}', b'{"op":"end","name":"a","begin_ns":1,"t_ns":2}',
    b'{"op":"begin","name":5}', b'{"op":"end","name":"\\ud800"}', json.dumps({"op": "begin", "name": "é" * 9}).encode(),
])), max_size=30))  # fmt: skip
def test_any_bytes_in_a_mark_file_are_no_reason_to_stop(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("marks")
    (folder / "1.marks").write_bytes(b"\n".join(lines))
    phase = LivePhase(folder)
    assert isinstance(phase.look(), str)
    assert isinstance(phase.look(), str)
