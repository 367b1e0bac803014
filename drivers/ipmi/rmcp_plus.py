"""Packets of an IPMI 2.0 session (RMCP+): made, and read only where their authentication code is right.

IPMI 2.0 rev 1.1, chapter 13. The cipher suites are 17 (HMAC-SHA256) and 3 (HMAC-SHA1), both with AES-CBC-128;
anything weaker is refused. Everything here is bytes in, bytes out.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from drivers.udp import BadPacket

OPEN_REQUEST, OPEN_RESPONSE, RAKP1, RAKP2, RAKP3, RAKP4 = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
IPMI = 0x00
MAX_USER_BYTES, MAX_PASSWORD_BYTES = 16, 20

_HEADER = struct.Struct("<4sBBIIH")  # RMCP, authentication type, payload type, session, sequence number, length
_RMCP = b"\x06\x00\xff\x07"
_RMCP_PLUS = 0x06
_ENCRYPTED, _AUTHENTICATED = 0x80, 0x40
_NEXT_HEADER = 0x07
_BMC, _CONSOLE = 0x20, 0x81
_BLOCK = 16


@dataclass(frozen=True)
class Suite:
    """A cipher suite by its algorithms' numbers."""

    number: int
    authentication: int
    integrity: int
    digest: str
    code_bytes: int  # of a packet's authentication code


SUITES = (Suite(17, 3, 4, "sha256", 16), Suite(3, 1, 1, "sha1", 12))  # the best first
_AES_CBC_128 = 1


def mac(suite: Suite, key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), suite.digest)


def open_request(tag: int, role: int, console: int, suite: Suite) -> bytes:
    return struct.pack(
        "<BBHI BBBB Bxxx BBBB Bxxx BBBB Bxxx",
        *(tag, role, 0, console),
        *(0, 0, 0, 8, suite.authentication),
        *(1, 0, 0, 8, suite.integrity),
        *(2, 0, 0, 8, _AES_CBC_128),
    )


def parse_open_response(payload: bytes, tag: int, console: int) -> tuple[int, int, Suite | None]:
    """Status (0: accepted), the BMC's session, and the suite that it chose.

    Raises:
        BadPacket: it is no answer to that request, or it chose algorithms that are too weak.
    """
    if len(payload) < 8 or payload[0] != tag:
        raise BadPacket("no answer to the open request")
    if payload[1]:
        return payload[1], 0, None
    if len(payload) != 36 or struct.unpack_from("<I", payload, 4)[0] != console:
        raise BadPacket("the answer to the open request is damaged")
    chosen = (payload[16], payload[24], payload[32])
    for suite in SUITES:
        if chosen == (suite.authentication, suite.integrity, _AES_CBC_128):
            return 0, struct.unpack_from("<I", payload, 8)[0], suite
    raise BadPacket(f"the BMC chose the algorithms {chosen}, which are too weak or unknown")


@dataclass
class Handshake:
    """The four RAKP messages, and the keys that come of them."""

    suite: Suite
    console: int
    bmc: int
    user: bytes
    password: bytes = field(repr=False)
    bmc_key: bytes = field(repr=False)  # Kg; empty: the password stands in for it
    role: int
    random: bytes = field(default_factory=lambda: os.urandom(16), repr=False)
    bmc_random: bytes = field(default=b"", repr=False)
    bmc_guid: bytes = b""

    @property
    def _name(self) -> bytes:
        return bytes((self.role, len(self.user))) + self.user

    def rakp1(self, tag: int) -> bytes:
        return (
            struct.pack("<BxxxI", tag, self.bmc)
            + self.random
            + struct.pack("<BxxB", self.role, len(self.user))
            + self.user
        )

    def take_rakp2(self, payload: bytes, tag: int) -> int:
        """The status; 0: the BMC knows the user, and its password is ours.

        Raises:
            BadPacket: it is no answer to RAKP 1.
            PermissionError: the BMC's code was made with another password.
        """
        self._check_head(payload, tag)
        if payload[1]:
            return payload[1]
        size = hashlib.new(self.suite.digest).digest_size
        if len(payload) != 40 + size:
            raise BadPacket("RAKP 2 is damaged")
        self.bmc_random, self.bmc_guid, code = payload[8:24], payload[24:40], payload[40:]
        ids = struct.pack("<II", self.console, self.bmc)
        due = mac(self.suite, self.password, ids, self.random, self.bmc_random, self.bmc_guid, self._name)
        if not hmac.compare_digest(code, due):
            raise PermissionError
        return 0

    def rakp3(self, tag: int) -> bytes:
        code = mac(self.suite, self.password, self.bmc_random, struct.pack("<I", self.console), self._name)
        return struct.pack("<BxxxI", tag, self.bmc) + code

    def take_rakp4(self, payload: bytes, tag: int) -> int:
        """The status; 0: the session is open.

        Raises:
            BadPacket: it is no answer to RAKP 3.
            PermissionError: the BMC has another key (Kg).
        """
        self._check_head(payload, tag)
        if payload[1]:
            return payload[1]
        due = mac(self.suite, self._session_key(), self.random, struct.pack("<I", self.bmc), self.bmc_guid)
        if not hmac.compare_digest(payload[8:], due[: self.suite.code_bytes]):
            raise PermissionError
        return 0

    def channel(self) -> SecureChannel:
        """What protects the packets of the session that is open now."""
        key = self._session_key()
        k1, k2 = (mac(self.suite, key, bytes((number,)) * 20) for number in (1, 2))
        return SecureChannel(self.suite, self.console, self.bmc, k1, k2[:_BLOCK])

    def _check_head(self, payload: bytes, tag: int) -> None:
        if len(payload) < 8 or payload[0] != tag:
            raise BadPacket("no answer to the RAKP message")
        if not payload[1] and struct.unpack_from("<I", payload, 4)[0] != self.console:
            raise BadPacket("an answer to another session")

    def _session_key(self) -> bytes:
        return mac(self.suite, self.bmc_key or self.password, self.random, self.bmc_random, self._name)


class SecureChannel:
    """Encrypts and signs the packets of one open session, and takes those of the other end."""

    def __init__(self, suite: Suite, console: int, bmc: int, k1: bytes, aes_key: bytes) -> None:
        self._suite = suite
        self._console = console
        self._bmc = bmc
        self._k1 = k1
        self._aes = algorithms.AES(aes_key)
        self._sent = 0
        self._newest = 0

    def seal(self, message: bytes) -> bytes:
        """A packet with this IPMI message."""
        self._sent += 1
        initial = os.urandom(_BLOCK)
        pad = -(len(message) + 1) % _BLOCK
        encryptor = Cipher(self._aes, modes.CBC(initial)).encryptor()
        payload = initial + encryptor.update(message + bytes(range(1, pad + 1)) + bytes((pad,)))
        kind = IPMI | _ENCRYPTED | _AUTHENTICATED
        packet = _HEADER.pack(_RMCP, _RMCP_PLUS, kind, self._bmc, self._sent, len(payload)) + payload
        fill = -(len(packet) - 4 + 2) % 4
        packet += b"\xff" * fill + bytes((fill, _NEXT_HEADER))
        return packet + mac(self._suite, self._k1, packet[4:])[: self._suite.code_bytes]

    def open(self, packet: bytes) -> bytes:
        """The IPMI message in a packet.

        Raises:
            BadPacket: its authentication code is wrong, it is of another session, or it came before.
        """
        size = self._suite.code_bytes
        if len(packet) < _HEADER.size + size + 2:
            raise BadPacket("too short")
        due = mac(self._suite, self._k1, packet[4:-size])[:size]
        if packet[:4] != _RMCP or not hmac.compare_digest(packet[-size:], due):
            raise BadPacket("its authentication code is wrong")
        _, kind, payload_kind, session, number, length = _HEADER.unpack_from(packet)
        if (kind, payload_kind, session) != (_RMCP_PLUS, IPMI | _ENCRYPTED | _AUTHENTICATED, self._console):
            raise BadPacket("no message of this session")
        if number <= self._newest:
            raise BadPacket("it came before")
        payload = packet[_HEADER.size : _HEADER.size + length]
        if len(payload) != length or length < 2 * _BLOCK or length % _BLOCK:
            raise BadPacket("its length is wrong")
        decryptor = Cipher(self._aes, modes.CBC(payload[:_BLOCK])).decryptor()
        plain = decryptor.update(payload[_BLOCK:])
        pad = plain[-1]
        if pad >= _BLOCK or plain[-1 - pad : -1] != bytes(range(1, pad + 1)):
            raise BadPacket("its padding is wrong")
        self._newest = number
        return plain[: -1 - pad]


def plain_packet(kind: int, payload: bytes) -> bytes:
    """A packet of a session that is not open yet."""
    return _HEADER.pack(_RMCP, _RMCP_PLUS, kind, 0, 0, len(payload)) + payload


def parse_plain(packet: bytes) -> tuple[int, bytes]:
    """Kind and payload of a packet of a session that is not open yet.

    Raises:
        BadPacket: it is no such packet.
    """
    if len(packet) < _HEADER.size:
        raise BadPacket("too short")
    rmcp, authentication, kind, session, _, length = _HEADER.unpack_from(packet)
    if rmcp != _RMCP or authentication != _RMCP_PLUS or session or len(packet) != _HEADER.size + length:
        raise BadPacket("no packet of RMCP+ outside of a session")
    return kind, packet[_HEADER.size :]


def request(netfn: int, command: int, data: bytes, number: int) -> bytes:
    """An IPMI message to the BMC; `number` is from 0 to 63."""
    head = bytes((_BMC, netfn << 2))
    body = bytes((_CONSOLE, number << 2, command)) + data
    return head + _checksum(head) + body + _checksum(body)


def parse_response(message: bytes, netfn: int, command: int, number: int) -> bytes:
    """From the completion code on.

    Raises:
        BadPacket: it is damaged, or the answer to another request.
    """
    if len(message) < 8 or sum(message[:3]) & 0xFF or sum(message[3:]) & 0xFF:
        raise BadPacket("a checksum is wrong")
    if message[:2] != bytes((_CONSOLE, (netfn | 1) << 2)) or message[3:6] != bytes((_BMC, number << 2, command)):
        raise BadPacket("the answer to another request")
    return message[6:-1]


def _checksum(part: bytes) -> bytes:
    return bytes((-sum(part) & 0xFF,))
