"""Bytes of IPMI: by hand from the specification, and mutated ones, which are never a wrong value."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated

from drivers.contract import Status
from drivers.ipmi import dcmi, rmcp_plus
from drivers.ipmi.rmcp_plus import SecureChannel
from drivers.udp import BadPacket

REPLY = bytes.fromhex("00 dc b301 0100 0f27 b301 bcf55365 e8030000 40")  # 435 W; a BMC's, as ipmitool prints it


def ends(suite: rmcp_plus.Suite) -> tuple[SecureChannel, SecureChannel]:
    """The BMC's end of a session, and ours."""
    keys = b"k" * 20, b"a" * 16
    return SecureChannel(suite, 2, 1, *keys), SecureChannel(suite, 1, 2, *keys)


def answer(number: int) -> bytes:
    head, body = b"\x81\xb4", bytes((0x20, number << 2, 0x02)) + REPLY
    return head + bytes((-sum(head) & 255,)) + body + bytes((-sum(body) & 255,))


def watts_in(channel: SecureChannel, packet: bytes, number: int) -> dcmi.PowerReading:
    return dcmi.parse_reply(rmcp_plus.parse_response(channel.open(packet), 0x2C, 0x02, number))


@pytest.mark.parametrize("suite", rmcp_plus.SUITES)
def test_a_sealed_answer_is_read_once(suite: rmcp_plus.Suite) -> None:
    bmc, ours = ends(suite)
    packet = bmc.seal(answer(9))
    assert watts_in(ours, packet, 9) == (435, Status.NEW, 0x6553F5BC)
    with pytest.raises(BadPacket):  # played again
        watts_in(ours, packet, 9)
    with pytest.raises(BadPacket):  # the answer to another request
        watts_in(ours, bmc.seal(answer(10)), 9)


def test_the_request_is_the_one_of_the_specification() -> None:
    message = rmcp_plus.request(dcmi.NETFN_GROUP, dcmi.GET_POWER_READING, dcmi.REQUEST, 1)
    assert message == bytes.fromhex("20 b0 30 81 04 02 dc 01 00 00 9c")


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ({1: 0xDD}, dcmi.Garbled),
        ({0: 0xC1}, dcmi.Refused),
        ({18: 0x00}, Status.MISSING),
        ({2: 0, 3: 0}, Status.INVALID),
        ({2: 0xFF, 3: 0xFF}, Status.INVALID),
    ],
)
def test_what_a_bmc_may_say_instead(change: dict[int, int], due: type[Exception] | Status) -> None:
    changed = bytearray(REPLY)
    for place, value in change.items():
        changed[place] = value
    if isinstance(due, Status):
        assert dcmi.parse_reply(bytes(changed)).status is due
    else:
        with pytest.raises(due):
            dcmi.parse_reply(bytes(changed))


def test_a_handshake_in_both_directions_by_hand() -> None:
    """RAKP with fixed numbers, recomputed here with hmac alone."""
    suite = rmcp_plus.SUITES[1]
    made = rmcp_plus.Handshake(suite, 0xA1A2A3A4, 0xB1B2B3B4, b"monitor", b"secret", b"", 0x12, random=bytes(range(16)))
    name = b"\x12\x07monitor"
    ids = b"\xa4\xa3\xa2\xa1", b"\xb4\xb3\xb2\xb1"
    random, guid = bytes(range(16, 32)), bytes(range(32, 48))
    code = hmac.digest(b"secret", b"".join((*ids, bytes(range(16)), random, guid, name)), hashlib.sha1)
    assert made.take_rakp2(b"\x05\0\0\0" + ids[0] + random + guid + code, 5) == 0
    assert made.rakp3(5) == b"\x05\0\0\0" + ids[1] + hmac.digest(b"secret", random + ids[0] + name, hashlib.sha1)
    key = hmac.digest(b"secret", bytes(range(16)) + random + name, hashlib.sha1)
    check = hmac.digest(key, bytes(range(16)) + ids[1] + guid, hashlib.sha1)[:12]
    assert made.take_rakp4(b"\x05\0\0\0" + ids[0] + check, 5) == 0
    with pytest.raises(PermissionError):
        made.take_rakp4(b"\x05\0\0\0" + ids[0] + bytes(12), 5)


def check_packet(channel: SecureChannel, sound: bytes, packet: bytes) -> None:
    """What was changed in a session's packet is found out, whatever it was."""
    if packet == sound:
        return
    with pytest.raises(BadPacket):
        watts_in(channel, packet, 9)


def check_reply(reply: bytes) -> None:
    """Bytes inside of an intact packet: refused, or the number that stands in its place."""
    try:
        reading = dcmi.parse_reply(reply)
    except (dcmi.Refused, dcmi.Garbled):
        return
    assert len(reply) == 19 and reply[:2] == b"\x00\xdc"
    if reading.status is Status.NEW:
        assert reply[18] & 0x40 and reading.watts == reply[2] + 256 * reply[3] and 0 < reading.watts < 0xFFFF


def open_handshake() -> tuple[rmcp_plus.Handshake, dict[str, bytes]]:
    """Ours, and the payloads of a BMC that fit to it."""
    made = rmcp_plus.Handshake(rmcp_plus.SUITES[1], 0xA1, 0xB1, b"m", b"s", b"", 0x12, random=bytes(16))
    ids, name, rest = (struct.pack("<I", 0xA1), struct.pack("<I", 0xB1)), b"\x12\x01m", bytes(range(32))
    code = hmac.digest(b"s", b"".join((*ids, bytes(16), rest, name)), hashlib.sha1)
    chosen = b"".join(struct.pack("<BBBBBxxx", n, 0, 0, 8, 1) for n in range(3))
    key = hmac.digest(b"s", bytes(16) + rest[:16] + name, hashlib.sha1)
    return made, {
        "open": b"\x05\0\x02\0" + ids[0] + ids[1] + chosen,
        "rakp2": b"\x05\0\0\0" + ids[0] + rest + code,
        "rakp4": b"\x05\0\0\0" + ids[0] + hmac.digest(key, bytes(16) + ids[1] + rest[16:], hashlib.sha1)[:12],
    }


def check_handshake(step: str, payload: bytes) -> None:
    """A changed message of a handshake opens nothing with other numbers than the BMC's own."""
    made, sound = open_handshake()
    if step == "rakp4":
        assert made.take_rakp2(sound["rakp2"], 5) == 0
    try:
        if step == "open":
            status, bmc, suite = rmcp_plus.parse_open_response(payload, 5, 0xA1)
            assert status or (suite in rmcp_plus.SUITES and struct.pack("<I", bmc) == payload[8:12])
        elif step == "rakp2":
            assert made.take_rakp2(payload, 5) or payload[4:] == sound["rakp2"][4:]
        else:
            assert made.take_rakp4(payload, 5) or payload[4:] == sound["rakp4"][4:]
    except (BadPacket, PermissionError):
        pass


BMC, OURS = ends(rmcp_plus.SUITES[0])
PACKET = BMC.seal(answer(9))
STEPS = st.sampled_from(["open", "rakp2", "rakp4"])


@given(mutated(PACKET), mutated(REPLY))
@settings(max_examples=300, deadline=None)
def test_mutated_packets_and_replies(packet: bytes, reply: bytes) -> None:
    check_packet(OURS, PACKET, packet)
    check_reply(reply)


@given(STEPS, st.data())
@settings(max_examples=200, deadline=None)
def test_mutated_handshakes(step: str, data: st.DataObject) -> None:
    check_handshake(step, data.draw(mutated(open_handshake()[1][step])))


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused(noise: bytes) -> None:
    for parse in (rmcp_plus.parse_plain, OURS.open):
        with pytest.raises(BadPacket):
            parse(noise)


@pytest.mark.long
@given(st.data())
@settings(max_examples=2000, deadline=None)
def test_a_million_mutated_answers(data: st.DataObject) -> None:
    for packet in data.draw(mutated(PACKET, count=500)):
        check_packet(OURS, PACKET, packet)
    for reply in data.draw(mutated(REPLY, count=500)):
        check_reply(reply)
    step = data.draw(STEPS)
    for payload in data.draw(mutated(open_handshake()[1][step], count=500)):
        check_handshake(step, payload)
