"""SNMP v3's User-based Security Model: RFC 3412, 3414, 3826 and 7860. Bytes in, bytes out.

An answer counts only if it was authenticated and encrypted, is of this engine and user, answers this request, and is
not more than 150 s old.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from drivers.snmp import pdu
from drivers.snmp.ber import (
    OCTETS,
    SEQUENCE,
    decode_oid,
    encode,
    encode_integer,
    expect,
    expect_integer,
    expect_octets,
)
from drivers.snmp.pdu import Answer
from drivers.snmp.security import ClockSet, Reported
from drivers.udp import BadPacket

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:  # before version 47
    from cryptography.hazmat.primitives.ciphers.modes import CFB

_V3 = 3
_USER_SECURITY_MODEL = 3
_AUTHENTICATED, _ENCRYPTED, _REPORTABLE = 1, 2, 4
_LARGEST = 65507  # bytes of an answer that we take
_SALT_BYTES = 8
_LATE_S = 150
_LAST_BOOT = 2**31 - 1
_PASSWORD_BYTES = 1 << 20  # that a password is repeated to, RFC 3414 A.2
_COUNTERS = (1, 3, 6, 1, 6, 3, 15, 1, 1)
_NOT_IN_TIME = "NotInTimeWindow"
_REPORTS = {
    1: "UnsupportedSecLevel",
    2: _NOT_IN_TIME,
    3: "UnknownUserName",
    4: "UnknownEngineID",
    5: "WrongDigest",
    6: "DecryptionError",
}


class Authentication(NamedTuple):
    """How messages are authenticated."""

    digest: str
    code_bytes: int


AUTHENTICATIONS = {
    "SHA": Authentication("sha1", 12),
    "SHA224": Authentication("sha224", 16),
    "SHA256": Authentication("sha256", 24),
    "SHA384": Authentication("sha384", 32),
    "SHA512": Authentication("sha512", 48),
}
ENCRYPTION_KEY_BYTES = {"AES128": 16, "AES192": 24, "AES256": 32}


class UserSecurity:
    """SNMP v3 as one user, with one agent."""

    def __init__(
        self,
        user: str,
        authentication: Authentication,
        auth_password: bytes,
        key_bytes: int,
        privacy_password: bytes,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`key_bytes` is the length of the AES key."""
        self._user = user.encode()
        self._authentication = authentication
        self._auth_password, self._privacy_password = auth_password, privacy_password
        self._key_bytes = key_bytes
        self._clock_s = clock_s
        self._engine = b""
        self._auth_key = self.aes_key = b""
        self.set_clock(0, 0)
        self._salt = int.from_bytes(os.urandom(_SALT_BYTES), "big")

    def discovery(self, number: int) -> bytes:
        """A packet that has any agent say its engine's identity."""
        parameters = make_parameters(b"", 0, 0, b"", b"", b"")
        return make_message(number, _REPORTABLE, parameters, make_scoped(b"", pdu.get(number, ())))

    def take_discovery(self, packet: bytes, number: int) -> None:
        """Know the agent by its answer; keys are made for it.

        Raises:
            BadPacket: it is no such answer.
        """
        parts = take_apart(packet)
        if parts.number != number or parts.flags & (_AUTHENTICATED | _ENCRYPTED) or not 5 <= len(parts.engine) <= 32:
            raise BadPacket("no answer to the discovery")
        if _scoped_answer(packet[parts.data_begin : parts.data_end]).kind != pdu.REPORT:
            raise BadPacket("no report")
        self._engine = parts.engine
        digest = self._authentication.digest
        self._auth_key = localized_key(self._auth_password, self._engine, digest)
        self.aes_key = encryption_key(self._privacy_password, self._engine, digest, self._key_bytes)
        self.set_clock(0, 0)

    def set_clock(self, boots: int, time_s: int) -> None:
        """The agent was started so many times, and so long ago."""
        self._boots, self._time_s, self._told_s = boots, time_s, self._clock_s()

    def seal(self, request: bytes, number: int) -> bytes:
        """See `Security`; a discovery came before."""
        now_s = self._agent_time_s()
        self._salt = (self._salt + 1) % (1 << 8 * _SALT_BYTES)
        salt = self._salt.to_bytes(_SALT_BYTES, "big")
        encryptor = aes_cfb(self.aes_key, self._boots, now_s, salt).encryptor()
        data = encode(OCTETS, encryptor.update(make_scoped(self._engine, request)))
        size = self._authentication.code_bytes
        parameters = make_parameters(self._engine, self._boots, now_s, self._user, bytes(size), salt)
        packet = make_message(number, _AUTHENTICATED | _ENCRYPTED | _REPORTABLE, parameters, data)
        place = len(packet) - len(data) - (2 + _SALT_BYTES) - size
        return packet[:place] + self._code(packet) + packet[place + size :]

    def open(self, packet: bytes, number: int) -> Answer:
        """See `Security`."""
        parts = take_apart(packet)
        if parts.number != number:
            raise BadPacket("the answer to another request")
        authentic = bool(parts.flags & _AUTHENTICATED)
        if authentic:
            self._authenticate(packet, parts)
        data = packet[parts.data_begin : parts.data_end]
        if parts.flags & _ENCRYPTED:
            if not authentic or len(parts.salt) != _SALT_BYTES:
                raise BadPacket("encrypted, and not authenticated")
            data = aes_cfb(self.aes_key, parts.boots, parts.time_s, parts.salt).decryptor().update(data)
        answer = _scoped_answer(data)
        if answer.kind == pdu.REPORT:
            name = _report_name(answer)
            raise ClockSet if authentic and name == _NOT_IN_TIME else Reported(name)
        if not authentic or not parts.flags & _ENCRYPTED or answer.number != number:
            raise BadPacket("an answer that anyone may have made, or to another request")
        return answer

    def _agent_time_s(self) -> int:
        return self._time_s + int(self._clock_s() - self._told_s)

    def _code(self, packet: bytes) -> bytes:
        return hmac.digest(self._auth_key, packet, self._authentication.digest)[: self._authentication.code_bytes]

    def _authenticate(self, packet: bytes, parts: Parts) -> None:
        """Raises BadPacket. The agent's clock is known afterwards."""
        if parts.engine != self._engine or parts.user != self._user:
            raise BadPacket("another engine or user")
        if parts.code_end - parts.code_begin != self._authentication.code_bytes:
            raise BadPacket("its authentication code has another length")
        blank = packet[: parts.code_begin] + bytes(self._authentication.code_bytes) + packet[parts.code_end :]
        if not hmac.compare_digest(packet[parts.code_begin : parts.code_end], self._code(blank)):
            raise BadPacket("its authentication code is wrong")
        if (parts.boots, parts.time_s) > (self._boots, self._time_s):
            self.set_clock(parts.boots, parts.time_s)
        elif parts.boots < self._boots or parts.boots >= _LAST_BOOT or parts.time_s < self._agent_time_s() - _LATE_S:
            raise BadPacket("it is too old")


class Parts(NamedTuple):
    """A message of v3, taken apart."""

    number: int
    flags: int
    engine: bytes
    boots: int
    time_s: int
    user: bytes
    code_begin: int  # places in the packet
    code_end: int
    salt: bytes
    data_begin: int  # of the encrypted bytes, or of the whole scoped PDU
    data_end: int


def take_apart(packet: bytes) -> Parts:
    """Raises BadPacket."""
    at, end = expect(packet, 0, len(packet), SEQUENCE)
    version, at = expect_integer(packet, at, end)
    if version != _V3 or end != len(packet):
        raise BadPacket("no message of SNMP v3")
    at, stop = expect(packet, at, end, SEQUENCE)
    number, at = expect_integer(packet, at, stop)
    _, at = expect_integer(packet, at, stop)
    flags, at = expect_octets(packet, at, stop)
    model, at = expect_integer(packet, at, stop)
    if at != stop or len(flags) != 1 or model != _USER_SECURITY_MODEL:
        raise BadPacket("another security model")
    begin, after = expect(packet, at, end, OCTETS)
    at, stop = expect(packet, begin, after, SEQUENCE)
    engine, at = expect_octets(packet, at, stop)
    boots, at = expect_integer(packet, at, stop)
    time_s, at = expect_integer(packet, at, stop)
    user, at = expect_octets(packet, at, stop)
    code_begin, code_end = expect(packet, at, stop, OCTETS)
    salt, at = expect_octets(packet, code_end, stop)
    if at != stop or stop != after or boots < 0 or time_s < 0:
        raise BadPacket("its security parameters are damaged")
    encrypted = flags[0] & _ENCRYPTED
    data_begin, data_end = expect(packet, after, end, OCTETS if encrypted else SEQUENCE)
    if data_end != end:
        raise BadPacket("something follows the data")
    return Parts(
        number, flags[0], engine, boots, time_s, user, code_begin, code_end, salt,
        data_begin if encrypted else after, data_end,
    )  # fmt: skip


def make_message(number: int, flags: int, parameters: bytes, data: bytes) -> bytes:
    head = encode_integer(number) + encode_integer(_LARGEST) + encode(OCTETS, bytes((flags,)))
    head = encode(SEQUENCE, head + encode_integer(_USER_SECURITY_MODEL))
    return encode(SEQUENCE, encode_integer(_V3) + head + encode(OCTETS, parameters) + data)


def make_parameters(engine: bytes, boots: int, time_s: int, user: bytes, code: bytes, salt: bytes) -> bytes:
    clock = encode_integer(boots) + encode_integer(time_s)
    who = encode(OCTETS, user) + encode(OCTETS, code) + encode(OCTETS, salt)
    return encode(SEQUENCE, encode(OCTETS, engine) + clock + who)


def make_scoped(engine: bytes, request: bytes) -> bytes:
    return encode(SEQUENCE, encode(OCTETS, engine) + encode(OCTETS, b"") + request)


def _scoped_answer(data: bytes) -> Answer:
    """Raises BadPacket."""
    at, end = expect(data, 0, len(data), SEQUENCE)
    _, at = expect_octets(data, at, end)
    _, at = expect_octets(data, at, end)
    if end != len(data):
        raise BadPacket("something follows the scoped PDU")
    return pdu.parse_answer(data, at, end)


def _report_name(answer: Answer) -> str:
    oid = decode_oid(answer.values[0][0]) if answer.values else ()
    return _REPORTS.get(oid[-2], "another report") if oid[:-2] == _COUNTERS else "another report"


def localized_key(password: bytes, engine: bytes, digest: str) -> bytes:
    """A user's key for one agent, RFC 3414 A.2."""
    key = _master_key(password, digest)
    return hashlib.new(digest, key + engine + key).digest()


def encryption_key(password: bytes, engine: bytes, digest: str, size: int) -> bytes:
    """A user's AES key for one agent; where a digest is too short for it, lengthened as draft-reeder-snmpv3-usm has it.

    RFC 3826 defines AES128 alone; for the others that draft is what most makers follow.
    """
    key = localized_key(password, engine, digest)
    while len(key) < size:
        key += localized_key(key, engine, digest)
    return key[:size]


def aes_cfb(key: bytes, boots: int, time_s: int, salt: bytes) -> Cipher[CFB]:
    """RFC 3826, 3.1.2.1."""
    return Cipher(algorithms.AES(key), CFB(boots.to_bytes(4, "big") + time_s.to_bytes(4, "big") + salt))


@lru_cache(maxsize=64)  # a rack of PDUs has one password, and each takes milliseconds
def _master_key(password: bytes, digest: str) -> bytes:
    return hashlib.new(digest, (password * (_PASSWORD_BYTES // len(password) + 1))[:_PASSWORD_BYTES]).digest()
