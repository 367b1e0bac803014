"""The driver `snmp` against snmpsim, over v2c and v3: one poller for all of its agents."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import snmp_agents
from emulators import snmp_pdus, snmpsim, write_credentials
from mutations import mutate
from poll_helpers import collect, opened, refused

from drivers.contract import Channel, Driver, Group, Status

AGENTS = {
    "apc": snmp_agents.apc(),
    "raritan": snmp_agents.raritan(),
    "raritan-whole": snmp_agents.raritan(digits=0),
    "sensor": snmp_agents.entity_sensor(),
    "sensors": snmp_agents.entity_sensor(sensors=2),
    "broken-sensor": snmp_agents.entity_sensor(status=3),
    "nothing": "1.3.6.1.2.1.1.1.0|4|a printer\n",
    "moving": snmp_agents.moving(),
    "late": snmp_agents.late(450),
    "self": snmp_agents.apc(device=321),  # what SNMP v3 sees
}
V3 = {"user": "monitor", "auth_password": "auth-secret", "privacy_password": "privacy-secret"}
# Name, community or changed secrets of v3, and settings.
HOSTS: list[tuple[str, str | dict[str, str], str]] = [
    ("apc", "apc", ""),
    ("fed", "apc", "accuracy_percent = 1\noutlets = { 2 = 'node17' }\n"),
    ("lacking", "apc", "outlets = '3'\n"),
    ("wordy", "apc", "outlets = 'two'\n"),
    ("raritan", "raritan", ""),
    ("whole", "raritan-whole", ""),
    ("switch", "sensor", ""),
    ("switches", "sensors", ""),
    ("chosen", "sensors", "outlets = '101,102'\n"),
    ("broken", "broken-sensor", ""),
    ("nothing", "nothing", ""),
    ("moving", "moving", ""),
    ("late", "late", "timeout_s = 0.4\n"),
    ("silent", "canary", "timeout_s = 0.4\n"),
    ("v3", {}, ""),
    ("user", {"user": "nobody"}, ""),
    ("auth", {"auth_password": "auth-canary"}, ""),
    ("privacy", {"privacy_password": "privacy-canary"}, ""),
]


class Rack(NamedTuple):
    """A driver that polls all of them."""

    driver: Driver
    group: dict[str, Group]
    trouble: dict[str, tuple[str, str]]  # reason and fix, of those that are left out

    def channels(self, name: str) -> tuple[Channel, ...]:
        return self.group[name].channels

    def readings(self, name: str, which: int = 1) -> dict[str, tuple[float, Status]]:
        """Of each channel, in its unit, with its status."""
        rows, failures = collect(self.group[name], which + 1)
        assert not failures
        statuses = rows[which].statuses or bytes(len(rows[which].values))
        return {
            channel.name.removeprefix("snmp/"): (value * channel.scale, Status(status))
            for channel, value, status in zip(self.channels(name), rows[which].values, statuses, strict=True)
        }


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    folder = tmp_path_factory.mktemp("snmp")
    with snmpsim(folder, AGENTS) as port:
        lines = []
        for name, who, settings in HOSTS:
            secrets = {"community": who} if isinstance(who, str) else {**V3, **who}
            write_credentials(folder / f"{name}-secrets.toml", **secrets)
            lines.append(
                f"[hosts.{name}]\naddress = '127.0.0.1:{port}'\ncredentials = '{name}-secrets.toml'\n{settings}"
            )
        (folder / "rack.toml").write_text("".join(lines))
        with opened("snmp:rack", {"hosts": str(folder / "rack.toml")}) as driver:
            groups = {group.name: group for group in driver.groups}
            notes = [(note.reason.partition(": "), note.fix) for note in driver.notes]
            yield Rack(driver, groups, {name: (reason, fix) for (name, _, reason), fix in notes})


def test_apc(rack: Rack) -> None:
    assert rack.readings("apc") == {
        "apc/power": (1230.0, Status.NEW),
        "apc/energy": (pytest.approx(4567.8 * 3.6e6), Status.NEW),
        "apc-phase1/power": (1230.0, Status.NEW),
        "apc-outlet1/power": (101.0, Status.NEW),
        "apc-outlet1/energy": (pytest.approx(1.5 * 3.6e6), Status.NEW),
        "apc-outlet2/power": (201.0, Status.NEW),
        "apc-outlet2/energy": (pytest.approx(2.5 * 3.6e6), Status.NEW),
    }
    assert {channel.device: (channel.scope, channel.parent) for channel in rack.channels("apc")} == {
        "apc": ("wall", None),
        "apc-phase1": ("rail", "apc"),
        "apc-outlet1": ("wall", "apc"),
        "apc-outlet2": ("wall", "apc"),
    }
    power, energy = rack.channels("apc")[:2]
    assert power.accuracy is not None and energy.accuracy is not None
    assert (power.accuracy.absolute, energy.accuracy.absolute) == (5.0, 360_000.0)
    assert (power.model, power.update_period_s) == ("AP8681", None)


def test_outlets_that_feed_the_machine(rack: Rack) -> None:
    assert rack.readings("fed").keys() == {"node17-fed-outlet2/power", "node17-fed-outlet2/energy"}
    channel = rack.channels("fed")[0]
    assert (channel.scope, channel.parent) == ("wall", None) and "feeds node17" in channel.description
    assert channel.accuracy is not None and channel.accuracy.reading_fraction == 0.01
    assert "no metered outlet 3; it has 1, 2" in rack.trouble["lacking"][0]
    assert "'two' is no outlet" in rack.trouble["wordy"][0]


def test_raritan_by_its_digits(rack: Rack) -> None:
    assert rack.readings("raritan") == {
        "raritan/power": (pytest.approx(432.1), Status.NEW),
        "raritan/energy": (pytest.approx(98765 * 3600), Status.NEW),
        "raritan-outlet1/power": (40.0, Status.NEW),
        "raritan-outlet1/energy": (pytest.approx(1234 * 3600), Status.NEW),
    }
    accuracy = rack.channels("raritan")[0].accuracy
    assert accuracy is not None and accuracy.absolute == pytest.approx(0.05)
    assert rack.readings("whole")["whole/power"] == (4321.0, Status.NEW)


def test_entity_sensor(rack: Rack) -> None:
    rows, _ = collect(rack.group["switch"], 2)
    assert rows[0].values[0] * rack.channels("switch")[0].scale == pytest.approx(1005.0)
    assert rows[1].statuses == bytes((Status.STALE,))  # the same instant of the device
    assert rack.channels("switch")[0].update_period_s == 2.0
    # Which of several lies in which is not known.
    assert {channel.scope for channel in rack.channels("switches")} == {"rail"}
    assert rack.readings("switches")["switches-sensor102-PSU_2_input/power"][0] == pytest.approx(2005.0)
    assert {channel.scope for channel in rack.channels("chosen")} == {"wall"}
    assert [status for _, status in rack.readings("broken").values()] == [Status.MISSING]


def test_a_value_that_moves_is_followed_in_steps_of_ten_watts(rack: Rack) -> None:
    rows, _ = collect(rack.group["moving"], 3)
    while len({tuple(row.values) for row in rows}) < 4:
        rows += collect(rack.group["moving"], 1)[0]
    watts = [row.values[0] * rack.channels("moving")[0].scale for row in rows]
    assert all(1000 <= value <= 3000 and value % 10 == 0 for value in watts)


def test_v3_authenticates_and_encrypts(rack: Rack, tmp_path: Path) -> None:
    assert rack.readings("v3")["v3/power"] == (3210.0, Status.NEW)
    for name in ("user", "auth", "privacy"):
        reason, fix = rack.trouble[name]
        assert "does not let this user in" in reason and "credentials" in fix
    short = write_credentials(tmp_path / "short.toml", **{**V3, "auth_password": "canary"})
    assert "shorter than 8" in refused("snmp", {"hosts": "127.0.0.1", "credentials": str(short)}).reason
    weak = write_credentials(tmp_path / "weak.toml", **{**V3, "auth_protocol": "MD5"})
    assert "too weak" in refused("snmp", {"hosts": "127.0.0.1", "credentials": str(weak)}).reason


@pytest.mark.parametrize(
    ("auth", "privacy", "name"),
    [("SHA", "AES128", "AES"), ("SHA224", "AES256", "AES256"), ("SHA512", "AES192", "AES192")],
)
def test_v3_with_other_protocols(auth: str, privacy: str, name: str, tmp_path: Path) -> None:
    secrets = {**V3, "auth_protocol": auth, "privacy_protocol": privacy}
    credentials = write_credentials(tmp_path / "pdu.toml", **secrets)
    with snmpsim(tmp_path, {"self": AGENTS["self"]}, auth_protocol=auth, privacy_protocol=name) as port:
        settings = {"hosts": f"127.0.0.1:{port}", "credentials": str(credentials), "timeout_s": "8"}
        with opened("snmp:pdu", settings) as driver:
            (row,), _ = collect(driver.groups[0], 1)
            assert row.values[0] == 321.0


def test_an_agent_with_a_small_buffer_is_asked_for_less_at_once(tmp_path: Path) -> None:
    credentials = write_credentials(tmp_path / "pdu.toml", community="public")
    with snmp_pdus(tmp_path, outlets=20, room=5) as (port, _):
        settings = {"hosts": f"127.0.0.1:{port}", "credentials": str(credentials), "timeout_s": "8"}
        with opened("snmp:pdu", settings) as driver:
            (row,), _ = collect(driver.groups[0], 1)
            assert row.statuses is None and len(row.values) == 3 + 2 * 20
            assert row.values[3:7] == [101.0, 15, 201.0, 25]


def test_an_agent_that_answers_noise_gives_no_answer(tmp_path: Path) -> None:
    community = write_credentials(tmp_path / "community.toml", community="public")
    source = random.Random(3)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as agent:
        agent.bind(("127.0.0.1", 0))

        def answer() -> None:
            while True:
                request, sender = agent.recvfrom(2048)
                if not request:
                    return
                for _ in range(20):
                    agent.sendto(mutate(request, source), sender)

        thread = threading.Thread(target=answer)
        thread.start()
        port = agent.getsockname()[1]
        told = refused("snmp", {"hosts": f"127.0.0.1:{port}", "credentials": str(community), "timeout_s": "0.4"})
        agent.sendto(b"", ("127.0.0.1", port))
        thread.join()
    assert "127.0.0.1" in told.reason


def test_refusals_say_what_to_do(rack: Rack) -> None:
    assert rack.trouble.keys() == {"lacking", "wordy", "nothing", "late", "silent", "user", "auth", "privacy"}
    assert "no answer from 127.0.0.1" in rack.trouble["silent"][0] and "wrong community" in rack.trouble["silent"][0]
    reason, fix = rack.trouble["nothing"]
    assert "tells no power in a way that is known" in reason and "snmpwalk" in fix
    assert "within 0.4 s" in rack.trouble["late"][0]
