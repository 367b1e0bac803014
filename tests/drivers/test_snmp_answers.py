"""What SNMP agents say: values by their types, and mutated messages, which are never a wrong value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated
from pyasn1.codec.ber import decoder, encoder
from pyasn1.error import PyAsn1Error
from pysnmp.proto import rfc1902, rfc1905
from pysnmp.proto.api import v2c
from pysnmp.proto.error import ProtocolError

from drivers.contract import Status
from drivers.host_list import Host
from drivers.snmp.client import plain
from drivers.snmp.metrics import Place, make_metric

OID = (1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 4, 3, 1, 5, 1)
STATE = (*OID[:-1], 2)
HOST = Host("pdu", "127.0.0.1", 161, {})
POWER = make_metric(HOST, Place("pdu", "wall"), "power", value=OID, state=STATE, step=10.0)


def test_types() -> None:
    told: list[tuple[Any, int | str | None]] = [
        (rfc1902.Integer32(-1), -1),
        (rfc1902.Gauge32(2**32 - 1), 2**32 - 1),
        (rfc1902.Counter64(2**64 - 1), 2**64 - 1),
        (rfc1902.OctetString("AP8681"), "AP8681"),
        (rfc1902.OctetString(b"\xff"), "\ufffd"),
        (rfc1902.IpAddress("10.0.0.1"), "10.0.0.1"),
        (rfc1905.noSuchInstance, None),
        (rfc1905.endOfMibView, None),
        (v2c.Null(""), None),
    ]
    for value, due in told[:5] + told[6:]:
        assert plain(value) == due
    assert not isinstance(plain(told[5][0]), int)


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


def message() -> bytes:
    """An agent's answer: 1230 W, state 4."""
    pdu = v2c.ResponsePDU()
    v2c.apiPDU.set_defaults(pdu)
    v2c.apiPDU.set_varbinds(pdu, [(OID, v2c.Integer(123)), (STATE, v2c.Integer(4))])
    whole = v2c.Message()
    v2c.apiMessage.set_defaults(whole)
    v2c.apiMessage.set_community(whole, "public")
    v2c.apiMessage.set_pdu(whole, pdu)
    return bytes(encoder.encode(whole))


SOUND = message()


def check_mutation(raw: bytes) -> None:
    """As the client reads it, with pysnmp's decoder: refused, or a number that stands in the bytes with its type."""
    try:
        whole, _ = decoder.decode(raw, asn1Spec=v2c.Message())
        pairs = [(tuple(name), plain(value)) for name, value in v2c.apiPDU.get_varbinds(v2c.apiMessage.get_pdu(whole))]
    except (PyAsn1Error, ProtocolError, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError):
        return  # pysnmp drops what its decoder refuses
    if [name for name, _ in pairs] != [OID, STATE]:
        return  # the client refuses it
    value, status = POWER.judge(dict(pairs))
    if status is Status.NEW:
        size = max(1, (int(value).bit_length() + 8) // 8)
        tails = [
            int(value).to_bytes(width, "big") for width in range(max(1, (int(value).bit_length() + 7) // 8), size + 8)
        ]
        assert 0 <= value < 2**31 and any(tail in raw for tail in tails)


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
