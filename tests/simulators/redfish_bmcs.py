"""Many BMCs that answer Redfish over TLS: `python redfish_bmcs.py COUNT FIRST_PORT CERT KEY [KEY=VALUE …]`.

Their resources are those of `redfish_tree`, with power from `MeteredPower` (its fields as options) and an energy
counter that integrates it. Others: user, password; parts=environment,sensors,power; sessions=0: only Basic;
fragment=S: answers come byte by byte, a byte each S seconds; slow=S: late; garbage=N: every Nth answer is noise;
cut=N: every Nth is cut off; close=N: the connection is closed after every Nth; expire=N: a session ends after N
requests; energy=0: no counter; mute_after=N: silent from the Nth on; status=N: every resource but the root answers so;
room=N sessions; logins=N: no session can be opened after the Nth, of those it writes a line; location=URL: the begin
of what it calls sessions.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import random
import ssl
import sys
import time
from base64 import b64encode
from dataclasses import fields

import redfish_tree
from metered_power import MeteredPower

_SESSIONS = "/redfish/v1/SessionService/Sessions"


class RedfishBmc:
    """What all connections of one BMC share."""

    def __init__(self, told: dict[str, str]) -> None:
        self.told = told
        self.sensor = MeteredPower(**{f.name: float(told[f.name]) for f in fields(MeteredPower) if f.name in told})
        parts = told.get("parts", "environment,sensors,power").split(",")
        self.tree = redfish_tree.tree(**{part: part in parts for part in ("environment", "sensors", "power")})
        if told.get("energy") == "0" and "environment" in parts:
            del self.tree[f"{redfish_tree.CHASSIS}/EnvironmentMetrics"]["EnergykWh"]
        self.tokens: dict[str, int] = {}
        self.basic = (
            "Basic " + b64encode(f"{told.get('user', 'monitor')}:{told.get('password', 'secret')}".encode()).decode()
        )
        self.answers = self.logins = 0
        self.began = time.monotonic()
        self.random = random.Random(2)

    def every(self, word: str) -> bool:
        return word in self.told and self.answers % int(self.told[word]) == 0

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list[str], bytes]:
        path = path.rstrip("/")
        if method == "POST" and path == _SESSIONS:
            if self.told.get("sessions") == "0":
                return 404, [], b"{}"
            asked = json.loads(body)
            if self.basic != "Basic " + b64encode(f"{asked['UserName']}:{asked['Password']}".encode()).decode():
                return 401, [], b"{}"
            print("login", flush=True)
            self.logins += 1
            most, room = int(self.told.get("logins", "1000000")), int(self.told.get("room", "1000000"))
            if self.logins > most or len(self.tokens) >= room:
                return 503, [], b"{}"
            token = self.random.randbytes(12).hex()
            self.tokens[token] = int(self.told.get("expire", "1000000"))
            return (
                201,
                [f"X-Auth-Token: {token}", f"Location: {self.told.get('location', '')}{_SESSIONS}/{token[:4]}"],
                b"{}",
            )
        if path == "/redfish/v1":
            return 200, [], json.dumps(self.tree[path]).encode()
        token = headers.get("x-auth-token", "")
        if token in self.tokens:
            self.tokens[token] -= 1
            if self.tokens[token] < 0:
                del self.tokens[token]
        if token not in self.tokens and headers.get("authorization") != self.basic:
            return 401, [], b"{}"
        if method == "DELETE":
            self.tokens.pop(token, None)
            return 204, [], b""
        if "status" in self.told:
            return int(self.told["status"]), [], b"{}"
        if path not in self.tree:
            return 404, [], b"{}"
        self.measure(path)
        return 200, [], json.dumps(self.tree[path]).encode()

    def measure(self, path: str) -> None:
        now = time.monotonic()
        watts, resource = round(self.sensor.shown(now), 1), self.tree[path]
        if path.endswith("EnvironmentMetrics"):
            resource["PowerWatts"]["Reading"] = watts
            joules = self.sensor.mean(self.began, now) * (now - self.began)
            if "EnergykWh" in resource:
                resource["EnergykWh"]["Reading"] = round(1000 + joules / 3.6e6, 6)
        elif path.endswith("TotalPower"):
            resource["Reading"] = watts
            made = datetime.datetime.fromtimestamp(1_700_000_000 + self.sensor.updated(now), datetime.timezone.utc)
            resource["ReadingTime"] = made.isoformat()
        elif path.endswith("/Power"):
            resource["PowerControl"][0]["PowerConsumedWatts"] = round(watts)


class Connection(asyncio.Protocol):
    """Reads requests and writes answers, with the faults that were asked for."""

    def __init__(self, bmc: RedfishBmc) -> None:
        self.bmc = bmc
        self.received = b""
        self.writing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, mark, rest = self.received.partition(b"\r\n\r\n")
        if not mark:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", "0"))
        if len(rest) < size:
            return
        self.received = rest[size:]
        method, path, _ = first.split(" ", 2)
        self.bmc.answers += 1
        if self.bmc.answers >= int(self.bmc.told.get("mute_after", "1000000000")):
            return
        status, more, body = self.bmc.answer(method, path, headers, rest[:size])
        head_lines = [
            f"HTTP/1.1 {status} Made",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *more,
        ]
        whole = "\r\n".join(head_lines).encode() + b"\r\n\r\n" + body
        if self.bmc.every("garbage"):
            whole = self.bmc.random.randbytes(len(whole))
        if self.bmc.every("cut"):
            whole = whole[: len(whole) // 2]
        pace, late = float(self.bmc.told.get("fragment", "0")), float(self.bmc.told.get("slow", "0"))
        ends = self.bmc.every("cut") or self.bmc.every("close")
        if pace or late:
            self.writing = asyncio.ensure_future(self.write_slowly(whole, pace, late, ends))
        else:
            self.write(whole)
            if ends:
                self.transport.close()

    def write(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]  # a stream transport

    async def write_slowly(self, whole: bytes, pace: float, late: float, ends: bool) -> None:
        await asyncio.sleep(late)
        for place in range(len(whole)) if pace else ():
            self.write(whole[place : place + 1])
            await asyncio.sleep(pace)
        if not pace:
            self.write(whole)
        if ends:
            self.transport.close()


async def serve(count: int, first_port: int, certificate: str, key: str, told: dict[str, str]) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    for port in range(first_port, first_port + count):
        bmc = RedfishBmc(told)
        await loop.create_server(lambda bmc=bmc: Connection(bmc), "127.0.0.1", port, ssl=tls)  # type: ignore[misc]
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = dict(part.split("=", 1) for part in sys.argv[5:])
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], options))
