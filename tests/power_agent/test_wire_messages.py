from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_agent.wire import frames
from power_agent.wire.frames import MAX_FRAME_BYTES, BadFrame, FrameDecoder, encode
from power_agent.wire.messages import Ack, BatchFrame, FileChunk, Hello, SamplerChoices, StartSampling, Welcome

DECODERS = [
    frames.from_agent,
    frames.from_director,
    frames.bulk_from_agent,
    frames.bulk_from_director,
    frames.clock_from_agent,
    frames.clock_from_director,
]
HELLO = Hello(host="node0", agent="a", boot_id="b", tool_version="1")
BATCH = BatchFrame(session="s", host="h", seq=2**63 - 1, previous=0, stream=0, rows=1, crc32=2**32 - 1, payload=b"x")
CHUNK = FileChunk(session="s", host="h", path="marks/1.marks", offset=0, content=b"x")


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (frames.from_agent, HELLO),
        (frames.from_director, StartSampling(session="s", choices=SamplerChoices(rates_hz={"nvml.power": 20.0}))),
        (frames.bulk_from_agent, BATCH),
        (frames.bulk_from_agent, CHUNK),
        (frames.bulk_from_director, Ack(session="s", seq=3, files={"logs/a.log": 7}, whole=True)),
    ],
)
def test_a_message_comes_out_as_it_went_in(decoder: FrameDecoder[object], message: msgspec.Struct) -> None:
    assert decoder.decode(encode(message)) == message


@pytest.mark.parametrize("name", ["", "..", ".x", "a/b", "a\n", "a\0", "é", "x" * 64, "-x"])
def test_a_host_has_a_name_that_is_safe_as_a_file(name: str) -> None:
    with pytest.raises(BadFrame, match="host"):
        frames.from_agent.decode(encode(msgspec.structs.replace(HELLO, host=name)))


@pytest.mark.parametrize(
    "path",
    ["marks", "/etc/passwd", "marks/../x", "marks//x", "marks/.x", "spool/x", "logs/a\n", "marks/a/b/c/d/e", "logs/"],
)
def test_a_file_lies_below_marks_or_logs(path: str) -> None:
    with pytest.raises(BadFrame, match="path"):
        frames.bulk_from_agent.decode(encode(msgspec.structs.replace(CHUNK, path=path)))


def test_a_setting_is_a_number_and_never_a_text() -> None:
    raw = {"type": "StartSampling", "session": "s", "choices": {"settings": {"replay": {"path": "/etc/passwd"}}}}
    with pytest.raises(BadFrame, match="settings"):
        frames.from_director.decode(msgspec.msgpack.encode(raw))


def test_what_one_side_says_is_no_message_of_the_other() -> None:
    welcome = Welcome(director="d", boot_id="b")
    for decoder in (frames.from_agent, frames.bulk_from_agent, frames.clock_from_agent):
        with pytest.raises(BadFrame):
            decoder.decode(encode(welcome))


def test_a_newer_peer_may_say_more() -> None:
    raw = msgspec.to_builtins(HELLO) | {"something_new": [1, 2]}
    assert frames.from_agent.decode(msgspec.msgpack.encode(raw)) == HELLO


def test_lengths_are_bounded() -> None:
    with pytest.raises(BadFrame, match="limit"):
        frames.from_agent.decode(bytes(MAX_FRAME_BYTES + 1))
    with pytest.raises(BadFrame, match="2 parts"):
        frames.from_agent.decode_parts([encode(HELLO), b""])
    with pytest.raises(ValueError, match="limit"):
        encode(msgspec.structs.replace(BATCH, payload=bytes(MAX_FRAME_BYTES)))
    with pytest.raises(BadFrame, match="length"):
        frames.from_agent.decode(encode(msgspec.structs.replace(HELLO, agent="x" * 201)))


def test_deep_nesting_ends_in_a_refusal() -> None:
    raw = b"\x82\xa4type\xa5Hello\xa3new" + b"\x91" * 200_000 + b"\xc0"
    with pytest.raises(BadFrame):
        frames.from_agent.decode(raw)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_bad_frame(raw: bytes) -> None:
    for decoder in DECODERS:
        try:
            decoder.decode(raw)
        except BadFrame as error:
            assert str(error).isprintable()


def fuzz_decoders(count: int, seed: int) -> int:
    """Mutate good frames; how many of the results were still messages."""
    chance = random.Random(seed)
    good = [
        encode(message) for message in (HELLO, BATCH, CHUNK, Ack(session="s", seq=1), Welcome(director="d", boot_id=""))
    ]
    taken = 0
    for _ in range(count):
        frame = bytearray(chance.choice(good))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(frame) + 1)
            act = chance.randrange(4)
            if act == 0 and place < len(frame):
                frame[place] = chance.randrange(256)
            elif act == 1:
                frame[place:place] = chance.randbytes(chance.randint(1, 9))
            elif act == 2:
                del frame[place : place + chance.randint(1, 9)]
            else:
                frame += chance.choice(good)[place:]
        try:
            chance.choice(DECODERS).decode(bytes(frame))
            taken += 1
        except BadFrame:
            pass
    return taken


def test_mutated_messages_do_no_harm() -> None:
    assert 0 < fuzz_decoders(20_000, 1) < 10_000


@pytest.mark.long
def test_a_million_mutated_messages_do_no_harm() -> None:
    assert 0 < fuzz_decoders(1_000_000, 2) < 500_000
