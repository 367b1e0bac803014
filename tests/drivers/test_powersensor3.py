"""PowerSensor3 against a simulated one behind a pty, whose samples come 20 000 times a second by a clock of its own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from analyzer_helpers import PATIENCE_S, opened, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from powersensor3_device import INTERVAL_US, PtyDevice, SimDevice, SimRail, packet

from drivers.contract import DeviceLost, Group, Row, Status, Unavailable
from drivers.discovery import Opened
from drivers.powersensor3.device import Device, _sensor
from drivers.powersensor3.device_clock import DeviceClock
from drivers.powersensor3.drain import MOST_BYTES, Drain
from drivers.powersensor3.frames import FRAME_BYTES, LEARN_STEPS, FrameReader
from drivers.powersensor3.group import LOST, MARKED, OVER
from drivers.powersensor3.rails import EnergyCount

RAIL = SimRail()
Plug = Callable[..., PtyDevice]


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Plug]:
    lines: list[PtyDevice] = []

    def plug_in(device: SimDevice | None = None) -> PtyDevice:
        lines.append(PtyDevice(device or SimDevice(), tmp_path / f"tty{len(lines)}"))
        return lines[-1]

    yield plug_in
    for line in lines:
        line.close()


def columns(group: Group) -> dict[str, int]:
    return {channel.name.split("/", 1)[1]: place for place, channel in enumerate(group.channels)}


def stream(found: Opened, enough: Callable[[list[Row]], bool], each: Callable[[], Any] = lambda: None) -> list[Row]:
    """Rows until they are enough."""
    rows: list[Row] = []
    until_s = time.monotonic() + PATIENCE_S
    while not enough(rows):
        assert time.monotonic() < until_s, len(rows)
        rows += found.driver.groups[0].read()
        each()
        time.sleep(0.005)
    return rows


def remarks(group: Group) -> set[str]:
    return set(group.remarks())


def test_power_and_energy_are_those_of_the_load(plug: Plug) -> None:
    """A row is 20 samples; ten rows are a period of the load, whose mean is known in closed form."""
    found = opened("powersensor3", port=str(plug().path))
    (group,) = found.driver.groups
    at = columns(group)
    rows = stream(found, lambda rows: len(rows) >= 400)
    assert all(row.statuses is None for row in rows)
    first, last = rows[0], rows[390]
    joules = (last.values[at["pair0-12V/energy"]] - first.values[at["pair0-12V/energy"]]) * 1e-6
    assert joules == pytest.approx(RAIL.mean_watts * 390 * 0.001, abs=2e-6)
    powers = {round(row.values[at["pair0-12V/power"]], 4) for row in rows}  # the configuration is in float32
    assert powers == {round(RAIL.volts * RAIL.amperes(level), 4) for level in (RAIL.low, RAIL.high)}
    assert rows[0].values[at["pair0-12V/voltage"]] == pytest.approx(RAIL.volts)
    found.driver.close()


def test_a_mean_power_is_that_of_products_and_not_of_means(plug: Plug) -> None:
    """Over a block of whole periods."""
    found = opened("powersensor3", port=str(plug().path), rows_hz="100")
    rows = stream(found, lambda rows: len(rows) >= 5)
    at = columns(found.driver.groups[0])
    assert [row.values[at["pair0-12V/power"]] for row in rows[:5]] == pytest.approx([RAIL.mean_watts] * 5)
    found.driver.close()


def test_rows_stand_at_the_device_s_instants_on_this_host_s_clock(plug: Plug) -> None:
    line = plug(SimDevice(drift=80e-6))
    found = opened("powersensor3", port=str(line.path))
    rows = stream(found, lambda rows: len(rows) >= 300)
    apart = [b.t_ns - a.t_ns for a, b in pairwise(rows)]
    assert min(apart) >= 989_000 and max(apart) <= 1_011_000  # a millisecond, followed at a hundredth at most
    # row k ends with sample 20·k + 19; nothing is seen before it is, and the nearest is not seen much later
    late_s = [row.t_ns * 1e-9 - line.device.began_s - (20 * k + 20) * INTERVAL_US * 1e-6 for k, row in enumerate(rows)]
    assert min(late_s) > -0.0005
    assert late_s[-1] < 0.25 + max(row.read_ns for row in rows) * 1e-9
    found.driver.close()


def test_all_samples_are_seen(plug: Plug) -> None:
    found = opened("powersensor3", port=str(plug().path), rows_hz="20000")
    rows = stream(found, lambda rows: len(rows) >= 4000)
    at = columns(found.driver.groups[0])["pair0-12V/current"]
    low, high = (round(RAIL.amperes(level), 5) for level in (RAIL.low, RAIL.high))
    seen = [round(row.values[at], 5) for row in rows]
    assert seen[:4000] == [high if k % 200 >= 100 else low for k in range(4000)]
    found.driver.close()


def test_a_scope_makes_a_total_with_rails_in_it(plug: Plug) -> None:
    line = plug(SimDevice([SimRail("slot 12V"), SimRail("ext", high=900), SimRail("no", in_use=False)]))
    found = opened("powersensor3:rig", port=str(line.path), scope="gpu", accuracy_percent="1")
    (group,) = found.driver.groups
    assert [(c.name, c.scope, c.parent) for c in group.channels if c.quantity in ("power", "energy")] == [
        ("powersensor3:rig/rig-pair0-slot_12V/power", "rail", "rig"),
        ("powersensor3:rig/rig-pair0-slot_12V/energy", "rail", "rig"),
        ("powersensor3:rig/rig-pair1-ext/power", "rail", "rig"),
        ("powersensor3:rig/rig-pair1-ext/energy", "rail", "rig"),
        ("powersensor3:rig/rig/power", "gpu", None),
        ("powersensor3:rig/rig/energy", "gpu", None),
    ]
    rows = stream(found, lambda rows: len(rows) >= 5)
    at = columns(group)
    for row in rows:
        parts = row.values[at["rig-pair0-slot_12V/power"]] + row.values[at["rig-pair1-ext/power"]]
        assert row.values[at["rig/power"]] == pytest.approx(parts)
    found.driver.close()


def test_accuracy_in_watts_adds_up_in_joules(plug: Plug) -> None:
    found = opened("powersensor3", port=str(plug().path), accuracy_percent="1", accuracy_watts="0.5")
    accuracy = {channel.quantity: channel.accuracy for channel in found.driver.groups[0].channels}
    power, energy = accuracy["power"], accuracy["energy"]
    assert power is not None and (power.reading_fraction, power.absolute, power.per_second) == (0.01, 0.5, 0.0)
    assert energy is not None and (energy.reading_fraction, energy.absolute, energy.per_second) == (0.01, 0.0, 0.5)
    found.driver.close()


LOSSES: dict[str, Callable[[SimDevice], None]] = {
    "one sample": lambda device: setattr(device, "skip", 1),
    "many samples": lambda device: setattr(device, "skip", 777),
    "one byte": lambda device: setattr(device, "cut", 1),
    "a sample's bytes, from the middle of one": lambda device: setattr(device, "cut", 18),
    "an odd number of bytes": lambda device: setattr(device, "cut", 333),
    "garbage": lambda device: setattr(device, "insert", bytes(range(251))),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_lost_samples_are_found_and_their_energy_not_made_up(loss: str, plug: Plug) -> None:
    line = plug()
    found = opened("powersensor3", port=str(line.path))
    (group,) = found.driver.groups
    before = stream(found, lambda rows: len(rows) >= 50)
    LOSSES[loss](line.device)
    told: set[str] = set()
    after = stream(found, lambda rows: any(row.statuses for row in rows), lambda: told.update(group.remarks()))
    after += stream(found, lambda rows: len(rows) >= 50)
    assert told == {LOST}
    at = columns(group)
    rows = before + after
    missing = [k for k, row in enumerate(rows) if row.statuses]
    assert len(missing) == 1 and set(rows[missing[0]].statuses or b"") == {Status.MISSING}
    energy = [row.values[at["pair0-12V/energy"]] for row in rows]
    assert [
        k + 1 for k, (a, b) in enumerate(pairwise(e for e in energy if e == e)) if b < a
    ] == missing  # a reset, once
    low, high = (RAIL.volts * RAIL.amperes(level) for level in (RAIL.low, RAIL.high))
    for row in rows:
        power = row.values[at["pair0-12V/power"]]
        assert row.statuses or low - 1e-6 <= power <= high + 1e-6  # never a sample made of two
    assert all(b.t_ns > a.t_ns for a, b in pairwise(rows))
    found.driver.close()


def test_a_reading_that_comes_late_loses_nothing(plug: Plug) -> None:
    """A second of samples is 360 kB, and the line holds 64 kB."""
    line = plug()
    found = opened("powersensor3", port=str(line.path))
    (group,) = found.driver.groups
    rows = list(group.read())
    until_s = time.monotonic() + PATIENCE_S
    while line.device.made < 20_000:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    rows += stream(found, lambda rows: len(rows) >= 1000)
    assert line.device.overrun_bytes == 0 and not any(row.statuses for row in rows) and not group.remarks()
    found.driver.close()


class EndlessLink:
    """A line on which bytes come faster than anybody reads them."""

    by_message = False
    at_once = 1 << 16

    def receive(self, timeout_s: float) -> bytes:
        return bytes(self.at_once)

    def send(self, data: bytes) -> None: ...

    def clear(self) -> None: ...

    def close(self) -> None: ...


def test_what_nobody_reads_is_bounded() -> None:
    link = EndlessLink()
    drain = Drain(link, time.monotonic_ns)
    until_s = time.monotonic() + PATIENCE_S
    while drain.waiting_bytes < MOST_BYTES:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    drain.stop()
    data, _ = drain.take()
    assert MOST_BYTES <= len(data) < MOST_BYTES + link.at_once and drain.waiting_bytes == 0


def test_a_sensor_at_its_end_is_over_range(plug: Plug) -> None:
    found = opened("powersensor3", port=str(plug(SimDevice([SimRail(high=1023)])).path))
    rows = stream(found, lambda rows: len(rows) >= 30)
    at = columns(found.driver.groups[0])
    over = [row for row in rows if row.statuses]
    assert len(over) in range(10, 20) and OVER in remarks(found.driver.groups[0])
    assert {(row.statuses or b"")[at["pair0-12V/power"]] for row in over} == {Status.OVER_RANGE}
    assert {(row.statuses or b"")[at["pair0-12V/voltage"]] for row in over} == {Status.NEW}
    found.driver.close()


def test_a_marker_is_told_once(plug: Plug) -> None:
    line = plug()
    found = opened("powersensor3", port=str(line.path))
    stream(found, lambda rows: len(rows) >= 5)
    line.device.markers = 1
    told: list[str] = []
    rows = stream(
        found, lambda rows: bool(told) and len(rows) > 100, lambda: told.extend(found.driver.groups[0].remarks())
    )
    assert told == [MARKED] and not any(row.statuses for row in rows)
    found.driver.close()


def test_pulling_the_plug_loses_the_device_and_plugging_in_finds_it(plug: Plug) -> None:
    line = plug()
    found = opened("powersensor3", port=str(line.path))
    at = columns(found.driver.groups[0])["pair0-12V/energy"]
    before = stream(found, lambda rows: len(rows) >= 20)
    line.unplug()
    with pytest.raises(DeviceLost):
        stream(found, lambda rows: False)
    found.driver.close()
    assert refused("powersensor3", port=str(line.path)).reason == f"there is no {line.path}"
    line.plug_in()
    again = opened("powersensor3", port=str(line.path))
    after = stream(again, lambda rows: len(rows) >= 20)
    assert after[-1].values[at] < before[-1].values[at]  # a reset, not a leap
    again.driver.close()


def test_a_device_that_falls_silent_is_lost(plug: Plug) -> None:
    line = plug()
    found = opened("powersensor3", port=str(line.path))
    stream(found, lambda rows: len(rows) >= 5)
    line.device.stuck = True
    with pytest.raises(DeviceLost, match="no samples have come for a second"):
        stream(found, lambda rows: False)
    found.driver.close()


def test_a_stream_that_somebody_left_running_is_stopped(plug: Plug) -> None:
    line = plug()
    line.device.began_s, line.device.streaming = time.monotonic(), True
    found = opened("powersensor3", port=str(line.path))
    assert stream(found, lambda rows: len(rows) >= 5)
    found.driver.close()


def test_who_is_no_powersensor_is_refused(plug: Plug) -> None:
    told = refused("powersensor3", port=str(plug(SimDevice(version=b"what?\r\n")).path))
    assert "answers b'what?" in told.reason and "check that it is a PowerSensor3" in told.fix
    told = refused("powersensor3", port=str(plug(SimDevice([SimRail(in_use=False)])).path))
    assert told.reason == "none of its pairs of sensors is in use"
    told = refused("powersensor3", port=str(plug(SimDevice([SimRail(amperes_sensitivity=0.0)])).path))
    assert told.reason.startswith("sensor 0 is set to a reference of")
    assert refused("powersensor3").reason == "nobody said where the device is"
    assert refused("powersensor3", port="/dev/x", rows_hz="3000").reason.startswith("powersensor3.rows_hz is 3000")
    assert refused("powersensor3", port="/dev/x", scope="x").reason == "powersensor3.scope is 'x'"


@given(st.binary(min_size=41, max_size=41))
def test_no_configuration_breaks_the_reader(record: bytes) -> None:
    try:
        sensor = _sensor(3, record)
    except Unavailable:
        return
    assert not sensor.in_use or abs(sensor.per_level) > 0


# Frames


def frames(count: int, random_: random.Random) -> list[bytes]:
    """Well-formed ones, 50 µs apart, of random levels."""
    made = []
    for sample in range(count):
        stamp = (sample * INTERVAL_US) & 1023
        made.append(packet(7, stamp, True) + b"".join(packet(s, random_.randrange(1024)) for s in range(8)))
    return made


def read_frames(reader: FrameReader, data: bytes, random_: random.Random) -> list[bytes | None]:
    """What a reader gives of data that comes in pieces: frames as bytes, None for a loss."""
    out: list[bytes | None] = []
    while data:
        size = random_.randrange(1, 600)
        for run in reader.feed(data[:size]):
            if run is None:
                out.append(None)
                continue
            whole = run.words.tobytes()
            assert len(whole) == FRAME_BYTES * len(run.steps_us)
            out += [whole[k : k + FRAME_BYTES] for k in range(0, len(whole), FRAME_BYTES)]
        data = data[size:]
    return out


@given(st.integers(0, 1 << 32))
@settings(max_examples=50, deadline=None)
def test_pieces_make_a_whole(seed: int) -> None:
    random_ = random.Random(seed)
    reader = FrameReader()
    reader.interval_us = float(INTERVAL_US)
    made = frames(100, random_)
    assert read_frames(reader, b"".join(made), random_) == made[:-1]


def fuzz(rounds: int, seed: int) -> int:
    """Lose, put in and double bytes of a stream; return how many sets of levels were believed that were never sent.

    Bits that are turned inside a level are out of reach: the stream has no check sum, and USB has.
    """
    random_ = random.Random(seed)
    wrong = 0
    made = frames(60, random_)
    whole = b"".join(made)
    sent = {frame[2:] for frame in made}  # bytes put in may make another stamp, if within the jitter of the true one
    for _ in range(rounds):
        data = bytearray(whole)
        # Faults lie apart: a byte lost beside one put in is a turned one. From the end, so that places stay.
        for part in sorted(random_.sample(range(6), random_.choice((1, 1, 2, 3))), reverse=True):
            place = part * 180 + random_.randrange(90)
            kind = random_.randrange(4)
            if kind == 0:
                del data[place : place + random_.randrange(1, 64)]
            elif kind == 1:
                data[place:place] = random_.randbytes(random_.randrange(1, 40))
            elif kind == 2:
                data[place:place] = data[place : place + random_.randrange(1, 40)]
            else:
                data[place] ^= 0x80  # no packet any more
        reader = FrameReader()
        reader.interval_us = float(INTERVAL_US)
        for run in reader.feed(bytes(data)):
            if run is not None:
                whole_run = run.words.tobytes()
                wrong += any(
                    whole_run[k + 2 : k + FRAME_BYTES] not in sent for k in range(0, len(whole_run), FRAME_BYTES)
                )
    return wrong


def test_no_broken_stream_makes_a_frame_that_was_not_sent() -> None:
    assert fuzz(3_000, 1) == 0


@pytest.mark.long
def test_no_broken_stream_of_a_million_makes_a_frame_that_was_not_sent() -> None:
    assert fuzz(1_000_000, 2) == 0


@given(st.binary(max_size=2000), st.integers(0, 1 << 32))
@settings(max_examples=200)
def test_no_bytes_break_the_reader_or_pile_up_in_it(data: bytes, seed: int) -> None:
    reader = FrameReader()
    read_frames(reader, data, random.Random(seed))
    assert len(reader._pending) <= (LEARN_STEPS + 1) * FRAME_BYTES


# Clock and counter


@pytest.mark.parametrize("drift", [-200e-6, 0.0, 60e-6])
def test_the_clock_finds_the_drift_under_delays(drift: float) -> None:
    """Delays of 0.3 ms and an exponential tail of 5 ms on top, 50 times a second for a minute."""
    random_ = random.Random(1)
    clock = DeviceClock()
    told_ns = before_ns = 0
    for number in range(1, 3000):
        device_us = number * 20_000
        true_ns = 10**12 + device_us * 1000 * (1 + drift)
        assert not clock.note(device_us, round(true_ns + 300_000 + random_.expovariate(1 / 5e6)))
        told_ns = clock.host_ns(device_us)
        assert told_ns > before_ns
        before_ns = told_ns
    assert clock.rate - 1 == pytest.approx(drift, abs=5e-6)
    assert -50_000 < told_ns - true_ns - 300_000 < 500_000


def test_samples_lost_unseen_show_in_the_clock() -> None:
    """41 samples are 2.05 ms, which a stamp of 1.024 ms does not tell from 2 µs."""
    random_ = random.Random(1)
    clock = DeviceClock()
    lost_ns = 0
    slips = []
    for number in range(1, 1000):
        device_us = number * 20_000
        if number == 600:
            lost_ns = 2_050_000
        if clock.note(device_us, device_us * 1000 + lost_ns + round(random_.expovariate(1 / 2e5))):
            slips.append(number)
    assert len(slips) == 1 and 600 < slips[0] <= 760


@given(st.lists(st.floats(-1.0, 3.0), max_size=60))
def test_the_counter_grows_by_what_was_added_and_never_falls(joules: list[float]) -> None:
    count = EnergyCount(10**12)
    begin, _ = count.add(0.0)
    last, total = begin, 0.0
    for each in joules:
        raw, status = count.add(each)
        total += each
        assert raw >= last
        if status == Status.NEW:
            assert total * 1e6 - 1.001 <= raw - begin <= total * 1e6 + 10_001
        last = raw


@given(st.floats(0.0, 1.9), st.integers(1, 100))
def test_a_counter_that_starts_anew_is_below_all_before(joules: float, blocks: int) -> None:
    count = EnergyCount(10**12)
    last = max(count.add(joules * 0.001)[0] for _ in range(blocks))
    count.start_anew(0.001)
    assert count.add(1.999 * 0.001 * 1000 / 1000)[0] < last
    later = EnergyCount(10**12 + 10**9)
    assert later.add(2.0)[0] < last


def test_closing_tells_the_device_to_stop(plug: Plug) -> None:
    line = plug()
    found = opened("powersensor3", port=str(line.path))
    stream(found, bool)
    found.driver.close()
    until_s = time.monotonic() + PATIENCE_S
    while line.device.streaming:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    assert isinstance(found.driver._device, Device)  # type: ignore[attr-defined]
