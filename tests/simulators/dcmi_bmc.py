"""BMCs that answer DCMI over lanplus, by pyghmi's server: `python dcmi_bmc.py PORT [KEY=VALUE …]`.

The sensor is `MeteredPower` with its fields as options, on the machine's monotonic clock. Others: user, password;
code=N answers DCMI with that completion code; stamp=still says an instant that never moves; active=0: not measuring;
raw=HEX answers these bytes; slow=S answers late; mute_after=N falls silent after N readings, for mute_for=S seconds,
and forgets its sessions, as one that is restarted.
"""

from __future__ import annotations

import struct
import sys
import time
from dataclasses import fields
from typing import Any

from metered_power import MeteredPower
from pyghmi.ipmi.bmc import Bmc
from pyghmi.ipmi.private import session as ipmi_session

START_STAMP = 1_700_000_000  # of the BMC's own clock, at monotonic 0


class DcmiBmc(Bmc):  # type: ignore[misc]  # pyghmi has no types
    """Power reading, and nothing else."""

    def __init__(self, port: int, told: dict[str, str]) -> None:
        super().__init__({told.get("user", "monitor"): told.get("password", "secret")}, port=port, address="127.0.0.1")
        self.told = told
        self.sensor = MeteredPower(**{f.name: float(told[f.name]) for f in fields(MeteredPower) if f.name in told})
        self.readings = 0
        self.mute_until = 0.0

    def handle_raw_request(self, request: dict[str, Any], session: Any) -> None:
        now = time.monotonic()
        if request["netfn"] != 0x2C or request["command"] != 2 or bytes(request["data"]) != b"\xdc\x01\x00\x00":
            super().handle_raw_request(request, session)
            return
        self.readings += now >= self.mute_until
        if self.readings == int(self.told.get("mute_after", "-1")) and not self.mute_until:
            self.mute_until = now + float(self.told.get("mute_for", "inf"))
        if now < self.mute_until:
            # pyghmi knows a session by the client's port, and would answer its next opening as the old session.
            ipmi_session.Session.bmc_handlers.pop(session.sockaddr, None)
            return
        time.sleep(float(self.told.get("slow", "0")))
        if "code" in self.told:
            session.send_ipmi_response(code=int(self.told["code"], 0))
        elif "raw" in self.told:
            session.send_ipmi_response(data=list(bytes.fromhex(self.told["raw"])))
        else:
            still, active = self.told.get("stamp") == "still", self.told.get("active", "1") == "1"
            session.send_ipmi_response(data=list(power_reading(self.sensor, now, still=still, active=active)))


def power_reading(sensor: MeteredPower, now: float, *, still: bool = False, active: bool = True) -> bytes:
    """The answer to Get Power Reading after its completion code."""
    watts = round(sensor.shown(now))
    moved = 0 if still else int(sensor.updated(now))
    return struct.pack("<BHHHHIIB", 0xDC, watts, 1, 9999, watts, START_STAMP + moved, 1000, 0x40 * active)


def main() -> None:
    bmc = DcmiBmc(int(sys.argv[1]), dict(part.split("=", 1) for part in sys.argv[2:]))
    print("ready", flush=True)
    bmc.listen()


if __name__ == "__main__":
    main()
