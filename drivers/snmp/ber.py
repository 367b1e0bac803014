"""The forms of BER (X.690) that SNMP messages are made of. What does not end where its length says is refused."""

from __future__ import annotations

from functools import lru_cache

from drivers.udp import BadPacket

Oid = tuple[int, ...]

INTEGER, OCTETS, NULL, OBJECT, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
_MOST_LENGTH_BYTES = 3
_MOST_ARCS, _HIGHEST_ARC = 128, 0xFFFF_FFFF  # RFC 2578, 3.5
_MANY = 1 << 14  # names of objects that are kept as bytes: those of PDUs of one kind are the same


def encode(tag: int, content: bytes) -> bytes:
    """An element."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def encode_integer(value: int) -> bytes:
    """An INTEGER element."""
    return encode(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


@lru_cache(maxsize=_MANY)
def encode_oid(oid: Oid) -> bytes:
    """The content of an OBJECT IDENTIFIER."""
    out = bytearray()
    for arc in (40 * oid[0] + oid[1], *oid[2:]):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | (arc & 0x7F))
        out += bytes(reversed(groups))
    return bytes(out)


def decode_oid(content: bytes) -> Oid:
    """The other way. Raises BadPacket."""
    arcs: list[int] = []
    arc, begins = 0, True
    for byte in content:
        if begins and byte == 0x80:
            raise BadPacket("the name of an object is padded")
        arc = arc << 7 | byte & 0x7F
        begins = byte < 0x80
        if begins:
            arcs.append(arc)
            arc = 0
        if arc > _HIGHEST_ARC or len(arcs) > _MOST_ARCS:
            raise BadPacket("the name of an object is too long")
    if not begins or not arcs or max(arcs) > _HIGHEST_ARC:
        raise BadPacket("the name of an object breaks off")
    first = min(arcs[0] // 40, 2)
    return (first, arcs[0] - 40 * first, *arcs[1:])


def element(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Tag of the element at `at`, where its content begins, and where it ends. Raises BadPacket."""
    if at + 2 > end:
        raise BadPacket("an element breaks off")
    tag, size = data[at], data[at + 1]
    at += 2
    if size >= 0x80:
        count = size & 0x7F
        if not 1 <= count <= _MOST_LENGTH_BYTES or at + count > end:
            raise BadPacket("an element's length is none")
        size = int.from_bytes(data[at : at + count], "big")
        at += count
    if at + size > end:
        raise BadPacket("an element is longer than what it is in")
    return tag, at, at + size


def expect(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Begin and end of the content of the element at `at`, which must have this tag. Raises BadPacket."""
    found, begin, stop = element(data, at, end)
    if found != tag:
        raise BadPacket(f"an element has the tag {found:#x} where {tag:#x} is due")
    return begin, stop


def expect_integer(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The INTEGER at `at`, and where it ends. Raises BadPacket."""
    begin, stop = expect(data, at, end, INTEGER)
    if not 1 <= stop - begin <= 5:
        raise BadPacket("a number has no size that is allowed")
    return int.from_bytes(data[begin:stop], "big", signed=True), stop


def expect_octets(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """The OCTET STRING at `at`, and where it ends. Raises BadPacket."""
    begin, stop = expect(data, at, end, OCTETS)
    return data[begin:stop], stop
