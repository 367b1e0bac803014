"""What the ranging stage saw, of the channels that a meter's driver really has."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import msgspec
from meter_core import MeterCore
from meter_wire import TcpMeter
from metered_load import SquareLoad
from yokogawa_meter import Wt300

from director.fleet.ranging import find_ranges
from director.session.files import spool_path, store_manifest
from director.session.manifest import Host, Manifest
from drivers.discovery import Opened, open_drivers
from power_agent.messages import Stream
from power_agent.row_format import row_struct
from power_agent.spool import Batch, SpoolWriter

SHOWN = {"voltage": (229.0, 231.0), "current": (1.5, 0.5), "power": (340.0, 110.0)}


def stream_of(elements: int) -> Stream:
    """What is recorded of a simulated meter with so many elements."""
    core = MeterCore(time.monotonic, [SquareLoad(400.0, 400.0)] * elements)
    with contextlib.closing(TcpMeter(Wt300(core))) as line:
        name = "wt310e" if elements == 1 else "wt330e"
        [found] = open_drivers([name], settings={name: {"port": line.place, "volts": "230", "amps": "5"}})
        assert isinstance(found, Opened), found
        found.driver.close()
        [group] = found.driver.groups
        return Stream(id=0, driver=name, group=group.name, rate_hz=5.0, channels=list(group.channels))


def ranges(session: Path, stream: Stream) -> dict[str, dict[str, float]]:
    """Of two readings, those of `SHOWN`."""
    session.mkdir()
    host = Host(name="a")
    store_manifest(session, Manifest(tool_version="0", session="s", created_wall_ns=0, state="measuring", hosts=[host]))
    path = spool_path(session, "a")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = SpoolWriter(path, {"host": "a"})
    rows = b""
    for at in range(2):
        values = [SHOWN.get(channel.quantity, (0.0, 0.0))[at] / channel.scale for channel in stream.channels]
        values = [int(v) if c.kind == "counter" else v for v, c in zip(values, stream.channels, strict=True)]
        rows += row_struct(stream.channels).pack(at, 0, *values, bytes(len(values)))
    writer.write(streams=[stream])
    writer.write(batches=[Batch(0, 2, rows)])
    writer.close()
    return find_ranges(session)


def test_volts_and_amperes_of_a_meter_are_found(tmp_path: Path) -> None:
    found = ranges(tmp_path / "s", stream_of(1))
    assert found == {"wt310e": {"volts": 231.0, "amps": 1.5, "watts": 340.0}}


def test_so_are_those_of_its_elements(tmp_path: Path) -> None:
    found = ranges(tmp_path / "s", stream_of(3))
    assert found["wt330e"] == {"volts": 231.0, "amps": 1.5, "watts": 340.0}


def test_what_gives_no_power_of_the_machine_is_no_meter(tmp_path: Path) -> None:
    stream = stream_of(1)
    rails = [msgspec.structs.replace(c, scope="rail" if c.quantity == "power" else c.scope) for c in stream.channels]
    assert ranges(tmp_path / "s", msgspec.structs.replace(stream, channels=rails)) == {}
