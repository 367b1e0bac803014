"""Peers that send what they must not: noise, broken ZMTP, messages of wrong types, changed ones, and old ones again."""

from __future__ import annotations

import random
import socket
import struct
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import zmq
from made_spool import made_rows, made_stream

from power_agent.wire.frames import MAX_CLOCK_FRAME_BYTES, encode
from power_agent.wire.messages import (
    Ack,
    BatchFrame,
    BulkRefused,
    ClockAnswer,
    ClockAsk,
    ClockExchange,
    Credit,
    FileChunk,
    HandOver,
    Heartbeat,
    Hello,
    Refused,
    SamplingState,
    SessionAnswer,
    SessionRequest,
    StartSampling,
    StopSampling,
    StreamsDeclared,
    TablesUpdate,
    Welcome,
    WorkloadEvent,
)
from power_agent.wire.sockets import Address

_STREAM = made_stream()
_ROWS = made_rows(_STREAM, 0, 5)
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)  # ZMTP 3.0, RFC 23
_READY = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
_PEER_FRAMES = 300  # of one connection: it is muted before


def agents_messages(host: str, session: str) -> list[bytes]:
    """One of each kind that an agent sends."""
    of = {"session": session, "host": host}
    exchange = ClockExchange(t1_ns=1, t2_ns=2, t3_ns=3, t4_ns=4)
    messages = [
        Hello(host=host, agent="x", boot_id="x", tool_version="1", recording=[session], unsent=[session]),
        Heartbeat(t_ns=1, recording=[session], problems=["a problem"]),
        SamplingState(session=session, stage="testing", state="sampling", t_ns=1),
        WorkloadEvent(session=session, event="ended", t_ns=1, exit_code=1),
        SessionRequest(request="r", want="state", session=session),
        StreamsDeclared(**of, streams=[_STREAM], meta={"host": host, "started_ns": "1"}),
        BatchFrame(**of, seq=1, previous=0, stream=0, rows=5, crc32=zlib.crc32(_ROWS), payload=_ROWS),
        TablesUpdate(**of, number=1),
        FileChunk(**of, path="marks/1.marks", offset=0, content=b"abc"),
        HandOver(**of, last_seq=1, tables=1, files={"marks/1.marks": 3}),
        ClockAsk(host=host, number=1, t1_ns=1, last=exchange),
    ]
    return [encode(message) for message in messages]


def directors_messages(session: str) -> list[bytes]:
    """One of each kind that a director sends, but for what it may well tell an agent to do."""
    messages = [
        Welcome(director="d", boot_id="b"),
        Refused(reason="not today"),
        Heartbeat(t_ns=1),
        StopSampling(session=session),
        SessionAnswer(request="r", state="complete", session=session, report="x"),
        Ack(session=session, seq=2**62, whole=True, files={"marks/1.marks": 2**62}),
        Credit(bytes=1 << 20),
        BulkRefused(session=session, reason="no"),
        ClockAnswer(number=1, t1_ns=1, t2_ns=2, t3_ns=3),
    ]
    return [encode(message) for message in messages if not isinstance(message, StartSampling)]


def hostile_frame(chance: random.Random, good: Sequence[bytes]) -> list[bytes]:
    """The parts of one message."""
    kind = chance.random()
    frame = bytearray(chance.choice(good))
    if kind < 0.4:  # changed in some bytes
        for _ in range(chance.randint(1, 4)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
    elif kind < 0.6:  # all fields of a wrong type
        fields = msgspec.msgpack.decode(frame)
        for name in fields:
            if name != "type" and chance.random() < 0.5:
                fields[name] = chance.choice(_WRONG)
        frame = bytearray(msgspec.msgpack.encode(fields))
    elif kind < 0.75:  # cut, or longer than it says
        frame = frame[: chance.randrange(len(frame))] + chance.randbytes(chance.randint(0, 20))
    elif kind < 0.85:
        frame = bytearray(chance.randbytes(chance.randint(0, 200)))
    elif kind < 0.9:
        return [chance.randbytes(chance.randint(0, 50)) for _ in range(chance.randint(2, 5))]
    return [bytes(frame)]  # else an old one again


_WRONG: list[Any] = [
    *(None, True, -1, 2**63, -(2**63), 1e308, float("nan"), "", "x" * 5000, "../../etc/passwd", b"", b"\0" * 5000),
    *([], [[]], {}, {"type": "Hello"}, {"a": {"b": {"c": []}}}, list(range(2000)), "a\0b", "\ud7ff"),
]


def attack_director(address: Address, count: int, seed: int) -> None:
    """Send `count` hostile messages to the three ports of a director, from one connection after the other."""
    chance = random.Random(seed)
    good = agents_messages("evil", "none")
    context: zmq.Context[Any] = zmq.Context()
    try:
        for first in range(0, count, _PEER_FRAMES):
            sockets = [context.socket(zmq.DEALER) for _ in range(3)]
            for offset, one in enumerate(sockets):
                one.linger, one.sndtimeo, one.rcvhwm = 2000, 20_000, 10_000
                one.connect(address.endpoint(offset))
            for _ in range(min(_PEER_FRAMES, count - first)):
                chance.choice(sockets).send_multipart(hostile_frame(chance, good))
            for one in sockets:
                one.close()
            broken_connection(address, chance)
    finally:
        context.destroy(linger=2000)


def broken_connection(address: Address, chance: random.Random) -> None:
    """Noise where a connection should begin, after its greeting, and after its handshake."""
    command = b"\x04" + bytes([len(_READY)]) + _READY
    begin = chance.choice((b"", _GREETING, _GREETING[: chance.randrange(64)], _GREETING + command))
    with suppress(OSError), socket.create_connection((address.host, address.port + chance.randrange(3))) as raw:
        raw.sendall(begin + chance.randbytes(chance.randint(0, 2000)))


def attack_agent(address: Address, count: int, seed: int, session: str) -> None:
    """Be a director at this address that sends `count` hostile messages to the agent that comes."""
    chance = random.Random(seed)
    good = directors_messages(session)
    context: zmq.Context[Any] = zmq.Context()
    sockets = [context.socket(zmq.ROUTER) for _ in range(3)]
    try:
        for offset, one in enumerate(sockets):
            one.router_mandatory, one.rcvtimeo, one.linger = 1, 20_000, 2000
            one.bind(address.endpoint(offset))
        routes = [one.recv_multipart()[0] for one in sockets]
        sockets[0].send_multipart([routes[0], good[0]])
        sent, end_s = 0, time.monotonic() + 300
        while sent < count and time.monotonic() < end_s:
            at = chance.randrange(3)
            parts = hostile_frame(chance, good)
            if at == 2 and max(map(len, parts)) > MAX_CLOCK_FRAME_BYTES:
                continue  # that would end the connection, until the agent makes another one after 15 s
            if len(parts) > 1 and chance.random() < 0.999:
                continue  # the agent makes another connection after each
            try:
                sockets[at].send_multipart([routes[at], *parts], zmq.DONTWAIT)
                sent += 1
            except zmq.Again:  # the clocks' one is looked at every few seconds alone
                continue
            except zmq.ZMQError:  # the connection is another one by now
                routes[at] = sockets[at].recv_multipart()[0]
            for number, one in enumerate(sockets):
                while one.poll(0):
                    routes[number] = one.recv_multipart()[0]
        assert sent == count, sent
        # The length of a beat that it has learnt decides when it looks for another director.
        sockets[0].send_multipart([routes[0], good[0]])
    finally:
        context.destroy(linger=2000)
