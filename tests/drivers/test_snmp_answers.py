"""What SNMP agents say: values by their types, and mutated messages, which are never a wrong value.

pysnmp makes the messages and the keys that ours are held against.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated
from pyasn1.codec.ber import encoder
from pysnmp.proto import rfc1902, rfc1905
from pysnmp.proto.api import v2c
from pysnmp.proto.secmod.rfc3414 import localkey

from drivers.contract import Status
from drivers.host_list import Host
from drivers.snmp import pdu
from drivers.snmp.ber import decode_oid, encode_integer, encode_oid
from drivers.snmp.metrics import Place, make_metric
from drivers.snmp.pdu import Value
from drivers.snmp.security import ClockSet, CommunitySecurity, Reported
from drivers.snmp.user_security import (
    AUTHENTICATIONS,
    UserSecurity,
    encryption_key,
    localized_key,
    make_message,
    make_parameters,
    make_scoped,
)
from drivers.udp import BadPacket

OID = (1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 4, 3, 1, 5, 1)
STATE = (*OID[:-1], 2)
HOST = Host("pdu", "127.0.0.1", 161, {})
POWER = make_metric(HOST, Place("pdu", "wall"), "power", value=OID, state=STATE, step=10.0)
NUMBER = 4711
SECURITY = CommunitySecurity("public")


def made_pdu(*values: Any) -> Any:
    """A RESPONSE with these values, of OID, of STATE and so on."""
    made = v2c.ResponsePDU()
    v2c.apiPDU.set_defaults(made)
    v2c.apiPDU.set_request_id(made, NUMBER)
    v2c.apiPDU.set_varbinds(made, [((*OID[:-1], 1 + place), value) for place, value in enumerate(values)])
    return made


def response(*values: Any) -> bytes:
    return bytes(encoder.encode(made_pdu(*values)))


def message(*values: Any) -> bytes:
    """An agent's answer over v2c."""
    whole = v2c.Message()
    v2c.apiMessage.set_defaults(whole)
    v2c.apiMessage.set_community(whole, "public")
    v2c.apiMessage.set_pdu(whole, made_pdu(*values))
    return bytes(encoder.encode(whole))


def read(raw: bytes) -> dict[tuple[int, ...], Value]:
    """As the client reads it. Raises BadPacket."""
    answer = SECURITY.open(raw, NUMBER)
    return {decode_oid(name): value for name, value in answer.values}


@pytest.mark.parametrize(
    ("value", "due"),
    [
        (rfc1902.Integer32(-1), -1),
        (rfc1902.Integer32(-(2**31)), -(2**31)),
        (rfc1902.Gauge32(2**32 - 1), 2**32 - 1),
        (rfc1902.Counter64(2**64 - 1), 2**64 - 1),
        (rfc1902.TimeTicks(0), 0),
        (rfc1902.OctetString("AP8681"), "AP8681"),
        (rfc1902.OctetString(b"\xff"), "\ufffd"),
        (rfc1902.IpAddress("10.0.0.1"), None),
        (rfc1905.noSuchInstance, None),
        (rfc1905.endOfMibView, None),
        (v2c.Null(""), None),
    ],
)
def test_types(value: Any, due: Value) -> None:
    assert read(message(value)) == {OID: due}


def test_an_answer_counts_only_for_its_request_and_community() -> None:
    raw = message(v2c.Integer(123))
    with pytest.raises(BadPacket):
        SECURITY.open(raw, NUMBER + 1)
    with pytest.raises(BadPacket):
        CommunitySecurity("private").open(raw, NUMBER)
    with pytest.raises(BadPacket):  # the request itself, as an echo
        SECURITY.open(SECURITY.seal(pdu.get(NUMBER, [OID]), NUMBER), NUMBER)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=60), st.integers(0, 1), st.integers(0, 39))
def test_names_of_objects_there_and_back(rest: list[int], first: int, second: int) -> None:
    oid = (first, second, *rest)
    assert decode_oid(encode_oid(oid)) == oid
    assert encoder.encode(v2c.ObjectIdentifier(oid))[-len(encode_oid(oid)) :] == encode_oid(oid)


@given(st.integers(-(2**39), 2**39))
def test_numbers_are_as_pyasn1_has_them(number: int) -> None:
    assert encode_integer(number) == encoder.encode(rfc1902.univ.Integer(number))


@pytest.mark.parametrize(
    ("value", "state", "due"),
    [
        (123, 4, Status.NEW),
        (0, 4, Status.NEW),  # an outlet with nothing in it
        (-1, 4, Status.MISSING),
        (None, 4, Status.MISSING),
        (123, -1, Status.MISSING),
        (123, None, Status.MISSING),
        (-2, 4, Status.INVALID),
        (2**31, 4, Status.INVALID),
        ("123", 4, Status.INVALID),
    ],
)
def test_statuses(value: int | str | None, state: int | None, due: Status) -> None:
    raw, status = POWER.judge({OID: value, STATE: state})
    assert status is due and (status or raw == value)


SOUND = message(v2c.Integer(123), v2c.Integer(4))  # 1230 W, state 4


def check_mutation(raw: bytes) -> None:
    """Refused, or a number that stands in the bytes with its type."""
    try:
        values = read(raw)
    except BadPacket:
        return
    if list(values) != [OID, STATE]:
        return  # the client refuses it
    value, status = POWER.judge(values)
    if status is Status.NEW:
        least = max(1, (int(value).bit_length() + 7) // 8)
        assert 0 <= value < 2**31 and any(int(value).to_bytes(width, "big") in raw for width in range(least, least + 8))


@given(mutated(SOUND))
@settings(max_examples=200, deadline=None)
def test_mutated_messages(raw: bytes) -> None:
    check_mutation(raw)


@pytest.mark.long
@given(st.data())
@settings(max_examples=2000, deadline=None)
def test_a_million_mutated_messages(data: st.DataObject) -> None:
    for raw in data.draw(mutated(SOUND, count=500)):
        check_mutation(raw)


NUMBERS = st.one_of(st.none(), st.text(max_size=4), st.integers(min_value=-(2**63), max_value=2**64))


@given(NUMBERS, NUMBERS)
@settings(max_examples=500, deadline=None)
def test_any_value_is_judged_by_its_range_and_state(value: int | str | None, state: int | str | None) -> None:
    raw, status = POWER.judge({OID: value, STATE: state})
    sound = isinstance(value, int) and 0 <= value < 2**31 and isinstance(state, int) and state != -1
    assert (status is Status.NEW) == sound and (not sound or raw == value)


# SNMP v3

ENGINE = bytes.fromhex("80004fb805636c6f75644dab22cc")


class MadeClock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def ends(clock: MadeClock) -> tuple[UserSecurity, UserSecurity]:
    """A client that knows the agent's engine, and what makes the agent's packets."""
    found = []
    for _ in range(2):
        user = UserSecurity("monitor", AUTHENTICATIONS["SHA256"], b"auth-secret", 16, b"privacy-secret", clock)
        report = encoder.encode(report_of(4))
        user.take_discovery(plain_v3(report), NUMBER)
        found.append(user)
    return found[0], found[1]


def report_of(counter: int) -> Any:
    made = v2c.apiPDU
    whole = rfc1905.ReportPDU()
    made.set_defaults(whole)
    made.set_request_id(whole, NUMBER)
    made.set_varbinds(whole, [((1, 3, 6, 1, 6, 3, 15, 1, 1, counter, 0), v2c.Counter32(1))])
    return whole


def plain_v3(inner: bytes) -> bytes:
    """An agent's packet that is neither authenticated nor encrypted."""
    return make_message(NUMBER, 0, make_parameters(ENGINE, 5, 77, b"", b"", b""), make_scoped(ENGINE, inner))


def test_keys_are_pysnmp_s() -> None:
    engine = v2c.OctetString(ENGINE)
    for digest in ("sha1", "sha224", "sha256", "sha384", "sha512"):
        make = getattr(hashlib, digest)
        judge = bytes(localkey.password_to_key(b"auth-secret", engine, make))
        assert localized_key(b"auth-secret", ENGINE, digest) == judge
        judge += bytes(localkey.password_to_key(v2c.OctetString(judge), engine, make))
        assert encryption_key(b"auth-secret", ENGINE, digest, 32) == judge[:32]
    # RFC 3414, A.3.2
    key = localized_key(b"maplesyrup", bytes(11) + b"\x02", "sha1")
    assert key.hex() == "6695febc9288e36282235fc7151f128497b38f3f"


def test_v3_takes_an_authentic_answer_once_it_knows_the_clock() -> None:
    clock = MadeClock()
    client, agent = ends(clock)
    agent.set_clock(5, 77)
    answer = client.open(agent.seal(response(v2c.Integer(123)), NUMBER), NUMBER)
    assert [(decode_oid(name), value) for name, value in answer.values] == [(OID, 123)]
    clock.seconds += 400
    old = agent.seal(response(v2c.Integer(1)), NUMBER)
    client.open(old, NUMBER)
    clock.seconds += 151
    with pytest.raises(BadPacket, match="too old"):  # played again
        client.open(old, NUMBER)
    agent.set_clock(4, 10_000)
    with pytest.raises(BadPacket, match="too old"):  # of before the agent was started anew
        client.open(agent.seal(response(v2c.Integer(1)), NUMBER), NUMBER)


def test_v3_learns_the_clock_from_an_authentic_report_alone() -> None:
    client, agent = ends(MadeClock())
    agent.set_clock(5, 77)
    with pytest.raises(ClockSet):
        client.open(agent.seal(encoder.encode(report_of(2)), NUMBER), NUMBER)
    assert client._boots == 5
    for counter, name in ((2, "NotInTimeWindow"), (5, "WrongDigest"), (9, "another report")):
        with pytest.raises(Reported, match=name):
            client.open(plain_v3(encoder.encode(report_of(counter))), NUMBER)
    with pytest.raises(BadPacket, match="anyone"):
        client.open(plain_v3(response(v2c.Integer(123))), NUMBER)


def sound_v3() -> tuple[UserSecurity, bytes]:
    client, agent = ends(MadeClock())
    agent.set_clock(5, 77)
    return client, agent.seal(response(v2c.Integer(123), v2c.Integer(4)), NUMBER)


CLIENT, SOUND_V3 = sound_v3()


@given(mutated(SOUND_V3))
@settings(max_examples=300, deadline=None)
def test_no_mutated_message_of_v3_is_an_answer(raw: bytes) -> None:
    if raw != SOUND_V3:
        with pytest.raises((BadPacket, Reported)):
            CLIENT.open(raw, NUMBER)
