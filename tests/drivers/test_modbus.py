"""Meters on Modbus, behind pymodbus's own server over a pair of ptys and over TCP."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from analyzer_helpers import PATIENCE_S, opened, read_until, refused, statuses, values
from hypothesis import given, settings
from hypothesis import strategies as st
from meter_core import MeterCore
from meter_wire import Faults
from metered_load import SquareLoad
from modbus_meter import PtyModbus, Pzem, Registers, Sdm230, TcpModbus, Wt300Registers, float_words
from pymodbus.framer import FramerRTU

from drivers.contract import DeviceLost, ReadFailed, Status, Unavailable
from drivers.modbus.client import BadAnswer, Refusal, RegisterReader
from drivers.modbus.decoding import Request, decode, float32_ulp, plan_requests
from drivers.modbus.group import DISAGREE, OVER, RESET, RegisterGroup, describe_channels
from drivers.modbus.register_map import Register, RegisterMap, built_in_maps, read_map

STEADY = SquareLoad(0.0, 600.0)
Line = Callable[..., PtyModbus]


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Line]:
    lines: list[PtyModbus] = []

    def plug_in(meter: Registers, faults: Faults | None = None, **line: Any) -> PtyModbus:
        lines.append(PtyModbus(meter, tmp_path / f"tty{len(lines)}", faults, **line))
        return lines[-1]

    yield plug_in
    for line in lines:
        line.close()


def core(load: SquareLoad = STEADY, **state: Any) -> MeterCore:
    return MeterCore(time.monotonic, (load,), **{"period_s": 0.1, **state})


def place(line: PtyModbus, **more: str) -> dict[str, str]:
    return {"map": "pzem016", "port": str(line.path), "baud": "9600", "timeout_s": "0.3", **more}


@pytest.mark.parametrize(("name", "make"), [("pzem016", Pzem), ("sdm230", Sdm230)])
def test_a_meter_on_a_serial_line_is_read(name: str, make: Any, plug: Line) -> None:
    found = opened("modbus", **place(plug(make(core())), map=name))
    (group,) = found.driver.groups
    rows = read_until(group, lambda rows: bool(rows) and values(group, rows[-1])["power"] > 0)
    read = values(group, rows[-1])
    assert (read["power"], read["voltage"], read["frequency"]) == (600.0, 230.0, 50.0)
    assert read["current"] == pytest.approx(600 / 230 / 0.95, abs=0.001) and read["power_factor"] == pytest.approx(0.95)
    (power,) = [channel for channel in group.channels if channel.quantity == "power"]
    assert (power.name, power.scope) == ("modbus/wall/power", "wall") and power.accuracy is not None
    found.driver.close()


def test_the_user_s_accuracy_counts_instead_of_the_map_s(plug: Line) -> None:
    found = opened("modbus", **place(plug(Pzem(core())), accuracy_percent="0.1"))
    accuracies = {channel.quantity: channel.accuracy for channel in found.driver.groups[0].channels}
    power, energy = accuracies["power"], accuracies["energy"]
    assert power is not None and (power.reading_fraction, power.absolute) == (0.001, 0.0)
    assert energy is not None and energy.reading_fraction == 0.005
    found.driver.close()


def test_two_meters_share_no_names(plug: Line) -> None:
    found = opened("modbus:rack1", **place(plug(Pzem(core()))))
    assert found.driver.groups[0].channels[0].name == "modbus:rack1/rack1/voltage"
    found.driver.close()


def test_registers_that_lie_together_are_read_together(plug: Line) -> None:
    line = plug(Sdm230(core()))
    found = opened("modbus", **place(line, map="sdm230"))
    assert line.reads == [(0, 32), (70, 4)]
    found.driver.close()


def test_a_meter_that_refuses_gaps_is_read_without(plug: Line) -> None:
    line = plug(Sdm230(core()))
    line.refused = {0x02, 0x10}
    found = opened("modbus", **place(line, map="sdm230"))
    line.reads.clear()
    assert values(found.driver.groups[0], found.driver.groups[0].read()[0])["voltage"] == 230.0
    assert line.reads == [(0x00, 2), (0x06, 2), (0x0C, 2), (0x1E, 2), (0x46, 4)]
    found.driver.close()


def test_a_value_that_stands_still_is_stale_and_a_new_one_new(plug: Line) -> None:
    load = SquareLoad(100.0, 600.0, period_s=0.7, begin_s=time.monotonic())
    found = opened("modbus", **place(plug(Pzem(core(load, period_s=0.2)))))
    (group,) = found.driver.groups
    rows = read_until(group, lambda rows: len({values(group, row)["power"] for row in rows}) >= 3)
    for before, row in pairwise(rows):
        assert (statuses(group, row)["power"] == Status.STALE) == (before.values == row.values)
    found.driver.close()


def test_energy_by_its_counter_is_that_of_the_load(plug: Line) -> None:
    """Through a clock that runs faster, so that whole watt-hours are many."""
    began_s = time.monotonic()
    load = SquareLoad(2_000.0, 10_000.0, period_s=300.0)

    def fast_s() -> float:
        return 1000 * (time.monotonic() - began_s)

    fast = MeterCore(fast_s, (load,), period_s=10.0, amperes_range=100.0)
    fast.start_integration()
    found = opened("modbus", clock_ns=lambda: round(1e9 * fast_s()), **place(plug(Pzem(fast))))
    (group,) = found.driver.groups
    rows = read_until(group, lambda rows: bool(rows) and rows[-1].t_ns > 1800e9)
    new = [row for row in rows if not statuses(group, row)["energy"]]
    energy = [values(group, row)["energy"] * 3600 for row in (new[0], new[-1])]
    truth = [load.energy(row.t_ns * 1e-9) for row in (new[0], new[-1])]
    # one step of the counter, and what the load takes in an update period and a reading's time
    slack = 3600 + 10_000.0 * (10.0 + max(row.read_ns for row in (new[0], new[-1])) * 1e-9)
    assert energy[1] - energy[0] == pytest.approx(truth[1] - truth[0], abs=2 * slack)
    assert truth[1] - truth[0] > 10 * slack
    found.driver.close()


def test_a_reset_is_told_from_a_broken_reading(plug: Line) -> None:
    meter = Pzem(core(), watt_hours=70_000)  # above 16 bits
    found = opened("modbus", **place(plug(meter)))
    (group,) = found.driver.groups
    assert values(group, group.read()[0])["energy"] == 70_000
    meter.watt_hours = 3
    assert statuses(group, group.read()[0])["energy"] == Status.INVALID
    assert statuses(group, (row := group.read()[0]))["energy"] in (Status.NEW, Status.STALE)
    assert values(group, row)["energy"] == 3 and RESET in group.remarks()
    found.driver.close()


def test_a_scale_beyond_all_reason_makes_no_infinite_value() -> None:
    register = Register(quantity="voltage", address=0, type="f32", scale=1e299)
    assert decode(register, float_words(3e38)).status == Status.INVALID


def test_a_float_counts_in_its_steps_while_it_can() -> None:
    (register,) = [register for register in read_map("sdm230").register if register.quantity == "energy"]
    assert decode(register, float_words(12.345)) == (12345, Status.NEW)
    # at 131 072 kWh the last bit is worth 1/64 kWh, more than ten steps of 0.001
    assert float32_ulp(131_071.0) == 2**-7 and float32_ulp(131_072.0) == 2**-6
    assert decode(register, float_words(131_071.0)) == (131_071_000, Status.NEW)
    assert decode(register, float_words(131_072.0)).status == Status.INVALID


def test_modbus_tcp_with_overload_and_missing_values() -> None:
    meter = core()
    server = TcpModbus(Wt300Registers(meter), unit=7)
    found = opened("modbus", map="wt300", host=server.place, unit="7", scope="node", accuracy_percent="0.2")
    (group,) = found.driver.groups
    read_until(group, lambda rows: bool(rows) and values(group, rows[-1])["power"] == 600.0)
    meter.amperes_range = 1.0
    rows = read_until(group, lambda rows: bool(rows) and statuses(group, rows[-1])["power"] == Status.OVER_RANGE)
    assert statuses(group, rows[-1])["power_factor"] == Status.MISSING and OVER in group.remarks()
    assert group.channels[2].accuracy is not None and group.channels[2].accuracy.reading_fraction == 0.002
    server.close()
    failures: list[Exception] = []
    read_until(group, lambda rows: False, failures)
    assert isinstance(failures[-1], DeviceLost)
    found.driver.close()
    assert "refuses connections" in refused("modbus", map="wt300", host=server.place).reason


FAULTS = {
    "slow": Faults(latency_s=0.05),
    "fragments": Faults(fragments=True),
    "echo": Faults(echo=True),
    "echo and fragments": Faults(echo=True, fragments=True),
}
SPOILED = {
    "garbage": Faults(seed=1, garbage=0.3),
    "mutation": Faults(seed=2, mutation=0.3),
    "loss": Faults(seed=3, loss=0.2),
    "truncation": Faults(seed=4, truncation=0.3),
    "doubled": Faults(seed=5, doubled=0.5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_line_that_loses_nothing_costs_nothing(fault: str, plug: Line) -> None:
    found = opened("modbus", **place(plug(Pzem(core()), FAULTS[fault])))
    rows = read_until(found.driver.groups[0], lambda rows: len(rows) >= 5)
    assert values(found.driver.groups[0], rows[-1])["power"] == 600.0
    found.driver.close()


@pytest.mark.parametrize("fault", SPOILED)
def test_a_spoiled_answer_is_never_a_value(fault: str, plug: Line) -> None:
    line = plug(Pzem(core()))
    found = opened("modbus", **place(line, timeout_s="0.03"))
    (group,) = found.driver.groups
    read_until(group, lambda rows: bool(rows) and values(group, rows[-1])["power"] > 0)
    line.faults = SPOILED[fault]
    line.faults.terminator = b""
    rows = []
    until_s = time.monotonic() + PATIENCE_S
    while (len(rows) < 5 or line.faults.spoiled < 5) and time.monotonic() < until_s:
        try:
            rows += group.read()
        except (ReadFailed, DeviceLost):
            continue
    assert line.faults.spoiled >= 5
    assert {values(group, row)["power"] for row in rows} == {600.0}
    found.driver.close()


def test_pulling_the_plug_loses_the_meter_and_plugging_in_finds_it(plug: Line) -> None:
    line = plug(Pzem(core()))
    found = opened("modbus", **place(line))
    line.unplug()
    with pytest.raises(DeviceLost):
        found.driver.groups[0].read()
    found.driver.close()
    assert refused("modbus", **place(line)).reason == f"there is no {line.path}"
    line.plug_in()
    again = opened("modbus", **place(line))
    assert again.driver.groups[0].read()
    again.driver.close()


def test_silence_fails_and_then_loses(plug: Line) -> None:
    line = plug(Pzem(core()))
    found = opened("modbus", **place(line, timeout_s="0.05"))
    line.faults.mute = True
    failures: list[Exception] = []
    read_until(found.driver.groups[0], lambda rows: False, failures)
    assert [type(failure) for failure in failures] == [ReadFailed, ReadFailed, DeviceLost]
    assert str(failures[0]) == "unit 1 did not answer within 0.05 s"
    found.driver.close()


def test_who_cannot_be_read_is_told_what_to_do(plug: Line) -> None:
    line = plug(Pzem(core()))
    told = refused("modbus", **place(line, unit="9", timeout_s="0.05"))
    assert told.reason.endswith("unit 9 did not answer within 0.05 s") and "modbus.unit" in told.fix
    told = refused("modbus", **place(line, baud="2400", timeout_s="0.1"))
    assert "2400 baud" in told.reason and "modbus.baud" in told.fix
    told = refused("modbus", **place(line, map="wt300"))
    assert "it has no such register" in told.reason
    told = refused("modbus", **place(plug(Wt300Registers(core())), map="sdm230"))
    assert "it has no such register" in told.reason


@pytest.mark.parametrize(
    ("given_settings", "reason"),
    [
        ({}, "nobody said which meter it is"),
        ({"map": "pzem"}, "there is no register map 'pzem'"),
        ({"map": "pzem016"}, "nobody said where the meter is"),
        ({"map": "pzem016", "port": "/dev/x", "host": "y"}, "modbus.port and modbus.host are both set"),
        ({"map": "pzem016", "port": "/dev/x", "unit": "300"}, "modbus.unit is '300'"),
        ({"map": "pzem016", "port": "/dev/x", "parity": "x"}, "modbus.parity is 'x'"),
        ({"map": "pzem016", "port": "/dev/x", "scope": "x"}, "modbus.scope is 'x'"),
        ({"map": "pzem016", "prot": "/dev/x"}, "it has no setting 'prot'"),
        ({"map": "/nowhere.toml", "port": "/dev/x"}, "/nowhere.toml cannot be read: No such file or directory"),
    ],
)
def test_settings_that_make_no_sense_are_named(given_settings: dict[str, str], reason: str) -> None:
    assert refused("modbus", **given_settings).reason == reason


ONE = 'title = "A"\n[[register]]\nquantity = "power"\naddress = 1\ntype = "u16"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("title =", "Invalid value"),
        ('title = "A"', "missing required field `register`"),
        (ONE + "scael = 2", "unknown field `scael`"),
        (ONE + 'unit = "VA"', "power at 0x1: its unit 'VA' is none of W, kW, mW"),
        (ONE + "scale = 0", "power at 0x1: its scale is 0"),
        (ONE + "scale = nan", "a number in it is not finite"),
        (ONE + "step = 1.0", "step belongs to an energy of type f32"),
        (ONE + "modulus = 100", "modulus belongs to an energy"),
        (ONE + "lowest = 5\nhighest = 4", "lowest is not below highest"),
        (ONE + ONE.partition("\n")[2], "two registers hold power"),
        (ONE.replace("= 1\n", "= 65536\n"), "`int` <= 65535"),
        (ONE.replace("u16", "u12"), "Invalid enum value 'u12'"),
        (ONE.replace('"power"', '"voltage"'), "no register holds power or energy"),
    ],
)
def test_a_wrong_map_is_told_where_it_is_wrong(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "meter.toml"
    path.write_text(text)
    told = refused("modbus", map=str(path), port="/dev/x")
    assert told.reason.startswith(f"{path} is no register map: ") and complaint in told.reason, told.reason
    assert "docs/devices/modbus.md" in told.fix


def test_built_in_maps_are_whole() -> None:
    assert built_in_maps() == ["pzem016", "sdm230", "wt300"]
    for name in built_in_maps():
        assert read_map(name).title


def test_parts_of_a_whole_are_rails(tmp_path: Path) -> None:
    path = tmp_path / "three.toml"
    part = '[[register]]\nquantity = "power"\naddress = {}\ntype = "i32"\npart = "L{}"\n'
    path.write_text(ONE + "".join(part.format(2 * n, n) for n in (1, 2, 3)))
    channels = describe_channels(read_map(str(path)), "modbus", "wall", "wall", None, None)
    assert [(c.device, c.scope, c.parent) for c in channels] == [
        ("wall", "wall", None), *((f"wall-L{n}", "rail", "wall") for n in (1, 2, 3)),
    ]  # fmt: skip


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("map") / "x.toml"
    path.write_bytes(content)
    with pytest.raises(Unavailable):
        read_map(str(path))


@given(
    st.sampled_from(["u16", "i16", "u32", "i32", "f32"]), st.sampled_from(["high_first", "low_first"]),
    st.lists(st.integers(0, 0xFFFF), min_size=2, max_size=2),
)  # fmt: skip
def test_each_type_is_what_struct_makes_of_it(kind: Any, order: Any, words: list[int]) -> None:
    register = Register(quantity="power", address=0, type=kind, words=order)
    used = words[: register.size]
    content = struct.pack(f">{len(used)}H", *(used if order == "high_first" else used[::-1]))
    (number,) = struct.unpack({"u16": ">H", "i16": ">h", "u32": ">I", "i32": ">i", "f32": ">f"}[kind], content)
    value, status = decode(register, used)
    if number != number:
        assert status == Status.MISSING
    elif abs(number) == float("inf"):
        assert status == Status.OVER_RANGE
    else:
        assert (value, status) == (number, Status.NEW)


@given(st.sets(st.integers(0, 300), min_size=1, max_size=40), st.integers(2, 40), st.integers(0, 20))
def test_requests_cover_all_registers_and_no_request_is_too_large(
    addresses: set[int], largest: int, bridge: int
) -> None:
    registers = tuple(Register(quantity="power", address=2 * a, type="u32", part=f"p{a}") for a in addresses)
    described = RegisterMap(title="x", register=registers, largest_request=largest)
    requests = plan_requests(described, bridge)
    covered = [address for _, begin, count in requests for address in range(begin, begin + count)]
    assert {2 * a + half for a in addresses for half in (0, 1)} <= set(covered)
    assert len(set(covered)) == len(covered) and max(count for _, _, count in requests) <= largest
    assert requests == sorted(requests) and all(isinstance(request, Request) for request in requests)


class BrokenLine:
    """A line on which answers come as the test says."""

    def __init__(self) -> None:
        self.answer = b""

    def send(self, data: bytes) -> None:
        self._coming = self.answer

    def receive(self, timeout_s: float) -> bytes:
        coming, self._coming = getattr(self, "_coming", b""), b""
        return coming

    def close(self) -> None:
        pass


TRUTH = [2300, 2746, 0, 6000, 0, 123, 0, 500, 95]


def mutated(frame: bytes, random_: random.Random) -> bytes:
    """A few changes of any kind: bytes turned, lost, put in, doubled, cut off, swapped."""
    data = bytearray(frame)
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        place_ = random_.randrange(len(data)) if data else 0
        kind = random_.randrange(6)
        if kind == 0 and data:
            data[place_] = random_.randrange(256)
        elif kind == 1:
            del data[place_ : place_ + random_.randrange(1, 4)]
        elif kind == 2:
            data[place_:place_] = random_.randbytes(random_.randrange(1, 5))
        elif kind == 3:
            data[place_:place_] = data[place_ : place_ + random_.randrange(1, 9)]
        elif kind == 4:
            del data[place_:]
        elif data:
            other = random_.randrange(len(data))
            data[place_], data[other] = data[other], data[place_]
    return bytes(data)


def fuzz(rounds: int, seed: int) -> tuple[int, int]:
    """How many mutated replies were accepted as values, and how many of those were wrong."""
    line, random_ = BrokenLine(), random.Random(seed)
    described = read_map("pzem016")
    reader = RegisterReader(line, 1, 0.0, tcp=False)
    channels = describe_channels(described, "modbus", "wall", "wall", 1.0, None)
    clock = iter(range(0, 10**18, 10**9))
    group = RegisterGroup(
        reader, described, plan_requests(described, 0), channels, period_s=1.0, clock_ns=lambda: next(clock)
    )
    good = FramerRTU.__new__(FramerRTU).encode(struct.pack(">BB9H", 4, 18, *TRUTH), 1, 0)
    line.answer = good
    truth = list(group.read()[0].values)
    accepted = wrong = 0
    for _ in range(rounds):
        line.answer = mutated(good, random_)
        try:
            (row,) = group.read()
        except (ReadFailed, DeviceLost):
            continue
        believed = row.statuses or bytes(len(truth))
        accepted += 1
        wrong += any(s <= Status.STALE and v != t for v, t, s in zip(row.values, truth, believed, strict=True))
    return accepted, wrong


def test_no_mutated_reply_is_a_wrong_value() -> None:
    accepted, wrong = fuzz(10_000, 1)
    assert wrong == 0 and accepted < 10_000


@pytest.mark.long
def test_no_mutated_reply_of_a_million_is_a_wrong_value() -> None:
    accepted, wrong = fuzz(1_000_000, 2)
    assert wrong == 0 and accepted < 1_000_000


def test_a_broken_frame_that_passes_its_check_is_found_by_what_it_says(plug: Line) -> None:
    """A frame with a right check sum and a wrong power: V·I·PF gives it away."""
    line = BrokenLine()
    described = read_map("pzem016")
    reader = RegisterReader(line, 1, 0.0, tcp=False)
    channels = describe_channels(described, "modbus", "wall", "wall", 1.0, None)
    group = RegisterGroup(
        reader, described, plan_requests(described, 0), channels, period_s=1.0, clock_ns=time.monotonic_ns
    )
    words = [*TRUTH]
    words[3] = 9000
    line.answer = FramerRTU.__new__(FramerRTU).encode(struct.pack(">BB9H", 4, 18, *words), 1, 0)
    (row,) = group.read()
    assert statuses(group, row)["power"] == Status.INVALID and DISAGREE in group.remarks()


def test_an_answer_to_another_question_is_none() -> None:
    line = BrokenLine()
    reader = RegisterReader(line, 1, 0.0, tcp=False)
    encode = FramerRTU.__new__(FramerRTU).encode
    for payload, unit in (
        (struct.pack(">BB2H", 4, 4, 1, 2), 1),
        (struct.pack(">BB1H", 3, 2, 1), 1),
        (struct.pack(">BB1H", 4, 2, 1), 2),
    ):
        line.answer = encode(payload, unit, 0)
        with pytest.raises(BadAnswer):
            reader.read(4, 0, 1)
    line.answer = encode(b"\x84\x06", 1, 0)
    with pytest.raises(Refusal, match="it is busy"):
        reader.read(4, 0, 1)
