"""SNMP's requests and answers (RFC 3416), without what protects them on the way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from drivers.snmp.ber import (
    INTEGER,
    NULL,
    OBJECT,
    OCTETS,
    SEQUENCE,
    Oid,
    element,
    encode,
    encode_integer,
    encode_oid,
    expect,
    expect_integer,
)
from drivers.udp import BadPacket

GET, RESPONSE, GET_BULK, REPORT = 0xA0, 0xA2, 0xA5, 0xA8
TOO_BIG, AUTHORIZATION_ERROR = 1, 16
_UNSIGNED = frozenset((0x41, 0x42, 0x43, 0x46))  # Counter32, Gauge32, TimeTicks, Counter64
_MOST_INTEGER_BYTES = 9

Value = int | str | None  # None: the device has no such object, or it is neither a number nor a text


class Answer(NamedTuple):
    """What an agent says. The names of objects stay as they came, to be compared with those that were asked for."""

    kind: int
    number: int  # of the request
    status: int  # 0: no error
    position: int  # of the object that the error is about, from 1
    values: list[tuple[bytes, Value]]


def get(number: int, oids: Sequence[Oid]) -> bytes:
    """A request for these objects."""
    return _request(GET, number, 0, 0, oids)


def get_bulk(number: int, after: Oid, count: int) -> bytes:
    """A request for as many objects that come after this one."""
    return _request(GET_BULK, number, 0, count, (after,))


def _request(kind: int, number: int, second: int, third: int, oids: Sequence[Oid]) -> bytes:
    head = encode_integer(number) + encode_integer(second) + encode_integer(third)
    return encode(kind, head + encode(SEQUENCE, b"".join(map(_unbound, oids))))


@lru_cache(maxsize=1 << 14)
def _unbound(oid: Oid) -> bytes:
    return encode(SEQUENCE, encode(OBJECT, encode_oid(oid)) + encode(NULL, b""))


def parse_answer(data: bytes, at: int, end: int) -> Answer:
    """The RESPONSE or REPORT that fills `data` from `at` to `end`.

    Raises:
        BadPacket: it is none, or damaged.
    """
    kind, at, stop = element(data, at, end)
    if kind not in (RESPONSE, REPORT) or stop != end:
        raise BadPacket("no answer of an agent")
    number, at = expect_integer(data, at, end)
    status, at = expect_integer(data, at, end)
    position, at = expect_integer(data, at, end)
    at, stop = expect(data, at, end, SEQUENCE)
    if stop != end:
        raise BadPacket("something follows the objects")
    values: list[tuple[bytes, Value]] = []
    while at < end:
        begin, stop = expect(data, at, end, SEQUENCE)
        name, name_end = expect(data, begin, stop, OBJECT)
        tag, content, content_end = element(data, name_end, stop)
        if content_end != stop:
            raise BadPacket("something follows a value")
        values.append((data[name:name_end], _value(tag, data[content:content_end])))
        at = stop
    return Answer(kind, number, status, position, values)


def _value(tag: int, content: bytes) -> Value:
    """Raises BadPacket."""
    if tag == INTEGER or tag in _UNSIGNED:
        if not 1 <= len(content) <= _MOST_INTEGER_BYTES:
            raise BadPacket("a number has no size that is allowed")
        return int.from_bytes(content, "big", signed=tag == INTEGER)
    if tag == OCTETS:
        return content.decode("utf-8", "replace")
    return None
