"""Many BMCs that answer DCMI over RMCP+ in one cheap process: `python lan_bmcs.py COUNT FIRST_PORT [KEY=VALUE …]`.

Written from the IPMI 2.0 specification apart from the driver's own code; ipmitool is its judge in the tests. Cipher
suites 3 and 17. The sensor is `MeteredPower` with its fields as options. Others: user, password, suites=3,17; role=N:
the lowest that may read power, else 0xD4; room=N sessions; loss=F: this share of all packets is lost; twice=1: each
answer comes twice; noise=1: in a session, each comes after a damaged copy and a packet of noise.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import random
import struct
import sys
import time
from dataclasses import dataclass, fields

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from metered_power import MeteredPower

START_STAMP = 1_700_000_000
ALGORITHMS = {3: (1, 1, hashlib.sha1, 12), 17: (3, 4, hashlib.sha256, 16)}
GUID = bytes(range(16))


@dataclass
class Session:
    """What one client has agreed with us."""

    suite: int
    theirs: bytes
    ours: bytes
    role: int
    rm: bytes = b""
    rc: bytes = b""
    name: bytes = b""
    open: bool = False
    k1: bytes = b""
    k2: bytes = b""
    sent: int = 0


class LanBmc(asyncio.DatagramProtocol):
    """One BMC on a port of its own."""

    def __init__(self, told: dict[str, str]) -> None:
        self.told = told
        self.user = told.get("user", "monitor").encode()
        self.password = told.get("password", "secret").encode()
        self.suites = [int(number) for number in told.get("suites", "3,17").split(",")]
        self.sensor = MeteredPower(**{f.name: float(told[f.name]) for f in fields(MeteredPower) if f.name in told})
        self.random = random.Random(1)
        self.loss = float(told.get("loss", "0"))
        self.sessions: dict[bytes, Session] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, packet: bytes, addr: tuple[str, int]) -> None:
        if packet[:5] == b"\x06\x00\xff\x07\x00" and len(packet) == 23 and packet[19] == 0x38:
            self.send(self.capabilities(packet[14:]), addr)
        if packet[:5] != b"\x06\x00\xff\x07\x06":
            return
        if self.loss and self.random.random() < self.loss:
            return
        kind, sid, _, length = struct.unpack_from("<B4sIH", packet, 5)
        payload = packet[16 : 16 + length]
        if kind & 0x3F == 0:
            answer = self.message(sid, packet, payload)
        else:
            handler = {0x10: self.opened, 0x12: self.rakp1, 0x14: self.rakp3}.get(kind)
            made = handler(payload) if handler else None
            answer = made and b"\x06\x00\xff\x07\x06" + struct.pack("<BIIH", kind + 1, 0, 0, len(made)) + made
        if not answer or (self.loss and self.random.random() < self.loss):
            return
        if "noise" in self.told and kind & 0x3F == 0:
            place = self.random.randrange(4, len(answer))
            self.send(
                answer[:place] + bytes((answer[place] ^ 1 << self.random.randrange(8),)) + answer[place + 1 :], addr
            )
            self.send(self.random.randbytes(len(answer)), addr)
        for _ in range(2 if "twice" in self.told else 1):
            self.send(answer, addr)

    def send(self, packet: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(packet, addr)  # type: ignore[attr-defined]  # a datagram transport

    def code(self, suite: int, key: bytes, *parts: bytes) -> bytes:
        return hmac.digest(key, b"".join(parts), ALGORITHMS[suite][2])

    def capabilities(self, message: bytes) -> bytes:
        """Get Channel Authentication Capabilities, asked for outside of a session: IPMI 2.0 only, users have names."""
        head, body = bytes((0x81, 0x1C)), bytes((0x20, message[4], 0x38, 0, 1, 0x80, 0x04, 0x02, 0, 0, 0, 0))
        made = head + bytes((-sum(head) & 255,)) + body + bytes((-sum(body) & 255,))
        return b"\x06\x00\xff\x07" + bytes(9) + bytes((len(made),)) + made

    def opened(self, payload: bytes) -> bytes:
        tag, role, theirs = payload[0], payload[1], payload[4:8]
        asked = (payload[12], payload[20], payload[28])
        suite = next((n for n in self.suites if asked == (*ALGORITHMS[n][:2], 1)), None)
        if suite is None:
            return bytes((tag, 0x11, 0, 0)) + theirs
        if len(self.sessions) >= int(self.told.get("room", "1000")):
            return bytes((tag, 0x01, 0, 0)) + theirs
        ours = os.urandom(4)
        self.sessions[ours] = Session(suite, theirs, ours, role)
        chosen = b"".join(struct.pack("<BBBBBxxx", n, 0, 0, 8, asked[n]) for n in range(3))
        return bytes((tag, 0, role, 0)) + theirs + ours + chosen

    def rakp1(self, payload: bytes) -> bytes | None:
        tag, ours, rm, role, size = payload[0], payload[4:8], payload[8:24], payload[24], payload[27]
        session = self.sessions.get(ours)
        if session is None:
            return None
        session.rm, session.rc = rm, os.urandom(16)
        session.name = bytes((role, size)) + payload[28 : 28 + size]
        if session.name[2:] != self.user:
            del self.sessions[ours]
            return bytes((tag, 0x0D, 0, 0)) + session.theirs
        code = self.code(session.suite, self.password, session.theirs, ours, session.rm, session.rc, GUID, session.name)
        return bytes((tag, 0, 0, 0)) + session.theirs + session.rc + GUID + code

    def rakp3(self, payload: bytes) -> bytes | None:
        session = self.sessions.get(payload[4:8])
        if session is None:
            return None
        due = self.code(session.suite, self.password, session.rc, session.theirs, session.name)
        if payload[8:] != due:
            return bytes((payload[0], 0x0F, 0, 0)) + session.theirs
        key = self.code(session.suite, self.password, session.rm, session.rc, session.name)
        session.k1, session.k2 = (self.code(session.suite, key, bytes((n,)) * 20) for n in (1, 2))
        session.open = True
        check = self.code(session.suite, key, session.rm, session.ours, GUID)
        return bytes((payload[0], 0, 0, 0)) + session.theirs + check[: ALGORITHMS[session.suite][3]]

    def message(self, sid: bytes, packet: bytes, payload: bytes) -> bytes | None:
        session = self.sessions.get(sid)
        if session is None or not session.open:
            return None
        size = ALGORITHMS[session.suite][3]
        if self.code(session.suite, session.k1, packet[4:-size])[:size] != packet[-size:]:
            return None
        plain = Cipher(algorithms.AES(session.k2[:16]), modes.CBC(payload[:16])).decryptor().update(payload[16:])
        plain = plain[: -1 - plain[-1]]
        netfn, number, command, data = plain[1] >> 2, plain[4], plain[5], plain[6:-1]
        answer = self.obey(session, netfn, command, data)
        head, body = bytes((0x81, (netfn | 1) << 2)), bytes((0x20, number, command)) + answer
        made = head + bytes((-sum(head) & 255,)) + body + bytes((-sum(body) & 255,))
        return self.sealed(session, made)

    def sealed(self, session: Session, made: bytes) -> bytes:
        session.sent += 1
        pad = -(len(made) + 1) % 16
        initial = os.urandom(16)
        cipher = Cipher(algorithms.AES(session.k2[:16]), modes.CBC(initial)).encryptor()
        payload = initial + cipher.update(made + bytes(range(1, pad + 1)) + bytes((pad,)))
        packet = b"\x06\x00\xff\x07\x06\xc0" + session.theirs + struct.pack("<IH", session.sent, len(payload)) + payload
        fill = -(len(packet) - 4 + 2) % 4
        packet += b"\xff" * fill + bytes((fill, 7))
        size = ALGORITHMS[session.suite][3]
        return packet + self.code(session.suite, session.k1, packet[4:])[:size]

    def obey(self, session: Session, netfn: int, command: int, data: bytes) -> bytes:
        if (netfn, command) == (6, 0x3B):
            return bytes((0, data[0] or session.role & 15))
        if (netfn, command) == (6, 0x3C):
            self.sessions.pop(data[:4], None)
            return b"\0"
        if (netfn, command, data) == (0x2C, 2, b"\xdc\1\0\0"):
            if session.name[0] & 15 < int(self.told.get("role", "2")):
                return b"\xd4"
            now = time.monotonic()
            watts = round(self.sensor.shown(now))
            stamp = START_STAMP + int(self.sensor.updated(now))
            return struct.pack("<BBHHHHIIB", 0, 0xDC, watts, 1, 9999, watts, stamp, 1000, 0x40)
        return b"\xc1"


async def serve(count: int, first_port: int, told: dict[str, str]) -> None:
    loop = asyncio.get_running_loop()
    for port in range(first_port, first_port + count):
        await loop.create_datagram_endpoint(lambda: LanBmc(told), local_addr=("127.0.0.1", port))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), dict(part.split("=", 1) for part in sys.argv[3:])))
