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
    """What one PDU shows. Values of power are made anew each second."""

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

    def respond(self, kind: int, number: int, repeated: int, names: list[bytes]) -> bytes:
        self.values[self.power] = encode_integer(round(self.sensor.shown(time.monotonic()) / 10))
        if max(len(names), repeated) > self.room:
            return response(RESPONSE, number, [], status=1)
        if kind == GET_BULK:
            first = bisect_right(self.order, decode_oid(names[0]))
            names = [encode_oid(oid) for oid in self.order[first : first + repeated]] or names
            bound = [(name, self.values[name] if first < len(self.order) else END_OF_VIEW) for name in names]
        else:
            bound = [(name, self.values.get(name, NO_INSTANCE)) for name in names]
        return response(RESPONSE, number, bound)


def response(kind: int, number: int, bound: list[tuple[bytes, bytes]], status: int = 0) -> bytes:
    objects = b"".join(encode(SEQUENCE, encode(OBJECT, name) + value) for name, value in bound)
    return encode(kind, encode_integer(number) + encode_integer(status) + encode_integer(0) + encode(SEQUENCE, objects))


def parse_request(data: bytes, at: int, end: int) -> tuple[int, int, int, list[bytes]]:
    """Kind, number, how many are wanted in bulk, and names."""
    kind = data[at]
    at, end = expect(data, at, end, kind)
    number, at = expect_integer(data, at, end)
    _, at = expect_integer(data, at, end)
    repeated, at = expect_integer(data, at, end)
    at, end = expect(data, at, end, SEQUENCE)
    names = []
    while at < end:
        begin, at = expect(data, at, end, SEQUENCE)
        name, name_end = expect(data, begin, at, OBJECT)
        names.append(data[name:name_end])
    return kind, number, repeated, names


class Pdu(asyncio.DatagramProtocol):
    """One PDU on a port of its own."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.security = UserSecurity("monitor", AUTHENTICATIONS["SHA256"], b"auth-secret", 16, b"privacy-secret")
        self.security.take_discovery(self.report(0, 4), 0)

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
            asked = parse_request(packet, at + len(COMMUNITY_HEAD), end)
            return encode(SEQUENCE, COMMUNITY_HEAD + self.objects.respond(*asked))
        parts = take_apart(packet)
        if parts.engine != ENGINE:
            return self.report(parts.number, 4)
        if parts.boots != BOOTS:
            self.security.set_clock(BOOTS, int(time.monotonic()))
            counter = encode_oid((1, 3, 6, 1, 6, 3, 15, 1, 1, 2, 0))
            return self.security.seal(response(REPORT, parts.number, [(counter, encode(0x41, b"\1"))]), parts.number)
        data = packet[parts.data_begin : parts.data_end]
        data = aes_cfb(self.security.aes_key, parts.boots, parts.time_s, parts.salt).decryptor().update(data)
        at, end = expect(data, 0, len(data), SEQUENCE)
        _, at = expect_octets(data, at, end)
        _, at = expect_octets(data, at, end)
        return self.security.seal(self.objects.respond(*parse_request(data, at, end)), parts.number)

    def report(self, number: int, counter: int) -> bytes:
        name = encode_oid((1, 3, 6, 1, 6, 3, 15, 1, 1, counter, 0))
        said = response(REPORT, number, [(name, encode(0x41, b"\1"))])
        return make_message(number, 0, make_parameters(ENGINE, 0, 0, b"", b"", b""), make_scoped(ENGINE, said))


async def serve(count: int, first_port: int, told: dict[str, str]) -> None:
    loop = asyncio.get_running_loop()
    for port in range(first_port, first_port + count):
        objects = Objects(int(told.get("outlets", "24")), int(told.get("room", "64")))
        await loop.create_datagram_endpoint(lambda made=objects: Pdu(made), local_addr=("127.0.0.1", port))  # type: ignore[misc]
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), dict(part.split("=", 1) for part in sys.argv[3:])))
