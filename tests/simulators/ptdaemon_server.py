"""A PTDaemon that measures a made-up load, over real sockets: ranges, clipping, uncertainty, samples, and its logs.

Run as the program that MLPerf's scripts start: python ptdaemon_server.py -l LOG -p PORT [-c FIRST[,LAST]] [-y] TYPE
DEVICE. Its log goes to standard output, a line at a time. What it says is worded as in logs published with MLPerf
results.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

VOLTS = (15.0, 30.0, 60.0, 150.0, 300.0, 600.0)
AMPERES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
NAMES = {8: "YokogawaWT210", 49: "YokogawaWT310E", 52: "YokogawaWT330E", 77: "YokogawaWT330_multichannel"}
CLIPS_AT = 1.3  # of a range


@dataclass(frozen=True)
class Load:
    """What one channel carries."""

    watts: float
    volts: float = 230.0
    power_factor: float = 0.95

    @property
    def amperes(self) -> float:
        return self.watts / (self.volts * self.power_factor)


@dataclass
class Faults:
    """What goes wrong; changed by a test while it runs."""

    slow_s: float = 0.0  # before each reply
    fragment: bool = False  # replies come byte by byte
    garbage: bytes = b""  # once, in place of the next reply
    mute: bool = False  # takes commands and answers none
    refuse_go: bool = False
    refuses: str = ""  # commands that begin so; empty: none
    hello: str = "Hello, PTDaemon here!"
    rejects_every: int = 0  # each n-th sample is −1


@dataclass
class _Measurement:
    mark: str
    first_s: float = 0.0  # no sample comes before
    lines: list[str] = field(default_factory=list)
    unread: int = 0
    watts: list[float] = field(default_factory=list)
    volts: list[float] = field(default_factory=list)
    amperes: list[float] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    errors: int = 0
    unknown: int = 0


class PtdaemonServer:
    """Serves one connection at a time, as PTDaemon does; the next waits."""

    def __init__(
        self,
        load: Callable[[float], Load] = lambda t_s: Load(400.0),
        *,
        meter: int = 49,
        channels: int = 1,
        version: str = "1.11.1",
        period_s: float = 1.0,
        port: int = 0,
        spl: Path | None = None,
        log: TextIO | None = None,
        ranges: tuple[float, float] | None = (5.0, 300.0),
        local_hours: float = 0.0,
    ) -> None:
        """`ranges` (amperes, volts) are set on the meter; None: automatic. `period_s` stands for PTDaemon's second."""
        self.faults = Faults()
        self.commands: list[str] = []
        self.connections = 0
        self._load = load
        self.name = NAMES[meter]
        self._channels = channels
        self._version = version
        self._period_s = period_s
        self._spl, self._log = spl, log
        self.amperes: float | None = ranges[0] if ranges else None
        self.volts: float | None = ranges[1] if ranges else None
        self._shift_s = local_hours * 3600
        self._began_s = time.monotonic()
        self._lock = threading.RLock()
        self._measurement: _Measurement | None = None
        self._last: _Measurement | None = None
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._client: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", port), backlog=8)
        self.port: int = self._listener.getsockname()[1]
        self._say(f"Uncertainty checking for {self.name} is activated")
        self._say(f"Connected to {self.name} successfully")
        self._say(f"Establishing the listener on port {self.port}...")
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve, self._sample)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> PtdaemonServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.disconnect()
        for thread in self._threads:
            thread.join(10)

    def disconnect(self) -> None:
        """Cut the connection that is served."""
        client = self._client
        if client is not None:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    # ---- the meter

    def _sample(self) -> None:
        next_s = time.monotonic() + self._period_s
        while not self._stopping.wait(max(0.0, next_s - time.monotonic())):
            next_s += self._period_s
            with self._lock:
                if self._measurement is not None and time.monotonic() >= self._measurement.first_s:
                    self._take(self._measurement)

    def _take(self, measurement: _Measurement) -> None:
        load = self._load(time.monotonic() - self._began_s)
        stamp = self._stamp()
        found = []
        for number in range(1, self._channels + 1):
            volts, amperes = load.volts, load.amperes / self._channels
            over = False
            if self.amperes is not None and amperes > CLIPS_AT * self.amperes:
                amperes, over = CLIPS_AT * self.amperes, True
            if self.volts is not None and volts > CLIPS_AT * self.volts:
                volts, over = CLIPS_AT * self.volts, True
            if over:
                self._say(f"ERROR: Current appears to be too high for set range, channel {number}!", stamp)
            found.append((volts * amperes * load.power_factor, volts, amperes, load.power_factor))
        count = len(found)
        watts = sum(one[0] for one in found)
        total = (watts, *(sum(one[at] for one in found) / count for at in (1, 2)))
        total = (*total, watts / sum(one[1] * one[2] for one in found))
        rejected = self.faults.rejects_every and (len(measurement.lines) + 1) % self.faults.rejects_every == 0
        if rejected:
            total, found = (-1.0,) * 4, [(-1.0,) * 4] * count
            measurement.errors += 1
        else:
            for values, number in zip(
                (measurement.watts, measurement.volts, measurement.amperes, measurement.factors), total, strict=True
            ):
                values.append(number)
            self._judge(measurement, found, stamp)
        parts = [_values(total), *(_values(one) for one in found if count > 1)]
        measurement.lines.append(",".join([f"Time,{stamp}", *parts]))
        measurement.unread += 1
        if self._spl is not None:
            named = [f"Ch{at},{part}" for at, part in enumerate(parts[1:], 1)]
            line = ",".join([f"Time,{stamp}", parts[0], f"Mark,{measurement.mark}", *named])
            with self._spl.open("a") as file:
                file.write(f"{line}\n")

    def _judge(self, measurement: _Measurement, found: Sequence[tuple[float, ...]], stamp: str) -> None:
        share = self._uncertainty(found)
        if share is None:
            measurement.unknown += 1
            self._say("ERROR: Can't evaluate uncertainty of this sample!", stamp)
            self._say("WARNING: Uncertainty unknown for the last measurement sample!", stamp)
            return
        measurement.shares.append(share)
        if share > 0.01:
            text = f"Uncertainty {share * 100:.2f}%, which is above 1.00% limit for the last sample!"
            self._say(f"WARNING: {text}", stamp)

    def _uncertainty(self, found: Sequence[tuple[float, ...]]) -> float | None:
        if self.amperes is None or self.volts is None:
            return None
        full = self.amperes * self.volts
        tangents = [math.tan(math.acos(min(1.0, one[3]))) for one in found]
        if self.name == "YokogawaWT210":
            return 0.0015 + 0.001 * full / found[0][0] + 0.002 * tangents[0]
        watts = [one[0] for one in found]
        apparent = sum(one[1] * one[2] for one in found)
        weighted = sum(w * t for w, t in zip(watts, tangents, strict=True)) / sum(watts)
        return 0.001 + 0.0005 * len(found) * full / apparent + 0.002 * weighted

    # ---- the network

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._say("Waiting for a connection...")
            try:
                client, address = self._listener.accept()
            except OSError:
                return
            self._client = client
            self.connections += 1
            self._say(f"Accepted connection from {address[0]}:{address[1]}")
            with contextlib.suppress(OSError), client:
                self._talk(client)
            self._client = None
            self._say("Connection is down.")
            with self._lock:
                self._last, self._measurement = self._measurement or self._last, None

    def _talk(self, client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            for raw in lines:
                command = raw.decode().strip()
                self.commands.append(command)
                replies = self._answer(command)
                if self.faults.garbage:
                    garbage, self.faults.garbage = self.faults.garbage, b""
                    client.sendall(garbage)
                    continue
                if self.faults.mute:
                    continue
                if self.faults.slow_s:
                    self._stopping.wait(self.faults.slow_s)
                self._send(client, replies)

    def _send(self, client: socket.socket, replies: list[str]) -> None:
        self._say(f"Response to client sent: {replies[0]}")
        content = "".join(f"{reply}\r\n" for reply in replies).encode()
        if not self.faults.fragment:
            client.sendall(content)
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(content)):
            client.sendall(content[at : at + 1])

    def _answer(self, command: str) -> list[str]:
        with self._lock:
            name, *parts = command.split(",")
            if self.faults.refuses and command.startswith(self.faults.refuses):
                return ["Error: refused"]
            if name == "Hello":
                return [self.faults.hello]
            if name == "Identify":
                return [
                    f"{self.name},1000,1,1,1,1,0,0,1,version={self._version}-ed9a21d2-20220817,OS=Linux simulated,"
                    f"mode=power,1,1,{self._channels},0,0,no_cal_date,YOKOGAWA;SIMULATED;C2XX00001V;F1.04"
                ]
            if name == "RR":
                pairs = [(1, 0.0) if one is None else (0, one) for one in (self.amperes, self.volts)]
                return ["Ranges," + ",".join(f"{automatic},{number:.6f}" for automatic, number in pairs)]
            if name == "SR" and len(parts) == 2:
                return [self._set_range(*parts)]
            if name == "Go" and len(parts) == 3:
                return [self._go(parts[2])]
            if name == "Stop":
                return [self._stop()]
            if name in ("Watts", "Volts", "Amps", "PF", "Uncertainty"):
                return [self._statistics(name)]
            if name in ("RL", "DC-RL"):
                return self._read(parts)
            return ["Unknown command"]

    def _set_range(self, unit: str, text: str) -> str:
        table = {"A": AMPERES, "V": VOLTS}.get(unit)
        if table is None:
            return "Error: unknown range"
        number = None
        if text != "Auto":
            number = next((one for one in table if one >= float(text) - 1e-9), None)
            if number is None:
                return f"Error: there is no range for {text}"
        if unit == "A":
            self.amperes = number
        else:
            self.volts = number
        what = {"A": "Ampere", "V": "Volt"}[unit]
        self._say(f"{what} range set to {'Auto' if number is None else f'{number:.6f}{unit}'}")
        return f"Range {unit} changed"

    def _go(self, mark: str) -> str:
        if self.faults.refuse_go:
            return "Error: meter not ready"
        if self._measurement is not None:
            return "Error: measurement already running"
        self._say(f"Go with mark '{mark}'")
        self._measurement = _Measurement(mark, time.monotonic() + self._period_s / 4)
        return "Starting untimed measurement, maximum 500000 samples at 1000ms with 0 rampup samples"

    def _stop(self) -> str:
        if self._measurement is None:
            return "Error: no measurement to stop"
        self._last, self._measurement = self._measurement, None
        time.sleep(0.002)  # stamps have milliseconds, and checkers look for what lies strictly between
        self._say("Completed test")
        return "Stopping untimed measurement"

    def _statistics(self, name: str) -> str:
        of = self._measurement or self._last or _Measurement("")
        count = len(of.lines)
        if name == "Uncertainty":
            if not of.shares:
                return f"Uncertainty,-1.0,10000000.000000,0.000000,{count},{of.errors},0,{of.unknown}"
            figures = sum(of.shares) / len(of.shares), min(of.shares), max(of.shares)
            text = ",".join(f"{figure:.6f}" for figure in figures)
            return f"Uncertainty,{text},{count},{of.errors},{len(of.shares)},{of.unknown}"
        values = {"Watts": of.watts, "Volts": of.volts, "Amps": of.amperes, "PF": of.factors}[name] or [-1.0]
        text = ",".join(f"{figure:.6f}" for figure in (sum(values) / len(values), min(values), max(values)))
        return f"{name},{text},{count},{of.errors},{len(of.watts)}"

    def _read(self, parts: list[str]) -> list[str]:
        if bool(parts) != (self._channels > 1):
            return ["Invalid number of parameters"]
        of = self._measurement or self._last or _Measurement("")
        new = of.lines[len(of.lines) - of.unread :]
        of.unread = 0
        channels = f" from sum channel and channels 1 - {self._channels}" if parts else ""
        return [f"Last {len(new)} samples{channels}", *new]

    def _stamp(self) -> str:
        now_ms = round((time.time() + self._shift_s) * 1000)
        at = time.gmtime(now_ms // 1000)
        return f"{time.strftime('%m-%d-%Y %H:%M:%S', at)}.{now_ms % 1000:03d}"

    def _say(self, text: str, stamp: str = "") -> None:
        if self._log is not None:
            self._log.write(f"{stamp or self._stamp()}: {text}\n")
            self._log.flush()


def _values(numbers: Sequence[float]) -> str:
    return ",".join(
        f"{name},{number:.6f}" for name, number in zip(("Watts", "Volts", "Amps", "PF"), numbers, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-l", dest="spl", type=Path)
    parser.add_argument("-p", dest="port", type=int)
    parser.add_argument("-c", dest="channels", default="1")
    parser.add_argument("-y", action="store_true")
    parser.add_argument("meter", type=int)
    parser.add_argument("device")
    chosen = parser.parse_args()
    period_s = float(os.environ.get("PTD_PERIOD_S", "1"))
    watts = float(os.environ.get("PTD_WATTS", "400"))
    version = os.environ.get("PTD_VERSION", "1.11.1")
    first, _, last = chosen.channels.partition(",")
    channels = int(last or first) - int(first) + 1
    with PtdaemonServer(
        lambda t_s: Load(watts),
        meter=chosen.meter,
        channels=channels,
        version=version,
        period_s=period_s,
        port=chosen.port,
        spl=chosen.spl,
        log=sys.stdout,
    ):
        threading.Event().wait()


if __name__ == "__main__":
    main()
