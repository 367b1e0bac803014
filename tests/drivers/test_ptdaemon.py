"""PTDaemon as a device, against a simulated one on a real socket."""

from __future__ import annotations

import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from golden_inference import SESSIONS, needs_golden
from hypothesis import example, given
from hypothesis import strategies as st
from ptdaemon_server import Load, PtdaemonServer

from drivers.contract import DeviceLost, DriverOptions, ReadFailed, Row, Status, Unavailable
from drivers.discovery import Opened, Refused, open_drivers
from drivers.line_socket import Closed, LineSocket
from drivers.ptdaemon.accuracy import accuracy_at
from drivers.ptdaemon.connection import PtdConnection, Silent
from drivers.ptdaemon.driver import PtdDriver
from drivers.ptdaemon.replies import (
    parse_count,
    parse_identity,
    parse_ranges,
    parse_sample,
    parse_statistics,
    stamp_us,
)
from drivers.ptdaemon.stamps import StampClock

DEADLINE_S = 10.0
FAST_S = 0.02


def settings(server: PtdaemonServer, **more: str) -> dict[str, str]:
    return {"host": "127.0.0.1", "port": str(server.port), "settle_s": "0", **more}


@contextmanager
def opened(server: PtdaemonServer, **more: str) -> Iterator[PtdDriver]:
    driver = PtdDriver.open(DriverOptions(settings=settings(server, **more)))
    try:
        yield driver
    finally:
        driver.close()


def rows_of(driver: PtdDriver, count: int) -> list[Row]:
    return until(lambda rows: rows + list(driver.groups[0].read()), lambda rows: len(rows) >= count, [])


def until(step: Callable[[list[Row]], list[Row]], done: Callable[[list[Row]], bool], rows: list[Row]) -> list[Row]:
    deadline = time.monotonic() + DEADLINE_S
    while not done(rows):
        assert time.monotonic() < deadline
        rows = step(rows)
        time.sleep(0.005)
    return rows


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ---- what is read


def test_samples_of_three_channels_and_their_sum() -> None:
    load = Load(690.0, volts=230.0, power_factor=0.96)
    with PtdaemonServer(lambda t_s: load, meter=77, channels=3, period_s=FAST_S) as server:
        before_ns = time.monotonic_ns()
        with opened(server, volts="230", amps="2") as driver:
            names = [channel.name for channel in driver.groups[0].channels]
            rows = rows_of(driver, 3)
        after_ns = time.monotonic_ns()
    assert names[:5] == [
        *(f"ptdaemon/wall/{name}" for name in ("power", "voltage", "current", "power_factor")),
        "ptdaemon/wall-ch1/power",
    ]
    for row in rows:
        assert row.statuses == bytes(16)
        found = dict(zip(names, row.values, strict=True))
        assert found["ptdaemon/wall/power"] == pytest.approx(690, abs=1e-5)
        assert found["ptdaemon/wall/power_factor"] == pytest.approx(0.96, abs=1e-6)
        assert found["ptdaemon/wall-ch2/current"] == pytest.approx(690 / (3 * 230 * 0.96), abs=1e-6)
        parts = [found[f"ptdaemon/wall-ch{number}/power"] for number in (1, 2, 3)]
        assert sum(parts) == pytest.approx(found["ptdaemon/wall/power"], abs=1e-5)
    times = [row.t_ns for row in rows]
    assert times == sorted(set(times))
    assert before_ns <= times[0] and times[-1] <= after_ns


def test_channels_say_what_is_known_of_them() -> None:
    with PtdaemonServer() as server, opened(server) as driver:
        power = driver.groups[0].channels[0]
    assert (power.scope, power.unit, power.update_period_s, power.window_s, power.stamped) == ("wall", "W", 1, 1, True)
    # WT310E in its ranges of 5 A and 300 V: 0.1 % + 0.05 % · 1500 W + 0.2 % · tan φ with PF 0.9
    assert power.accuracy is not None
    assert power.accuracy.reading_fraction == pytest.approx(0.001 + 0.002 * 0.484322, rel=1e-5)
    assert power.accuracy.absolute == pytest.approx(0.75)


def test_the_accuracy_of_automatic_ranges_is_unknown() -> None:
    with PtdaemonServer(ranges=None) as server, opened(server) as driver:
        assert driver.groups[0].channels[0].accuracy is None
    with PtdaemonServer() as server, opened(server, amps="auto") as driver:
        assert driver.groups[0].channels[0].accuracy is None


def test_ranges_are_rounded_up_as_the_meter_does() -> None:
    found = accuracy_at("YokogawaWT330_multichannel", 239.44, 7.5537, 3, 1.0)
    assert found is not None and found.absolute == pytest.approx(0.0005 * 3 * 300 * 10)
    assert accuracy_at("YokogawaWT310E", 230, 21, 1, 0.9) is None
    assert accuracy_at("YokogawaWT500", 230, 5, 1, 0.9) is None
    assert accuracy_at("YokogawaWT310_DC", 230, 5, 1, 0.9) is None


def test_ptdaemons_own_uncertainty_lies_within_the_limits_that_channels_state() -> None:
    for watts in (100.0, 400.0, 900.0):
        load = Load(watts, power_factor=0.93)
        with PtdaemonServer(lambda t_s, load=load: load, period_s=FAST_S) as server:
            with opened(server, volts="230", amps="5") as driver:
                accuracy = driver.groups[0].channels[0].accuracy
                rows_of(driver, 1)
            with_limit = PtdConnection.open("127.0.0.1", server.port)
            reported = with_limit.statistics("Uncertainty").most
            with_limit.close()
        assert accuracy is not None and reported is not None
        assert reported * watts <= accuracy.reading_fraction * watts + accuracy.absolute


def test_ranges_are_set_before_and_restored_after() -> None:
    with PtdaemonServer(ranges=(20.0, 600.0), period_s=FAST_S) as server:
        with opened(server, volts="230", amps="4.1") as driver:
            assert (server.amperes, server.volts) == (20.0, 600.0)  # opening changes nothing
            rows_of(driver, 1)
            assert (server.amperes, server.volts) == (5.0, 300.0)
        assert (server.amperes, server.volts) == (20.0, 600.0)
        with opened(server) as driver:
            rows_of(driver, 1)
        assert "SR,A,4.1" in server.commands and server.commands.count("SR,V,600.000000") == 1


def test_automatic_ranges_are_restored_as_automatic() -> None:
    with PtdaemonServer(ranges=None, period_s=FAST_S) as server:
        with opened(server, volts="230", amps="2") as driver:
            rows_of(driver, 1)
        assert (server.amperes, server.volts) == (None, None)


def test_no_rows_come_while_ranges_settle() -> None:
    now_ns = [10**9]
    with PtdaemonServer(period_s=FAST_S) as server:
        options = DriverOptions(settings=settings(server, amps="5", settle_s="10"), clock_ns=lambda: now_ns[0])
        driver = PtdDriver.open(options)
        assert driver.groups[0].read() == ()
        now_ns[0] += 9_999_999_999
        assert driver.groups[0].read() == ()
        assert not any(command.startswith("Go") for command in server.commands)
        now_ns[0] += 1
        driver.groups[0].read()
        assert any(command.startswith("Go,1000,0,") for command in server.commands)
        driver.close()


def test_a_probe_finds_the_lowest_ranges() -> None:
    load = Load(400.0, volts=118.0, power_factor=0.9)  # 3.77 A, with room 4.14 A: the range of 5 A
    with PtdaemonServer(lambda t_s: load, ranges=(20.0, 600.0), period_s=FAST_S) as server:
        with opened(server, probe_s="0.2") as driver:
            accuracy = driver.groups[0].channels[0].accuracy
            assert accuracy is not None and accuracy.absolute == pytest.approx(0.0005 * 150 * 5)
            rows_of(driver, 1)
            assert (server.amperes, server.volts) == (5.0, 150.0)
        assert (server.amperes, server.volts) == (20.0, 600.0)


def test_a_probe_that_is_never_read_restores_too() -> None:
    with PtdaemonServer(ranges=(20.0, 600.0), period_s=FAST_S) as server:
        with opened(server, probe_s="0.2"):
            pass
        assert (server.amperes, server.volts) == (20.0, 600.0)


def test_clipped_samples_are_over_range() -> None:
    with PtdaemonServer(lambda t_s: Load(900.0), period_s=FAST_S) as server, opened(server, amps="2") as driver:
        (row, *_) = rows_of(driver, 1)
        assert row.statuses is not None and set(row.statuses) == {Status.OVER_RANGE}
        assert any("clips" in text for text in driver.groups[0].remarks())


def test_rejected_samples_are_missing_and_never_a_value() -> None:
    with PtdaemonServer(period_s=FAST_S) as server:
        server.faults.rejects_every = 2
        with opened(server) as driver:
            rows = rows_of(driver, 4)
    statuses = [row.statuses for row in rows]
    assert statuses[:4] == [bytes(4), bytes([Status.MISSING] * 4)] * 2


def test_uncertainty_above_one_percent_is_remarked_at_once() -> None:
    with PtdaemonServer(lambda t_s: Load(50.0), period_s=FAST_S) as server, opened(server) as driver:
        rows_of(driver, 1)  # 0.05 % of 1500 W are 0.75 W, of 52.6 VA 1.4 %
        assert [text for text in driver.groups[0].remarks() if "left 1%" in text]
        assert driver.groups[0].remarks() == []


def test_uncertainty_that_nobody_knows_is_remarked() -> None:
    with PtdaemonServer(ranges=None, period_s=FAST_S) as server, opened(server) as driver:
        rows_of(driver, 1)
        assert any("cannot tell the uncertainty" in text for text in driver.groups[0].remarks())


def test_another_number_of_channels_than_set_is_remarked() -> None:
    with PtdaemonServer(meter=77, channels=3, period_s=FAST_S) as server, opened(server, channels="2") as driver:
        rows_of(driver, 1)
        assert any("channels=3" in text for text in driver.groups[0].remarks())


# ---- what goes wrong


def refused(port: int, more: dict[str, str] | None = None) -> Refused:
    words = {"host": "127.0.0.1", "port": str(port), **(more or {})}
    (result,) = open_drivers(["ptdaemon"], settings={"ptdaemon": words})
    assert isinstance(result, Refused)
    return result


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "no PTDaemon at" in refused(port).reason


def test_a_busy_ptdaemon() -> None:
    with PtdaemonServer() as server, opened_plainly(server):
        result = refused(server.port, {"reply_s": "0.2"})
    assert "one program at a time" in result.reason and "end the other program" in result.fix


@contextmanager
def opened_plainly(server: PtdaemonServer) -> Iterator[None]:
    with socket.create_connection(("127.0.0.1", server.port)):
        wait_for(lambda: server.connections == 1)
        yield


def test_another_program_answers() -> None:
    with PtdaemonServer() as server:
        server.faults.hello = "220 mail ESMTP"
        assert "is not PTDaemon" in refused(server.port).reason


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("amps", "-3"),
        ("volts", "much"),
        ("port", "0"),
        ("channels", "17"),
        ("probe_s", "11"),
        ("power_factor", "2"),
        ("amperes", "5"),
    ],
)
def test_bad_settings_are_named(setting: str, value: str) -> None:
    assert setting in refused(1, {setting: value}).reason


def test_no_host_is_no_ptdaemon() -> None:
    with pytest.raises(Unavailable, match="no PTDaemon is named"):
        PtdDriver.open(DriverOptions())
    assert all(not isinstance(result, Opened) or result.name != "ptdaemon" for result in open_drivers(["ptdaemon"]))


def test_a_range_that_does_not_exist_costs_readings_with_a_reason() -> None:
    with PtdaemonServer() as server, opened(server, amps="50") as driver, pytest.raises(ReadFailed, match="SR,A,50"):
        driver.groups[0].read()


def test_a_refused_measurement_costs_readings_until_it_begins() -> None:
    with PtdaemonServer(period_s=FAST_S) as server, opened(server) as driver:
        server.faults.refuse_go = True
        with pytest.raises(ReadFailed, match="meter not ready"):
            driver.groups[0].read()
        server.faults.refuse_go = False
        rows_of(driver, 1)


def test_replies_in_pieces() -> None:
    with PtdaemonServer(period_s=FAST_S) as server:
        server.faults.fragment = True
        with opened(server) as driver:
            assert rows_of(driver, 2)[0].values[0] == pytest.approx(400, abs=1e-5)


@pytest.mark.parametrize("garbage", [b"\xff\xfe\x00 nonsense\r\n", b"Last 3 potatoes\r\n", b"x" * 100_000])
def test_garbage_loses_the_device_and_opening_it_again_helps(garbage: bytes) -> None:
    with PtdaemonServer(ranges=(20.0, 600.0), period_s=FAST_S) as server:
        with opened(server, amps="5") as driver:
            rows_of(driver, 1)
            server.faults.garbage = garbage
            with pytest.raises(DeviceLost, match="PTDaemon at"):
                until(lambda rows: [*rows, *driver.groups[0].read()], lambda rows: False, [])
        with opened(server, amps="5") as driver:
            rows_of(driver, 1)
        assert server.amperes == 20.0


def test_it_survives_a_restart_and_still_knows_the_initial_ranges() -> None:
    with PtdaemonServer(ranges=(20.0, 600.0), period_s=FAST_S) as server:
        driver = PtdDriver.open(DriverOptions(settings=settings(server, amps="5", volts="230")))
        rows_of(driver, 1)
        port = server.port
    with pytest.raises(DeviceLost):
        until(lambda rows: [*rows, *driver.groups[0].read()], lambda rows: False, [])
    driver.close()
    assert "no PTDaemon at" in refused(port).reason
    with PtdaemonServer(ranges=(5.0, 300.0), period_s=FAST_S, port=port) as server:  # the meter kept ours
        with opened(server, amps="5", volts="230") as driver:
            rows_of(driver, 1)
        assert (server.amperes, server.volts) == (20.0, 600.0)


def test_a_mute_ptdaemon_is_lost_in_bounded_time() -> None:
    with PtdaemonServer() as server:
        connection = PtdConnection.open("127.0.0.1", server.port, reply_s=0.1)
        server.faults.mute = True
        with pytest.raises(Silent, match="no answer to 'Identify'"):
            connection.identify()
        connection.close()


# ---- stamps


@given(
    shift_s=st.floats(-5e7, 5e7),
    delays=st.lists(st.floats(0.0, 0.4), min_size=1, max_size=40),
    poll_s=st.floats(0.05, 1.0),
    drift=st.floats(-5e-5, 5e-5),
)
@example(shift_s=0.0, delays=[1e-09, 0.0], poll_s=1.0, drift=5e-05)
def test_stamps_are_placed_within_their_bound(shift_s: float, delays: list[float], poll_s: float, drift: float) -> None:
    """Samples of a clock that is far off and drifts, seen by polls: the true instant lies within the bound."""
    clock = StampClock()
    last = 0
    for number, delay in enumerate(delays, 1):
        taken_ns = 10**12 + round((number + delay) * 1e9)
        t_us = round(taken_ns * (1 + drift) / 1000 + shift_s * 1e6)
        polls = math.ceil(taken_ns / (poll_s * 1e9))
        before_ns = round(polls * poll_s * 1e9)
        after_ns = before_ns - round(poll_s * 1e9)
        t_ns, width_ns = clock.place(t_us, after_ns, before_ns)
        assert abs(t_ns - taken_ns) <= width_ns / 2 + 2000
        assert t_ns > last
        last = t_ns
        assert width_ns <= poll_s * 1e9 + 2000


def test_a_clock_that_is_set_is_followed() -> None:
    clock = StampClock()
    for second in range(5):
        clock.place(second * 10**6, second * 10**9, second * 10**9 + 10**8)
    t_ns, width_ns = clock.place((5 + 3600) * 10**6, 5 * 10**9, 5 * 10**9 + 10**8)
    assert (t_ns, width_ns) == (5 * 10**9 + 5 * 10**7, 10**8)


# ---- parsers

PARSERS: list[Callable[[str], object]] = [
    parse_identity,
    parse_ranges,
    parse_count,
    parse_sample,
    stamp_us,
    *(lambda text, name=name: parse_statistics(text, name) for name in ("Watts", "Uncertainty")),  # type: ignore[misc]
]
TRUE_REPLIES = [
    "YokogawaWT330_multichannel,1000,1,1,1,1,0,0,1,version=1.10.0-ed9a21d2-20220817,OS=Linux x,mode=power,1,1,3,0,0,"
    "no_cal_date,YOKOGAWA;WT333E;C2X;F1.04",
    "Ranges,0,10.000000,0,300.000000",
    "Last 733 samples from sum channel and channels 1 - 3",
    "Time,07-17-2024 07:52:22.783,Watts,2358.1,Volts,239.19,Amps,3.407,PF,0.964589,Watts,1,Volts,2,Amps,3,PF,0.9",
    "07-17-2024 07:52:22.783",
    "Watts,4408.347203,2358.100000,4744.300000,733,0,733",
    "Uncertainty,-1.0,10000000.000000,0.000000,733,0,0,733",
]


def survive(text: str) -> None:
    for parse in PARSERS:
        try:
            parse(text)
        except ValueError:
            continue


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    survive(text)


@given(
    st.sampled_from(TRUE_REPLIES),
    st.lists(st.tuples(st.integers(0, 130), st.integers(0, 3), st.text(max_size=3)), max_size=4),
)
def test_no_damaged_reply_breaks_a_parser(reply: str, damages: list[tuple[int, int, str]]) -> None:
    for at, cut, text in damages:
        reply = reply[:at] + text + reply[at + cut :]
    survive(reply)


@pytest.mark.long
def test_a_million_damaged_replies_break_no_parser() -> None:
    import random

    random_ = random.Random(4950)
    letters = "0123456789,.-:;=eE _naifWattsVolPFTime\x00\xff\u0663\n"
    for _ in range(1_000_000):
        reply = list(random_.choice(TRUE_REPLIES))
        for _ in range(random_.randrange(5)):
            reply[random_.randrange(len(reply))] = random_.choice(letters)
        parser = random_.choice(PARSERS)
        try:
            parser("".join(reply[: random_.randrange(1, len(reply) + 1)]))
        except ValueError:
            continue


def test_replies_that_were_published() -> None:
    identity = parse_identity(TRUE_REPLIES[0])
    assert (identity.meter, identity.version, identity.channels) == ("YokogawaWT330_multichannel", "1.10.0", 3)
    ranges = parse_ranges(TRUE_REPLIES[1])
    assert (ranges.amperes, ranges.volts, ranges.command("A")) == (10.0, 300.0, "SR,A,10.000000")
    automatic = parse_ranges("Ranges,1,10.000000,-1,-1.0")
    assert (automatic.command("A"), automatic.command("V")) == ("SR,A,Auto", "SR,V,Auto")
    assert parse_count(TRUE_REPLIES[2]) == 733 and parse_count("Last 1164 samples") == 1164
    sample = parse_sample(TRUE_REPLIES[3])
    assert (sample.total.watts, len(sample.channels), sample.channels[0].power_factor) == (2358.1, 1, 0.9)
    assert stamp_us("01-01-1970 00:00:01.250") == 1_250_000
    watts = parse_statistics(TRUE_REPLIES[5], "Watts")
    assert (watts.mean, watts.samples, watts.errors) == (4408.347203, 733, 0)
    unknown = parse_statistics(TRUE_REPLIES[6], "Uncertainty")
    assert (unknown.mean, unknown.unknown) == (None, 733)


@needs_golden
def test_every_published_reply_and_sample_is_understood() -> None:
    """Samples as they are in spl.txt: RL gives the same fields, without the mark and the names of channels."""
    sessions = sorted(SESSIONS.iterdir())
    assert sessions
    for session in sessions:
        messages = json.loads((session / "power" / "server.json").read_text())["ptd_messages"]
        replies = {message["cmd"]: message["reply"] for message in messages}
        assert parse_identity(replies["Identify"]).version.startswith("1.")
        parse_ranges(replies["RR"])
        for name in ("Watts", "Uncertainty"):
            if name in replies:
                assert parse_statistics(replies[name], name).samples > 0
        (first, *_) = (session / "run_1" / "spl.txt").read_text().splitlines()
        sample = parse_sample(re.sub(r",Mark,[^,]*|,Ch\d+", "", first))
        if sample.channels:
            assert sum(one.watts for one in sample.channels) == pytest.approx(sample.total.watts, abs=0.2)


# ---- lines


def test_a_line_without_end_is_cut_off_and_a_late_one_is_not_lost() -> None:
    lines, theirs = tcp_lines(100)
    theirs.sendall(b"half a")
    with pytest.raises(TimeoutError):
        lines.read_line(0.05)
    theirs.sendall(b" line\r\nnext\n")
    assert (lines.read_line(5), lines.read_line(5)) == ("half a line", "next")
    threading.Thread(target=theirs.sendall, args=(b"x" * 5000,), daemon=True).start()
    with pytest.raises(Closed, match="longer than 100 bytes"):
        lines.read_line(5)
    lines.close()
    theirs.close()


def tcp_lines(limit: int) -> tuple[LineSocket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    return LineSocket(ours, limit), theirs
