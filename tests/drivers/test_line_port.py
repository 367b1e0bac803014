"""Lines of text over a real socket that does what lines should not do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from drivers.line_port import LinePort, NoReply, open_port
from drivers.links import SerialSettings


@pytest.fixture
def dribble() -> Iterator[LinePort]:
    """A port at whose other end somebody sends byte after byte, and never the end of a line."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def send() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            while not ended.wait(0.005):
                connection.sendall(b"7")

    thread = threading.Thread(target=send)
    thread.start()
    port = open_port(f"tcp:127.0.0.1:{listener.getsockname()[1]}", SerialSettings())
    yield port
    ended.set()
    thread.join()
    port.close()
    listener.close()


def test_a_line_that_never_ends_is_not_waited_for(dribble: LinePort) -> None:
    with pytest.raises(NoReply, match=r"only b'7+' came within 0.1 s") as told:
        dribble.read_line(0.1)
    assert set(told.value.partial) == {ord("7")}
