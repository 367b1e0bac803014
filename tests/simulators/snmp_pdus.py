"""Many APC PDUs that answer SNMP in one cheap process: `python snmp_pdus.py COUNT FIRST_PORT [KEY=VALUE …]`.

outlets=N: metered outlets; room=N: more objects than that are too many for an answer. Community public, or the user
monitor of SNMP v3 (SHA256, AES128). They are there to load a poller, and made of the driver's own messages and keys:
whether those are right, tests with snmpsim and pysnmp tell. The device shows `MeteredPower`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from bisect import bisect_right

import snmp_agents
from metered_power import MeteredPower

from drivers.snmp.ber import (
    OBJECT,
    OCTETS,
    SEQUENCE,
    Oid,
    decode_oid,
    encode,
    encode_integer,
    encode_oid,
    expect,
    expect_integer,
    expect_octets,
)
from drivers.snmp.pdu import GET_BULK, REPORT, RESPONSE
from drivers.snmp.user_security import (
    AUTHENTICATIONS,
    UserSecurity,
    aes_cfb,
    make_message,
    make_parameters,
    make_scoped,
    take_apart,
)
from drivers.udp import BadPacket

ENGINE = bytes.fromhex("8000013e03001122334455")
BOOTS = 3
COMMUNITY_HEAD = encode_integer(1) + encode(OCTETS, b"public")
END_OF_VIEW = bytes((0x82, 0))
NO_INSTANCE = bytes((0x81, 0))


class Objects:
    """What all of these PDUs show. Values of power are made anew each second; what was asked before is said again."""

    def __init__(self, outlets: int, room: int) -> None:
        self.room = room
        self.values: dict[bytes, bytes] = {}
        for line in snmp_agents.apc(outlets=outlets).splitlines():
            oid, kind, value = line.split("|")
            name = encode_oid(tuple(map(int, oid.split("."))))
            self.values[name] = (
                encode(OCTETS, value.encode()) if kind == snmp_agents.TEXT else encode_integer(int(value))
            )
        self.order: list[Oid] = sorted(map(decode_oid, self.values))
        self.power = encode_oid((1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 4, 3, 1, 5, 1))
        self.sensor = MeteredPower(base=2000.0)
        self.second = 0
        self.said: dict[bytes, bytes] = {}  # this second, by what stands behind the number of a request

    def respond(self, request: bytes) -> bytes:
        kind = request[0]
        begin, end = expect(request, 0, len(request), kind)
        number, rest = expect_integer(request, begin, end)
        now = time.monotonic()
        if int(now) != self.second:
            self.second = int(now)
            self.said.clear()
            self.values[self.power] = encode_integer(round(self.sensor.shown(now) / 10))
        key = request[:1] + request[rest:]
        if key not in self.said:
            self.said[key] = self.answer(kind, request, rest, end)
        return encode(RESPONSE, encode_integer(number) + self.said[key])

    def answer(self, kind: int, request: bytes, at: int, end: int) -> bytes:
        """What stands behind the number."""
        _, at = expect_integer(request, at, end)
        repeated, at = expect_integer(request, at, end)
        at, end = expect(request, at, end, SEQUENCE)
        names = []
        while at < end:
            begin, at = expect(request, at, end, SEQUENCE)
            name, name_end = expect(request, begin, at, OBJECT)
            names.append(request[name:name_end])
        if max(len(names), repeated) > self.room:
            return said([], status=1)
        if kind == GET_BULK:
            first = bisect_right(self.order, decode_oid(names[0]))
            names = [encode_oid(oid) for oid in self.order[first : first + repeated]] or names
            return said([(name, self.values[name] if first < len(self.order) else END_OF_VIEW) for name in names])
        return said([(name, self.values.get(name, NO_INSTANCE)) for name in names])


def said(bound: list[tuple[bytes, bytes]], status: int = 0) -> bytes:
    """An answer behind its number."""
    objects = b"".join(encode(SEQUENCE, encode(OBJECT, name) + value) for name, value in bound)
    return encode_integer(status) + encode_integer(0) + encode(SEQUENCE, objects)


def report(number: int, counter: int) -> bytes:
    """A REPORT of one of USM's counters."""
    name = encode_oid((1, 3, 6, 1, 6, 3, 15, 1, 1, counter, 0))
    return encode(REPORT, encode_integer(number) + said([(name, encode(0x41, b"\1"))]))


class Pdu(asyncio.DatagramProtocol):
    """One PDU on a port of its own."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.security = UserSecurity("monitor", AUTHENTICATIONS["SHA256"], b"auth-secret", 16, b"privacy-secret")
        self.security.take_discovery(self.unknown_engine(0), 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, packet: bytes, addr: tuple[str, int]) -> None:
        try:
            answer = self.answer(packet)
        except BadPacket:
            return
        self.transport.sendto(answer, addr)  # type: ignore[attr-defined]  # a datagram transport

    def answer(self, packet: bytes) -> bytes:
        at, end = expect(packet, 0, len(packet), SEQUENCE)
        if packet.startswith(COMMUNITY_HEAD, at):
            return encode(SEQUENCE, COMMUNITY_HEAD + self.objects.respond(packet[at + len(COMMUNITY_HEAD) : end]))
        parts = take_apart(packet)
        if parts.engine != ENGINE:
            return self.unknown_engine(parts.number)
        if parts.boots != BOOTS:
            self.security.set_clock(BOOTS, int(time.monotonic()))
            return self.security.seal(report(parts.number, 2), parts.number)
        data = packet[parts.data_begin : parts.data_end]
        data = aes_cfb(self.security.aes_key, parts.boots, parts.time_s, parts.salt).decryptor().update(data)
        at, end = expect(data, 0, len(data), SEQUENCE)
        _, at = expect_octets(data, at, end)
        _, at = expect_octets(data, at, end)
        return self.security.seal(self.objects.respond(data[at:end]), parts.number)

    def unknown_engine(self, number: int) -> bytes:
        parameters = make_parameters(ENGINE, 0, 0, b"", b"", b"")
        return make_message(number, 0, parameters, make_scoped(ENGINE, report(number, 4)))


async def serve(count: int, first_port: int, told: dict[str, str]) -> None:
    loop = asyncio.get_running_loop()
    objects = Objects(int(told.get("outlets", "24")), int(told.get("room", "64")))
    for port in range(first_port, first_port + count):
        await loop.create_datagram_endpoint(lambda: Pdu(objects), local_addr=("127.0.0.1", port))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), dict(part.split("=", 1) for part in sys.argv[3:])))
