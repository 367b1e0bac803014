"""Whatever comes over the line: no crash, and no value that is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meter_core import MeterCore
from metered_load import SquareLoad
from msgspec.structs import replace
from other_meters import Chroma, Gpm, Hioki, Lmg
from yokogawa_meter import Wt210, Wt300

from drivers.analyzers.chroma6620x import Chroma6620xDriver
from drivers.analyzers.description import Description
from drivers.analyzers.gpm83xx import Gpm83xxDriver
from drivers.analyzers.lmg import LmgDriver
from drivers.analyzers.meter_ranges import range_values
from drivers.analyzers.pw333x import Pw333xDriver
from drivers.analyzers.replies import BadReply, ReplyParser, Value, bits, disagreeing, last_digit, negative
from drivers.analyzers.yokogawa import Wt210Driver, Wt300Driver, Wt330Driver
from drivers.contract import Status

RANGE_WATTS = 1500.0
# driver, identity of its meter, simulated meter, what else selects the values, how many elements
Case = tuple[Any, str, Callable[[MeterCore], Any], tuple[str, ...], int]
CASES: dict[str, Case] = {
    "wt210": (Wt210Driver, "", Wt210, (":MEAS:ITEM:PF ON", ":MEAS:ITEM:VHZ OFF"), 1),
    "wt310e": (Wt300Driver, "", Wt300, (), 1),
    "wt330e": (Wt330Driver, "YOKOGAWA,WT333E,", Wt300, (), 3),
    "gpm83xx": (Gpm83xxDriver, "", Gpm, (), 1),
    "pw333x": (Pw333xDriver, "HIOKI,PW3335,1", Hioki, (), 1),
    "chroma6620x": (Chroma6620xDriver, "", Chroma, (), 1),
    "lmg": (LmgDriver, "ZES,LMG95,1", Lmg, (), 1),
}


def made_reply(name: str, watts: float) -> tuple[Description, str, float]:
    """A meter's description, what it replies under a load, and the power of each element."""
    driver, identity, make, select, elements = CASES[name]
    description = driver.draft({})
    if identity:
        description = driver.describe(identity, description, {})
    summed = tuple(item.element for item in description.items if item.quantity == "watts" and item.element)
    items = [
        replace(item, sum_of=summed) if summed and item.quantity == "watts" and not item.element else item
        for item in description.items
    ]
    description = replace(description, items=tuple(items))  # as its wiring, 3P4W, has it
    now = [100.0]
    meter = make(MeterCore(lambda: now[0], [SquareLoad(0.0, watts, power_factor=0.93)] * elements))
    needed = (knob.set.replace("{value}", knob.always) for knob in description.knobs if knob.always)
    for command in (*description.begin, *needed, *description.select, *select):
        meter.handle(command)
    now[0] += 2
    if description.stream is not None:
        for command in description.stream.start:
            meter.handle(command)
        now[0] += 1
        return description, next(meter.unasked()), watts
    reply = meter.handle(description.read)
    assert reply is not None
    return description, reply, watts


def mutated(reply: str, rng: random.Random) -> str:
    """One burst of errors: bytes replaced, added, lost or repeated, or the rest missing."""
    text = bytearray(reply.encode())
    place, size = rng.randrange(len(text)), rng.randint(1, 4)
    match rng.randrange(6):
        case 0:
            text[place] ^= 1 << rng.randrange(8)
        case 1:
            text[place : place + size] = rng.randbytes(size)
        case 2:
            text[place:place] = bytes(rng.choice(b"0123456789+-.,;EeNAINF \t") for _ in range(size))
        case 3:
            del text[place : place + size]
        case 4:
            del text[place:]
        case _:
            text[place:place] = text[place : place + size]
    return text.decode("latin-1")


def accepted(description: Description, reply: str) -> list[Value]:
    """What a reading would take for good."""
    values = ReplyParser(description).values(reply)
    wrong = disagreeing(description.items, values) | negative(description.items, values, RANGE_WATTS)
    return [v for item, v in zip(description.items, values, strict=True) if item.element not in wrong]


def check(name: str, count: int, seed: int) -> tuple[int, int]:
    """How many replies were taken, and how many of these differ from what was sent."""
    rng = random.Random(seed)
    taken = changed = 0
    for at in range(count):
        if at % 1000 == 0:
            description, reply, watts = made_reply(name, rng.uniform(5.0, 800.0))
            parser = ReplyParser(description)
        spoiled = mutated(reply, rng)
        try:
            values = parser.values(spoiled)
        except BadReply:
            continue
        wrong = disagreeing(description.items, values) | negative(description.items, values, RANGE_WATTS)
        taken += 1
        changed += spoiled != reply
        for item, value in zip(description.items, values, strict=True):
            if item.quantity == "watts" and item.element not in wrong and value.status == Status.NEW:
                expected = watts * max(len(item.sum_of), 1)
                apparent = expected / 0.93
                few_digits = 3 * max(last_digit(value.text), 0.001 * apparent)
                assert abs(value.value - expected) <= 0.011 * apparent + few_digits, (reply, spoiled)
    return taken, changed


@pytest.mark.parametrize("name", CASES)
def test_what_a_meter_says_is_understood(name: str) -> None:
    description, reply, watts = made_reply(name, 412.34)
    values = ReplyParser(description).values(reply)
    assert not disagreeing(description.items, values)
    powers = [
        value.value / max(len(item.sum_of), 1)
        for item, value in zip(description.items, values, strict=True)
        if item.quantity == "watts"
    ]
    assert powers == pytest.approx([watts] * len(powers), rel=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_no_spoiled_reply_is_taken_for_a_wrong_power(name: str) -> None:
    check(name, 4000, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_none_of_a_million_spoiled_replies_is_taken_for_a_wrong_power(name: str) -> None:
    taken, changed = check(name, 1_000_000, seed=2)
    assert taken > 1000 and changed > 1000


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None)
@given(reply=st.text(max_size=200) | st.text("0123456789+-.,;EINFA ", max_size=200))
def test_anything_at_all_is_a_reply_or_is_refused(name: str, reply: str) -> None:
    driver, *_ = CASES[name]
    description = driver.draft({})
    try:
        values = accepted(description, reply)
    except BadReply:
        return
    assert all(value.status != Status.NEW or abs(value.value) < 9.9e37 for value in values)


@settings(deadline=None)
@given(reply=st.text(max_size=20) | st.integers(-10, 1 << 20).map(str))
def test_a_status_register_is_a_small_number_or_is_refused(reply: str) -> None:
    try:
        assert 0 <= bits(reply) <= 0xFFFF
    except BadReply:
        assert not (reply.isdecimal() and reply.isascii() and int(reply) <= 0xFFFF and len(reply) <= 5)


def test_each_way_to_say_nothing_is_told_from_clipping() -> None:
    parser = ReplyParser(Wt210Driver.draft({}))
    texts = ["9.91E+37", "NAN", "9.90E+37", "INF"]
    values = parser.values(",".join(texts))
    assert [value.status for value in values] == [Status.MISSING, Status.MISSING, Status.OVER_RANGE, Status.OVER_RANGE]
    hioki = ReplyParser(Pw333xDriver.draft({}))
    values = hioki.values("U +999.99E+9;I +777.77E+9;P +888.88E+9;PF +0.9500E+0")
    assert [value.status for value in values] == [Status.OVER_RANGE, Status.MISSING, Status.MISSING, Status.NEW]
    with pytest.raises(BadReply, match="'I' came where 'U' was asked for"):
        hioki.values("I +1.0000E+0;U +1.0000E+0;P +1.0000E+0;PF +1.0000E+0")


WORDS = {"V150": 150.0, "V300": 300.0}


@settings(deadline=None)
@given(
    answer=st.text(max_size=20) | st.text("0123456789.eE+-,; VAUTO", max_size=20), words=st.sampled_from([{}, WORDS])
)
def test_whatever_a_meter_says_of_its_range_is_a_range_or_none(answer: str, words: dict[str, float]) -> None:
    found = range_values(answer, words)
    assert all(0 < value < float("inf") for value in found)
    assert not words or set(found) <= set(words.values())


@pytest.mark.parametrize(
    ("answer", "words", "ranges"),
    [
        ("300.0E+00", {}, [300.0]),
        ("300,300,150", {}, [300.0, 300.0, 150.0]),
        ("300;:VOLTAGE2:RANGE 150", {}, [300.0, 150.0]),
        ("V300", WORDS, [300.0]),
        ("v150", WORDS, [150.0]),
        ("AUTO", WORDS, []),
        ("300", WORDS, []),
        ("EXTERNAL,1.0E+00", {}, []),
        ("NAN", {}, []),
        ("-5", {}, []),
    ],
)
def test_a_range_is_told_from_what_is_none(answer: str, words: dict[str, float], ranges: list[float]) -> None:
    assert range_values(answer, words) == ranges
