"""Replays of traces written here, against a clock that a test sets."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from director.session.trace_store import Piece, TraceWriter
from drivers.contract import Accuracy, Channel, DriverOptions, Finished, ReadFailed, Row, Status, Unavailable
from drivers.replay import driver as replay
from drivers.replay.driver import ReplayDriver, trace_duration_ns, trace_start_wall_ns
from drivers.replay.formats import open_trace
from power_agent.messages import Stream

S = 1_000_000_000
NEW, STALE, MISSING, INVALID = Status.NEW, Status.STALE, Status.MISSING, Status.INVALID
FOREVER = 1 << 62


def spl(stamp: str, watts: str, *channel_watts: str) -> str:
    line = f"Time,03-19-2021 {stamp},Watts,{watts},Volts,206.210000,Amps,1.453400,PF,0.958000,Mark,run_testing"
    for number, part in enumerate(channel_watts, start=1):
        line += f",Ch{number},Watts,{part},Volts,206.2,Amps,1.4,PF,0.9"
    return line


def opened(path: Path, clock_ns: Callable[[], int] = lambda: FOREVER, **words: str) -> ReplayDriver:
    given = {"path": str(path), "start_ns": "0", **words}
    return ReplayDriver.open(DriverOptions(clock_ns=clock_ns, settings=given))


def read_all(driver: ReplayDriver, group: int = 0) -> tuple[list[Row], str]:
    """All rows of a group, and what it says at its end."""
    rows: list[Row] = []
    while True:
        try:
            rows += driver.groups[group].read()
        except Finished as finished:
            return rows, str(finished)


@pytest.fixture
def trace(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str, end: str = "\n", name: str = "trace") -> Path:
        path = tmp_path / name
        path.write_bytes("".join(line + end for line in lines).encode())
        return path

    return write


Write = Callable[..., Path]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_spl_of_one_channel(trace: Write, end: str) -> None:
    path = trace(
        spl("01:31:56.365", "700.800000"),
        spl("01:31:57.381", "-1.000000"),  # rejected by PTDaemon
        spl("01:31:58.380", "704.500000"),
        spl("01:31:58.380", "-2.000000"),  # missed; filled in with the stamp of a neighbour
        spl("01:31:59.380", "-0.030000"),
        spl("01:32:00.380", "0.000000"),
        "",  # the files of newer versions end in an empty line
        end=end,
    )
    driver = opened(path)
    (group,) = driver.groups
    (wall,) = group.channels
    assert (wall.name, wall.device, wall.scope, wall.unit, wall.window_s) == (
        "replay/wall/power",
        "wall",
        "wall",
        "W",
        1.0,
    )
    assert wall.accuracy is not None and wall.accuracy.reading_fraction == 0.005
    rows, ending = read_all(driver)
    assert [row.t_ns for row in rows] == [0, 1_016_000_000, 2_015_000_000, 2_015_000_000, 3_015_000_000, 4_015_000_000]
    assert [row.statuses for row in rows] == [bytes([s]) for s in (NEW, MISSING, NEW, MISSING, INVALID, NEW)]
    assert [rows[n].values[0] for n in (0, 2, 5)] == [700.8, 704.5, 0.0]
    assert ending == f"{path} was replayed to its end"
    assert trace_duration_ns(path) == 4_015_000_000
    assert trace_start_wall_ns(path) == 1_616_117_516_365_000_000  # date -ud "2021-03-19 01:31:56.365" +%s%N


def test_spl_of_three_channels_hangs_them_below_the_wall(trace: Write) -> None:
    path = trace(
        spl("01:31:56.000", "600.000000", "287.1", "219.8", "93.1"),
        spl("01:31:57.000", "-1.000000", "-1.000000", "219.8", "93.1"),
        name="spl.txt",
    )
    driver = opened(path, accuracy_percent="0.3")
    channels = driver.groups[0].channels
    assert [(c.name, c.scope, c.parent) for c in channels] == [
        ("replay/wall/power", "wall", None),
        ("replay/wall-ch1/power", "rail", "wall"),
        ("replay/wall-ch2/power", "rail", "wall"),
        ("replay/wall-ch3/power", "rail", "wall"),
    ]
    assert {c.accuracy for c in channels} == {Accuracy(reading_fraction=0.003, source="set by the user")}
    rows, _ = read_all(driver)
    assert list(rows[0].values) == [600.0, 287.1, 219.8, 93.1]
    assert rows[1].statuses == bytes([MISSING, MISSING, NEW, NEW])


def test_rows_come_when_their_time_has_come(trace: Write) -> None:
    path = trace(*(spl(f"01:00:{second:02}.000", f"{second}.5") for second in range(10)))
    now = [5000 * S]
    driver = ReplayDriver.open(DriverOptions(clock_ns=lambda: now[0], settings={"path": str(path)}))
    (group,) = driver.groups
    assert group.default_hz == 1.0
    assert [row.t_ns for row in group.read()] == [5000 * S]  # the first stands at the instant of opening
    assert group.read() == []
    now[0] += S - 1
    assert group.read() == []
    now[0] += 1
    assert [row.t_ns for row in group.read()] == [5001 * S]
    now[0] += 7 * S  # a clock that runs fast, or a reader that was late: nothing is lost
    assert [row.t_ns for row in group.read()] == [(5002 + k) * S for k in range(7)]
    now[0] += 100 * S
    assert [row.values[0] for row in group.read()] == [9.5]
    for _ in range(2):
        with pytest.raises(Finished):
            group.read()


def test_a_start_in_the_past_makes_the_rows_since_then_due(trace: Write) -> None:
    """Sampler and commands agree on where the first row stands, however long opening takes."""
    path = trace(*(spl(f"01:00:{second:02}.000", "1.0") for second in range(10)))
    driver = opened(path, lambda: 1003 * S, start_ns=str(1000 * S))
    assert [row.t_ns for row in driver.groups[0].read()] == [(1000 + k) * S for k in range(4)]


def test_one_reading_gives_a_bounded_number_of_rows(trace: Write) -> None:
    count = replay.MAX_ROWS_PER_READ + 5
    path = trace("time_ms,wall_watts", *(f"{n},{n}" for n in range(count)))
    (group,) = opened(path).groups
    assert [len(group.read()), len(group.read())] == [replay.MAX_ROWS_PER_READ, 5]


def test_bad_lines_inside_are_missing_rows_and_are_counted(trace: Write) -> None:
    path = trace(
        spl("01:00:00.000", "1.0"),
        "Time,03-19-2021 01:00:01.000,Watts,1",
        spl("01:00:02.000", "2.0"),
        spl("01:00:03.000", "wat"),
        spl("25:00:04.000", "3.0"),
        spl("01:00:01.000", "4.0"),
        "\x00\x01",
        spl("01:00:05.000", "nan"),
        spl("01:00:06.000", "6.0"),
    )
    rows, ending = read_all(opened(path))
    assert [row.t_ns // S for row in rows] == [0, 0, 2, 2, 2, 2, 2, 5, 6]
    statuses = b"".join(row.statuses or b"" for row in rows)
    assert statuses == bytes([NEW, MISSING, NEW, MISSING, MISSING, MISSING, MISSING, MISSING, NEW])
    assert ending.endswith("5 lines could not be read, first line 2: 4 fields where line 1 has 12")


@pytest.mark.parametrize(
    ("lines", "words", "reason"),
    [
        ([], {}, "line 1: no column of time among: "),
        ([""], {"format": "spl"}, "line 1: expected 'Time,…,Watts,…"),
        ([spl("01:00:00.000", "1.0").replace("03-19", "13-19")], {}, "line 1: month must be in 1..12"),
        ([spl("01:00:00.000", "1.0").replace("03-19", "3/19")], {}, "is not MM-DD-YYYY hh:mm:ss.mmm"),
        ([spl("01:00:00.000", "1.0") + ",Ch1"], {}, "line 1: expected 'Time,…,Watts,…"),
        (["time_s,wall_watts"], {}, "holds no rows"),
        (["time_s,wall_watts", "now,5"], {}, "line 2: time 'now' is neither a number nor a date and time"),
        (["time_s,wall_watts", "1e400,5"], {}, "line 2: time '1e400' is not finite"),
        (["time_s,wall_watts", "1e30,5"], {}, "line 2: its time is out of range"),
        (["time_s,wall_watts", "1,5,6"], {}, "line 2: 3 fields where line 1 has 2"),
        (["a,wall_watts", "1,5"], {}, "line 1: no column of time among: 'a', 'wall_watts'"),
        (["time_s,power", "1,5"], {}, "line 1: no column of values among: 'time_s', 'power'"),
        (["time_s,w_w,w_w", "1,5,5"], {}, "line 1: two columns have one name"),
        (["time_s,p", "1,5"], {"power_column": "q"}, "line 1: there is no column 'q'"),
        (["time_s,p", "1,5"], {"time_column": "q"}, "line 1: there is no column 'q'"),
        (
            ["time_s,wall_watts", "1,5"],
            {"accuracy_percent": "x"},
            "replay.accuracy_percent is 'x', which is not a number",
        ),
        (["time_s,wall_watts", "1,5"], {"format": "xls"}, "there is no trace format 'xls'"),
        (["time_s,wall_watts", "1,5"], {"start_ns": "x"}, "replay.start_ns is 'x', which is not a whole number"),
        (["time_s,wall_watts", "1,5"], {"sped": "3"}, "it has no setting 'sped'"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_file_and_line(
    trace: Write, lines: list[str], words: dict[str, str], reason: str
) -> None:
    path = trace(*lines)
    with pytest.raises(Unavailable) as caught:
        opened(path, **words)
    assert reason in caught.value.reason
    assert caught.value.fix


def test_no_path_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no trace is named"):
        ReplayDriver.open(DriverOptions())
    with pytest.raises(Unavailable, match=r"the trace cannot be read: .*nothing\.txt"):
        opened(tmp_path / "nothing.txt")


def test_csv_columns_become_channels_by_their_units(trace: Write) -> None:
    path = trace(
        "timestamp,gpu0_power_watts,gpu0_energy_joules,gpu0_celsius,cpu1_w,node_watts,pump_watts,note,gpu0_sm_mhz",
        "2024-07-17T08:04:57.7,300.5,12.000001,61,80,900,4.5,hello,1980",
        '2024-07-17T08:04:58.2,,bad,nan,inf,901,4.5,"a, b",1981',
    )
    driver = opened(path)
    (group,) = driver.groups
    assert group.default_hz == 2.0
    assert [(c.name, c.device, c.quantity, c.unit, c.kind, c.scope) for c in group.channels] == [
        ("replay/gpu0/gpu0_power_watts", "gpu0", "power", "W", "gauge", "gpu"),
        ("replay/gpu0/gpu0_energy_joules", "gpu0", "energy", "J", "counter", "gpu"),
        ("replay/gpu0/gpu0_celsius", "gpu0", "temperature", "°C", "gauge", "none"),
        ("replay/package-1/cpu1_w", "package-1", "power", "W", "gauge", "package"),
        ("replay/node/node_watts", "node", "power", "W", "gauge", "node"),
        ("replay/pump/pump_watts", "pump", "power", "W", "gauge", "rail"),
        ("replay/gpu0/gpu0_sm_mhz", "gpu0", "frequency", "MHz", "gauge", "none"),
    ]
    (first, second), _ = read_all(driver)
    assert list(first.values) == [300.5, 12_000_001, 61.0, 80.0, 900.0, 4.5, 1980.0]
    assert group.channels[1].scale == 1e-6
    assert second.t_ns == S // 2
    assert second.statuses == bytes([MISSING, MISSING, MISSING, MISSING, NEW, NEW, NEW])
    assert trace_start_wall_ns(path) == 1_721_203_497_700_000_000  # date -ud "2024-07-17 08:04:57.7" +%s%N


@pytest.mark.parametrize(
    ("header", "times", "start_wall_ns"),
    [
        ("time_s", ("1721203497.5", "1721203499"), 1_721_203_497_500_000_000),
        ("t_ms", ("1721203497500", "1721203499000"), 1_721_203_497_500_000_000),
        ("wall_ns", ("1721203497500000001", "1721203499000000001"), 1_721_203_497_500_000_001),
        ("Timestamp", ("2024/07/17 08:04:57.500", "2024/07/17 08:04:59"), 1_721_203_497_500_000_000),
        ("time", ("2024-07-17T10:04:57.500+02:00", "2024-07-17T08:04:59Z"), 1_721_203_497_500_000_000),
    ],
)
def test_csv_times(trace: Write, header: str, times: tuple[str, str], start_wall_ns: int) -> None:
    path = trace(f"{header};wall_watts", f"{times[0]};1", f"{times[1]};2")
    assert trace_start_wall_ns(path) == start_wall_ns
    assert trace_duration_ns(path) == 1_500_000_000
    assert [row.t_ns for row in read_all(opened(path))[0]] == [0, 1_500_000_000]


def test_csv_with_relative_times_ended_when_it_was_last_written(trace: Write) -> None:
    path = trace("elapsed_s,wall_watts", "100,1", "130,2")
    os.utime(path, ns=(0, 1_700_000_000 * S))
    assert trace_start_wall_ns(path) == (1_700_000_000 - 30) * S


def test_csv_with_named_columns_is_a_wall_meter(trace: Write) -> None:
    path = trace("\ufeffwhen,value,remark", "5,230.5,1", "6,231.5,1")
    driver = opened(path, time_column="when", power_column="value")
    (wall,) = driver.groups[0].channels
    assert (wall.name, wall.scope, wall.unit, wall.accuracy) == ("replay/wall/value", "wall", "W", None)
    assert [row.values[0] for row in read_all(driver)[0]] == [230.5, 231.5]


POWER = Channel(
    name="nvml/gpu0/power", device="gpu0", quantity="power", unit="W", kind="gauge", scope="gpu", estimate=True
)
ENERGY = Channel(
    name="nvml/gpu0/energy", device="gpu0", quantity="energy", unit="J", kind="counter", scope="gpu", scale=1e-3
)


def session(folder: Path, hosts: tuple[str, ...] = ("node0",), clock: bool = True) -> Path:
    """A session as the director leaves it: power at 10 Hz from 1000 s, energy at 2 Hz from 1000.2 s, on each host."""
    import json

    import msgspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    entries = []
    for host in hosts:
        streams = []
        for number, (channel, start_ns, step_ns, count) in enumerate(
            [(POWER, 1000 * S, S // 10, 3000), (ENERGY, 1000 * S + S // 5, S // 2, 5)]
        ):
            stream = Stream(id=number, driver="nvml", group=channel.quantity, rate_hz=S / step_ns, channels=[channel])
            file = f"traces/{host}/nvml.{channel.quantity}.parquet"
            kind = np.float64 if channel.kind == "gauge" else np.int64
            statuses = np.zeros(count, np.uint8)
            statuses[1:3] = [MISSING, STALE]
            writer = TraceWriter(folder / file, stream)
            t_ns = start_ns + step_ns * np.arange(count, dtype=np.int64)
            values = (100 + np.arange(count)).astype(kind)
            writer.write(Piece(t_ns, np.full(count, 7, np.int64), [values], [statuses]))
            writer.close()
            streams.append({"stream": msgspec.to_builtins(stream), "file": file, "rows": count})
        entry = {"name": host, "streams": streams}
        if clock:
            entry["clock_file"] = "clock.parquet"
            table = pa.table(
                {"monotonic_ns": [990 * S, 991 * S], "wall_ns": [1_700_000_000 * S, 0], "bracket_ns": [1, 1]}
            )
            pq.write_table(table, folder / "clock.parquet")
        entries.append(entry)
    manifest = {"schema_version": 1, "created_wall_ns": 1_600_000_000 * S, "hosts": entries, "state": "complete"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_session_comes_back_as_it_was(tmp_path: Path) -> None:
    driver = opened(session(tmp_path), start_ns=str(50 * S))
    assert [(g.name, g.default_hz, g.channels) for g in driver.groups] == [
        ("nvml.power", 10.0, (POWER,)),
        ("nvml.energy", 2.0, (ENERGY,)),
    ]
    rows, _ = read_all(driver, 0)
    assert len(rows) == 3000
    assert [row.t_ns for row in rows] == [50 * S + k * S // 10 for k in range(3000)]
    assert rows[0] == Row(50 * S, 7, [100.0], bytes([NEW]))
    assert math.isnan(rows[1].values[0]) and rows[1].statuses == bytes([MISSING])
    assert rows[2] == Row(50 * S + S // 5, 7, [102.0], bytes([STALE]))
    rows, _ = read_all(driver, 1)
    assert [(row.t_ns - 50 * S, row.values[0], row.statuses) for row in rows[:3]] == [
        (S // 5, 100, bytes([NEW])),
        (S // 5 + S // 2, 0, bytes([MISSING])),
        (S // 5 + S, 102, bytes([STALE])),
    ]
    assert type(rows[0].values[0]) is int
    assert trace_duration_ns(tmp_path) == 2999 * S // 10
    assert trace_start_wall_ns(tmp_path) == 1_700_000_010 * S


def test_a_session_without_clock_pairs_starts_when_it_was_created(tmp_path: Path) -> None:
    assert trace_start_wall_ns(session(tmp_path, clock=False)) == 1_600_000_000 * S


def test_of_several_hosts_one_is_chosen(tmp_path: Path) -> None:
    session(tmp_path, hosts=("node0", "node1"))
    for words, reason in (({}, "does not hold the traces of exactly one host"), ({"host": "x"}, "holds no host 'x'")):
        with pytest.raises(Unavailable, match=reason) as caught:
            opened(tmp_path, **words)
        assert caught.value.fix == "set replay.host to one of: node0, node1"
    assert len(opened(tmp_path, host="node1").groups) == 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff"), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), "the trace cannot be read: .*manifest.json"),
        (lambda folder: (folder / "traces/node0/nvml.power.parquet").unlink(), "nvml.power.parquet cannot be read"),
        (
            lambda folder: (folder / "traces/node0/nvml.power.parquet").write_bytes(b"PAR1"),
            "power.parquet cannot be read",
        ),
        (
            lambda folder: (folder / "traces/node0/nvml.energy.parquet").replace(
                folder / "traces/node0/nvml.power.parquet"
            ),
            "cannot be read|has no column",
        ),
    ],
)
def test_a_damaged_session_is_refused(tmp_path: Path, damage: Callable[[Path], object], reason: str) -> None:
    damage(session(tmp_path))
    with pytest.raises(Unavailable, match=reason):
        opened(tmp_path)


def test_a_trace_that_goes_away_fails_once_and_then_ends(tmp_path: Path) -> None:
    driver = opened(session(tmp_path))
    (tmp_path / "traces/node0/nvml.power.parquet").unlink()
    with pytest.raises(ReadFailed, match="its replay ends here"):
        driver.groups[0].read()
    with pytest.raises(Finished):
        driver.groups[0].read()


GOOD_SPL = [spl(f"01:00:{second:02}.000", "1.5", "0.5", "1.0") for second in range(4)]
GOOD_CSV = ["time_s,gpu0_watts,gpu0_joules", "1,100.5,7", "2,101.5,8", "3,,9", "4,102.5,10"]
pieces = st.sampled_from(
    [b"\n", b"\r\n", b",", b"nan", b"-1", b"\x00", b'"', b"inf", b"1e999", b"9" * 400, b"\xff", b"Time,", b"-"]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good trace with a few bytes cut out and others put in."""
    text = "\n".join(draw(st.sampled_from([GOOD_SPL, GOOD_CSV]))).encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(pieces | st.binary(max_size=4)) + text[end:]
    return text


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=mutated() | st.binary(max_size=200), name=st.sampled_from(["auto", "spl", "csv"]))
def test_no_file_breaks_the_text_formats(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(data)
    try:
        (stream,) = open_trace(path, {"format": name}).streams
    except Unavailable as unavailable:
        assert unavailable.fix
        return
    last_ns = stream.start_ns
    for row in stream.rows():
        assert last_ns <= row.t_ns < 1 << 63
        last_ns = row.t_ns
        assert len(row.values) == len(stream.channels) == len(row.statuses or b"")
        for channel, value, status in zip(stream.channels, row.values, row.statuses or b"", strict=True):
            if status == NEW:
                assert math.isfinite(value)
                assert channel.kind != "counter" or (type(value) is int and abs(value) < 1 << 63)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_manifest_breaks_the_session_format(tmp_path: Path, data: st.DataObject) -> None:
    manifest = tmp_path / "manifest.json"
    if not manifest.exists():
        session(tmp_path)
        manifest.rename(tmp_path / "good.json")
    text = (tmp_path / "good.json").read_bytes()
    start = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 20))
    put = data.draw(st.binary(max_size=6) | st.sampled_from([b"null", b"{}", b"[]", b'"', b"-1", b"1e9", b"../"]))
    manifest.write_bytes(text[:start] + put + text[start + cut :])
    try:
        trace = open_trace(tmp_path, {})
    except Unavailable as unavailable:
        assert unavailable.fix
    else:
        for stream in trace.streams:
            assert len(next(iter(stream.rows())).values) == len(stream.channels)
