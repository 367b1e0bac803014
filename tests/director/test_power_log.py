"""The vectorised reader of power logs, against a plain reading line by line as the official parser does it."""

from __future__ import annotations

import json
import math
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_training import line, power_text

from director.mlperf.text_blocks import NoLog
from director.mlperf.training.power_log import READING, STOP, PowerLog, read_power_log
from director.mlperf.training.result_log import read_result_log

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "training" / "logs"
T = 1_760_000_000_000


def read(content: bytes) -> PowerLog:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "node_0.txt")
        file.write_bytes(content)
        return read_power_log(file)


def readings(log: PowerLog) -> list[tuple[float, float]]:
    return [pair for t, watts in log.in_file_order() for pair in zip(t.tolist(), watts.tolist(), strict=True)]


def plain(content: bytes) -> tuple[list[tuple[float, float]], list[str], int]:
    """Readings, keys of other lines, and how many lines cannot be read, by the rules of the official parser."""
    found, keys, bad = [], [], 0
    for text in content.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        _, token, after = text.rpartition(":::MLLOG ")
        if not token:
            continue
        try:
            entry = json.loads(after.strip())
            key, time = entry["key"], float(entry["time_ms"])
            value = entry.get("value")
            if not isinstance(key, str) or not abs(time) < 1e13:
                raise ValueError
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(float(value))
            if key in (READING, "conversion_eff", "interconnect_power_est") and not number:
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            bad += 1
            continue
        if key == READING:
            found.append((time, float(value)))
        elif key in ("power_measurement_start", STOP, "conversion_eff", "interconnect_power_est"):
            keys.append(key)
    return found, keys, bad


def same(content: bytes) -> PowerLog:
    log = read(content)
    expected, keys, bad = plain(content)
    assert readings(log) == expected
    assert [event.key for event in log.events] == keys
    assert log.unread.count == bad
    assert log.readings == len(expected)
    return log


watts = st.one_of(
    st.integers(-5000, 200_000),
    st.floats(-1e4, 1e5).map(lambda w: round(w, 3)),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**7), watts), max_size=60),
    st.sampled_from(["", "0: ", "[1,3]<stdout>:", " 7: :::MLLOG "]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([(", ", ": "), (",", ":")]),
    st.sampled_from(["", {}, {"host": "é", "value": 7}, {"a": '"value": 5,'}, {"time_ms": 3}]),
    st.sampled_from([0, 0.0, 0.5]),
)
def test_any_way_of_writing_readings(
    pairs: list[tuple[int, float]], prefix: str, end: str, separators: tuple[str, str], metadata: object, origin: float
) -> None:
    lines = [
        f"{prefix}:::MLLOG "
        + json.dumps(
            {"time_ms": T + t + origin, "key": READING, "value": w, "metadata": metadata}, separators=separators
        )
        for t, w in pairs
    ]
    log = same((end.join(lines) + end).encode())
    assert log.readings == len(pairs) and not log.unread.count
    assert readings(log) == [(T + t + origin, float(w)) for t, w in pairs]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_spoiled_byte_goes_unseen(data: st.DataObject) -> None:
    """What a spoiled log says is what the plain reading says: no reading is lost or changed, no bad line uncounted."""
    clean = power_text((T + 1000 * i for i in range(30)), lambda t: 300 + t % 7000 / 10, start_ms=T, stop_ms=T + 30_000)
    content = bytearray(clean.encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        what = data.draw(st.sampled_from(["set", "insert", "delete", "cut"]))
        byte = data.draw(st.sampled_from(b'0123456789-.eE+,:"{}\r\n \\\0\xe9nN') | st.integers(0, 255))
        if what == "set":
            content[at] = byte
        elif what == "insert":
            content.insert(at, byte)
        elif what == "delete":
            del content[at]
        else:
            del content[at : at + data.draw(st.integers(1, 200))]
        if not content:
            return
    same(bytes(content))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes(content: bytes) -> None:
    same(b" " + content)  # a pointer of Git LFS would be refused
    same(b":::MLLOG " + content.replace(b"\n", b"\n:::MLLOG "))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden set of MLPerf Training is not here")
def test_real_logs_with_spoiled_bytes() -> None:
    random_ = random.Random(1)
    for folder in ("Dell", "Lenovo", "smc-ac-power", "smc-dc-power"):
        file = next(GOLDEN.glob(f"{folder}/*/*/power/*/node_1.txt"), None) or next(
            GOLDEN.glob(f"{folder}/*/*/power/*/node_0.txt")
        )
        clean = file.read_bytes()
        same(clean)
        for _ in range(12):
            content = bytearray(clean)
            for _ in range(20):
                content[random_.randrange(len(content))] = random_.randrange(256)
            same(bytes(content))
        same(clean[: random_.randrange(len(clean))])


def test_every_line_that_cannot_be_read_is_named() -> None:
    lines = power_text((T + 1000 * i for i in range(20)), lambda _: 350.0, start_ms=T).splitlines(keepends=True)
    lines[3] = lines[3].replace("350.0", '"350"')
    lines[7] = lines[7][:60] + "\n"
    log = same("".join(lines).encode())
    assert sorted(number for number, _ in log.unread.named) == [4, 8]
    assert any("'350'" in why for _, why in log.unread.named)


def test_numbers_that_no_float_holds_are_named(tmp_path: Path) -> None:
    long = "9" * 400
    text = [line(READING, T, 1), line(READING, T, 2).replace(str(T), long), line(READING, T, 3).replace("3", long)]
    log = same("".join(text).encode())
    assert log.readings == 1 and [number for number, _ in log.unread.named] == [2, 3]
    (tmp_path / "result_0.txt").write_text("".join(text))
    assert [number for number, _ in read_result_log(tmp_path / "result_0.txt", ()).unread.named] == [2]


def test_readings_over_many_blocks(tmp_path: Path) -> None:
    """A log of more than one block, of lines that end anywhere in it, with an odd line here and there."""
    count = 60_000
    file = tmp_path / "node_0.txt"
    text = [line(READING, T + 1000 * i, 300 + i % 977 + 0.5) for i in range(count)]
    text[40_000] = line("conversion_eff", T, 0.94)
    text[50_001] = ":::MLLOG {broken\n"
    file.write_text("".join(text))
    log = read_power_log(file)
    assert log.bytes > 2 * (1 << 22)
    expected = [(float(T + 1000 * i), 300 + i % 977 + 0.5) for i in range(count) if i not in (40_000, 50_001)]
    assert readings(log) == expected
    assert log.events[0].before == 40_000 and log.events[0].line == 40_001
    assert log.unread.named[0][0] == 50_002
    assert log.is_sorted and not log.repeated


def test_unsorted_repeated_and_negative_readings_are_counted() -> None:
    text = "".join(line(READING, T + t, w) for t, w in ((0, 5), (1000, -3), (1000, 0), (700, 4), (2000, 1)))
    log = read(text.encode())
    assert not log.is_sorted and log.repeated == 1 and log.not_positive == 2
    assert (log.first_ms, log.last_ms) == (T, T + 2000)
    ((t, powers, places),) = log.in_time_order()
    assert t.tolist() == [T, T + 700, T + 1000, T + 1000, T + 2000] and powers.tolist() == [5, 4, -3, 0, 1]
    assert places is not None and places.tolist() == [0, 3, 1, 2, 4]


def test_what_is_no_log(tmp_path: Path) -> None:
    pointer = tmp_path / "node_0.txt"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n")
    with pytest.raises(NoLog, match="git lfs pull"):
        read_power_log(pointer)
    with pytest.raises(NoLog, match="git lfs pull"):
        read_result_log(pointer, ())
    with pytest.raises(NoLog, match="cannot be read"):
        read_power_log(tmp_path / "absent.txt")
    with pytest.raises(NoLog, match="is no regular file"):
        read_power_log(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NoLog, match="is no regular file"):
        read_power_log(tmp_path / "fifo")
    (tmp_path / "empty.txt").write_bytes(b"")
    assert read_power_log(tmp_path / "empty.txt").readings == 0


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "node_0.txt"
    with file.open("wb") as target:
        target.write(line(READING, T, 1).encode())
        target.seek(60 << 20)
        target.write(b"\n" + line(READING, T + 1000, 2).encode())
    log = read_power_log(file)
    assert [w for _, w in readings(log)] == [1.0, 2.0]
    assert log.unread.count == 1 and np.isfinite(log.last_ms)
