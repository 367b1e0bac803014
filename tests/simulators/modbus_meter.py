"""Simulated Modbus meters behind pymodbus's own server: over two ptys, with all that goes wrong on a line, or TCP.

The registers are laid out from the makers' manuals; no real meter was at hand.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from meter_core import MeterCore
from meter_wire import _BAUDS, Faults
from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from raw_pty import raw_pty

PATIENCE_S = 10.0


class Registers(Protocol):
    """A meter as its registers."""

    first: int
    count: int

    def image(self) -> dict[int, int]:
        """What stands in the registers now: address → word."""


def float_words(value: float) -> list[int]:
    """As float32, the high word first."""
    return list(struct.unpack(">2H", struct.pack(">f", value)))


@dataclass
class Pzem:
    """Peacefair PZEM-016. It counts whole watt-hours, from `watt_hours` on."""

    core: MeterCore
    watt_hours: float = 0.0
    first = 0
    count = 10

    def image(self) -> dict[int, int]:
        self.core.advance()
        shown = self.core.shown[0]
        watts = 0.0 if math.isnan(shown.watts) else shown.watts
        energy = int(self.watt_hours + self.core.watt_hours[0])
        milliamperes, deciwatts = round(1000 * (shown.amperes if watts else 0.0)), round(10 * watts)
        words = [
            round(10 * (shown.volts if watts else 230.0)),
            milliamperes & 0xFFFF, milliamperes >> 16,
            deciwatts & 0xFFFF, deciwatts >> 16,
            energy & 0xFFFF, energy >> 16,
            500, round(100 * (shown.power_factor if watts else 0.0)), 0,
        ]  # fmt: skip
        return dict(enumerate(words))


@dataclass
class Sdm230:
    """Eastron SDM230. Its energy stands in kWh, as a float."""

    core: MeterCore
    kilowatt_hours: float = 0.0
    first = 0
    count = 0x60

    def image(self) -> dict[int, int]:
        self.core.advance()
        shown = self.core.shown[0]
        energy = math.floor(1000 * self.kilowatt_hours + self.core.watt_hours[0]) / 1000
        values = {
            0x00: shown.volts, 0x06: shown.amperes, 0x0C: shown.watts, 0x12: shown.volts * shown.amperes, 0x18: 0.0,
            0x1E: shown.power_factor, 0x46: 50.0, 0x48: energy, 0x4A: 0.0,
        }  # fmt: skip
        found = dict.fromkeys(range(self.count), 0)
        for address, value in values.items():
            found[address], found[address + 1] = float_words(value)
        return found


@dataclass
class Wt300Registers:
    """Yokogawa WT300's default items; an overload is an infinity, and no value is NaN."""

    core: MeterCore
    first = 2000
    count = 32

    def image(self) -> dict[int, int]:
        self.core.advance()
        shown = self.core.shown[0]
        apparent = shown.volts * shown.amperes
        values = (shown.volts, shown.amperes, shown.watts, apparent, 0.0, shown.power_factor, 0.0, 50.0, 50.0)
        found = dict.fromkeys(range(self.first, self.first + self.count), 0)
        for place, value in enumerate(values):
            address = self.first + 2 * place
            found[address], found[address + 1] = float_words(value)
        return found


class ModbusServer:
    """Runs pymodbus's server in a thread of its own."""

    def __init__(self, meter: Registers, unit: int, make: Callable[[SimDevice], Any]) -> None:
        self.reads: list[tuple[int, int]] = []  # address and count of each request
        self.refused: set[int] = set()  # addresses that it says it does not have
        self._meter = meter
        data = SimData(meter.first, count=meter.count, values=0, datatype=DataType.REGISTERS)
        self._device = SimDevice(unit, simdata=[data], action=self._answer)
        self._make = make
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    def close(self) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(PATIENCE_S)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = self._make(self._device)
        await self._server.serve_forever(background=True)
        self._ready.set()
        await self._server.serving

    async def _answer(
        self, function: int, start: int, address: int, count: int, registers: list[int], _set: object
    ) -> ExcCodes | None:
        self.reads.append((address, count))
        if function != 4 or self.refused & set(range(address, address + count)):
            return ExcCodes.ILLEGAL_ADDRESS
        for place, word in self._meter.image().items():
            registers[place - start] = word
        return None


class PtyModbus(ModbusServer):
    """Behind two ptys, one for the server and one at `path` for the driver, and a thread that carries bytes between."""

    def __init__(
        self, meter: Registers, path: Path, faults: Faults | None = None, *, unit: int = 1, baud: int = 9600
    ) -> None:
        self.faults = faults if faults is not None else Faults()
        self.faults.terminator = b""
        self.path = path
        self.baud = baud
        self._unit = unit
        self._far, far_slave = raw_pty()
        self._far_slave = far_slave
        self._carrier: threading.Thread | None = None
        port = os.ttyname(far_slave)
        super().__init__(
            meter,
            unit,
            lambda device: ModbusSerialServer(device, framer=FramerType.RTU, port=port, baudrate=baud),
        )
        self.plug_in()

    def plug_in(self) -> None:
        self._unplugging = False
        self._near, self._near_slave = raw_pty(self.path)
        self._carrier = threading.Thread(target=self._carry, daemon=True)
        self._carrier.start()

    def unplug(self) -> None:
        """The device file goes away, with whatever has it open."""
        assert self._carrier is not None
        self._unplugging = True
        self._carrier.join()
        self._carrier = None
        self.path.unlink(missing_ok=True)
        os.close(self._near_slave)
        os.close(self._near)

    def close(self) -> None:
        if self._carrier is not None:
            self.unplug()
        super().close()
        os.close(self._far_slave)
        os.close(self._far)

    def _carry(self) -> None:
        while not self._unplugging:
            ready, _, _ = select.select([self._near, self._far], [], [], 0.02)
            if self._near in ready:
                request = os.read(self._near, 4096)
                if self.faults.echo:
                    os.write(self._near, request)
                if request[:1] == bytes([self._unit]):  # any other meter on the line would keep silent
                    os.write(self._far, request)
            if self._far in ready:
                self._pass_on(os.read(self._far, 4096))

    def _pass_on(self, reply: bytes) -> None:
        if self.faults.mute:
            return
        if self.faults.latency_s:
            time.sleep(self.faults.latency_s)
        reply = self.faults.spoil(reply)
        if _BAUDS.get(termios.tcgetattr(self._near_slave)[5]) != self.baud:
            reply = bytes((byte * 7 + 129) & 0xFF | 0x80 for byte in reply)  # what framing errors leave
        while reply:
            size = self.faults.random.randrange(1, 4) if self.faults.fragments else len(reply)
            os.write(self._near, reply[:size])
            reply = reply[size:]
            if self.faults.fragments:
                time.sleep(0.0005)


class TcpModbus(ModbusServer):
    """Behind a TCP port."""

    def __init__(self, meter: Registers, *, unit: int = 1) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        address = ("127.0.0.1", self.port)
        super().__init__(meter, unit, lambda device: ModbusTcpServer(device, address=address))

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"
