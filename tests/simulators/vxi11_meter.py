"""Puts a simulated meter behind VXI-11: a real RPC server, without a port mapper."""

from __future__ import annotations

import threading
from typing import Any

from meter_wire import Meter
from vxi11 import rpc, vxi11

NO_REPLY = 15  # I/O timeout
_END = 4


class Vxi11Meter(rpc.TCPServer):  # type: ignore[misc]
    """Serves one connection after the other until the process ends."""

    def __init__(self, meter: Meter) -> None:
        super().__init__("127.0.0.1", vxi11.DEVICE_CORE_PROG, vxi11.DEVICE_CORE_VERS, 0)
        self.meter = meter
        self.replies: list[str] = []
        self.sock.listen(1)
        self.connection: Any = None
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def place(self) -> str:
        return f"vxi11:127.0.0.1:{self.port}"

    def drop(self) -> None:
        """Break the connection."""
        self.connection.shutdown(2)

    def addpackers(self) -> None:
        self.packer, self.unpacker = vxi11.Packer(), vxi11.Unpacker("")

    def _run(self) -> None:
        while True:
            self.connection, address = self.sock.accept()
            self.session((self.connection, address))

    def handle_10(self) -> None:
        """create_link"""
        self.unpacker.unpack_create_link_parms()
        self.turn_around()
        self.packer.pack_create_link_resp((0, 1, 0, 4096))

    def handle_11(self) -> None:
        """device_write"""
        *_, data = self.unpacker.unpack_device_write_parms()
        self.turn_around()
        reply = self.meter.handle(data.decode("ascii").rstrip("\r\n"))
        if reply is not None:
            self.replies.append(reply)
        self.packer.pack_device_write_resp((0, len(data)))

    def handle_12(self) -> None:
        """device_read"""
        self.unpacker.unpack_device_read_parms()
        self.turn_around()
        if self.replies:
            self.packer.pack_device_read_resp((0, _END, f"{self.replies.pop(0)}\n".encode("ascii")))
        else:
            self.packer.pack_device_read_resp((NO_REPLY, 0, b""))

    def handle_15(self) -> None:
        """device_clear"""
        self.unpacker.unpack_device_generic_parms()
        self.turn_around()
        self.replies.clear()
        self.packer.pack_device_error(0)

    def handle_23(self) -> None:
        """destroy_link"""
        self.unpacker.unpack_device_link()
        self.turn_around()
        self.packer.pack_device_error(0)
