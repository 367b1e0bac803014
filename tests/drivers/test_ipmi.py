"""The driver `ipmi` against emulated BMCs on real sockets: pyghmi's server, and our own, which ipmitool judges."""

from __future__ import annotations

import ctypes
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from emulators import free_ports, lan_bmcs, pyghmi_bmc, running, write_credentials
from metered_power import MeteredPower
from poll_helpers import collect, opened, refused

from drivers.contract import Status
from drivers.discovery import Opened, Refused, open_drivers
from drivers.ipmi import in_band

ADDRESSES_OF_ONE = (("a", "127.0.0.1"), ("b", "127.1"), ("c", "127.0.0.1"))
MISSED_BY_HALF_A_WATT = 0.5 + 1e-6


@pytest.fixture
def credentials(tmp_path: Path) -> str:
    return str(write_credentials(tmp_path / "credentials.toml"))


def told(port: int, credentials: str, **more: str) -> dict[str, str]:
    return {"hosts": f"127.0.0.1:{port}", "credentials": credentials, **more}


def ipmitool(port: int, suite: int, password: str = "secret") -> str:
    command = ["ipmitool", "-I", "lanplus", "-C", str(suite), "-H", "127.0.0.1", "-p", str(port), "-U", "monitor"]
    done = subprocess.run(
        [*command, "-P", password, "raw", "0x2c", "2", "0xdc", "1", "0", "0"], capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("ipmitool") is None, reason="ipmitool is not installed: apt install ipmitool")
def test_reads_what_ipmitool_reads(tmp_path: Path, credentials: str) -> None:
    with pyghmi_bmc(tmp_path, base=435, swing=0) as port:
        assert ipmitool(port, 3).startswith("dc b3 01")  # 435 = 0x1b3
        with opened("ipmi", told(port, credentials)) as driver:
            rows, failures = collect(driver.groups[0], 3)
        assert [row.values for row in rows] == [(435.0,)] * 3 and not failures
        assert ipmitool(port, 3).startswith("dc b3 01")


@pytest.mark.skipif(shutil.which("ipmitool") is None, reason="ipmitool is not installed: apt install ipmitool")
@pytest.mark.parametrize("suite", [3, 17])
def test_our_bmc_and_we_keep_to_the_standard_in_both_cipher_suites(
    tmp_path: Path, credentials: str, suite: int
) -> None:
    with lan_bmcs(tmp_path, base=321, swing=0, suites=suite) as (port, _):
        assert ipmitool(port, suite).startswith("dc 41 01")  # 321 = 0x141
        assert ipmitool(port, suite, password="wrong") == ""
        with opened("ipmi", told(port, credentials)) as driver:
            rows, _ = collect(driver.groups[0], 2)
        assert rows[0].values == (321.0,)


def test_follows_the_sensor_and_tells_old_values_from_new(tmp_path: Path, credentials: str) -> None:
    sensor = MeteredPower(base=400, swing=150, period=2.0, window=0.3, update=1.0)
    with (
        lan_bmcs(tmp_path, base=400, swing=150, period=2.0, window=0.3, update=1.0) as (port, _),
        opened("ipmi", told(port, credentials)) as driver,
    ):
        rows, failures = collect(driver.groups[0], 300)
    assert not failures
    updates = {sensor.updated(row.t_ns * 1e-9) for row in rows}
    new = [row for row in rows if row.statuses is None]
    assert len(new) <= len(updates) + 2 and {row.statuses for row in rows} <= {None, bytes((Status.STALE,))}
    for row in rows:
        begin, end = (row.t_ns - row.read_ns) * 1e-9, (row.t_ns + row.read_ns) * 1e-9
        possible = {sensor.shown(begin), sensor.shown(end)}
        assert min(abs(row.values[0] - watts) for watts in possible) <= MISSED_BY_HALF_A_WATT


def test_a_frozen_sensor_gives_nothing_new(tmp_path: Path, credentials: str) -> None:
    with (
        pyghmi_bmc(tmp_path, frozen_from=time.monotonic() - 5) as port,
        opened("ipmi", told(port, credentials)) as driver,
    ):
        rows, _ = collect(driver.groups[0], 20)
    assert rows[0].statuses is None
    assert {row.statuses for row in rows[1:]} == {bytes((Status.STALE,))}


def test_a_bmc_whose_clock_stands_still_does_not_make_values_stale(tmp_path: Path, credentials: str) -> None:
    with (
        pyghmi_bmc(tmp_path, stamp="still", swing=100, period=0.5, window=0, update=0.01) as port,
        opened("ipmi", told(port, credentials)) as driver,
    ):
        rows, _ = collect(driver.groups[0], 50)
    assert not any(row.statuses for row in rows[10:])


def test_lost_repeated_and_foreign_packets_change_nothing(tmp_path: Path, credentials: str) -> None:
    with (
        lan_bmcs(tmp_path, base=300, swing=0, loss=0.05, twice=1, noise=1) as (port, _),
        opened("ipmi", told(port, credentials)) as driver,
    ):
        rows, failures = collect(driver.groups[0], 12)
    assert {row.values for row in rows} == {(300.0,)} and not failures


def test_a_bmc_that_restarts_is_missing_and_comes_back(tmp_path: Path, credentials: str) -> None:
    with (
        pyghmi_bmc(tmp_path, mute_after=6, mute_for=0.5, base=250, swing=0) as port,
        opened("ipmi", told(port, credentials, timeout_s="0.2")) as driver,
    ):
        rows, failures = collect(driver.groups[0], 4)
        assert len(rows) == 4 and not failures
        rows, failures = collect(driver.groups[0], 1)
        while not rows:
            rows, more = collect(driver.groups[0], 1)
            failures += more
    assert rows[0].values == (250.0,) and failures[0].startswith("no answer from 127.0.0.1")


def test_a_bmc_that_is_down_at_first_comes_in_late(tmp_path: Path, credentials: str) -> None:
    with lan_bmcs(tmp_path, base=350, swing=0) as (port, _):
        late = free_ports(1, socket.SOCK_DGRAM)
        settings = {"hosts": f"127.0.0.1:{late},127.0.0.1:{port}", "credentials": credentials, "timeout_s": "0.5"}
        with opened("ipmi", settings) as driver:
            (note,) = driver.notes
            assert "no BMC answers" in note.reason and "it is asked again" in note.reason
            group, other = driver.groups
            assert "no BMC answers" in collect(group, 1)[1][0]
            assert collect(other, 1)[0][0].values == (350.0,)
            with running([sys.executable, "lan_bmcs.py", "1", str(late), "base=444", "swing=0"], tmp_path / "late.log"):
                rows, _ = collect(group, 1)
                while not rows:
                    rows, _ = collect(group, 1)
                assert rows[0].values == (444.0,)


def test_no_measurement_is_missing_and_nonsense_is_no_value(tmp_path: Path, credentials: str) -> None:
    with pyghmi_bmc(tmp_path, active=0) as port, opened("ipmi", told(port, credentials)) as driver:
        rows, _ = collect(driver.groups[0], 2)
        assert rows[1].statuses == bytes((Status.MISSING,))
    with pyghmi_bmc(tmp_path, base=0, swing=0) as port, opened("ipmi", told(port, credentials)) as driver:
        rows, _ = collect(driver.groups[0], 2)
        assert rows[1].statuses == bytes((Status.INVALID,))
    with pyghmi_bmc(tmp_path, raw="dc0102") as port:
        assert "3 bytes" not in (reason := refused("ipmi", told(port, credentials)).reason) and "4 bytes" in reason


def test_a_role_that_is_too_low_is_raised(tmp_path: Path, credentials: str) -> None:
    with lan_bmcs(tmp_path, role=3) as (port, _), opened("ipmi", told(port, credentials)) as driver:
        rows, _ = collect(driver.groups[0], 1)
        assert rows


def test_refusals_say_what_to_do(tmp_path: Path, credentials: str) -> None:
    wrong = str(write_credentials(tmp_path / "wrong.toml", user="monitor", password="canary"))
    unknown = str(write_credentials(tmp_path / "unknown.toml", user="nobody", password="canary"))
    long = str(write_credentials(tmp_path / "long.toml", user="monitor", password="canary" * 4))
    with lan_bmcs(tmp_path) as (port, _):
        assert "password is wrong" in refused("ipmi", told(port, wrong)).reason
        assert "does not know the user" in refused("ipmi", told(port, unknown)).reason
        assert "longer than IPMI's 20 bytes" in refused("ipmi", told(port, long)).reason
    with pyghmi_bmc(tmp_path, code=0xC1) as port:
        answer = refused("ipmi", told(port, credentials))
        assert "does not support the DCMI power reading" in answer.reason and "redfish" in answer.fix
        assert "password is wrong" in refused("ipmi", told(port, wrong)).reason
        silent = refused("ipmi", told(port, unknown, timeout_s="0.2"))  # pyghmi does not answer these
        assert "answers, but not to this user" in silent.reason
    with lan_bmcs(tmp_path, role=5) as (port, _):
        assert "privilege" in refused("ipmi", told(port, credentials)).reason
    with lan_bmcs(tmp_path, room=0) as (port, _):
        assert "no room for another session" in refused("ipmi", told(port, credentials)).reason
    nobody = refused("ipmi", told(port, credentials, timeout_s="0.2"))
    assert "no BMC answers at 127.0.0.1" in nobody.reason and "IPMI over LAN" in nobody.fix


def test_some_of_many_that_fail_are_notes(tmp_path: Path, credentials: str) -> None:
    with lan_bmcs(tmp_path, 3, base=200, swing=0) as (port, _):
        hosts = tmp_path / "rack.toml"
        names = "".join(f'[hosts.node{i}]\naddress = "127.0.0.1:{port + i}"\n' for i in range(3))
        hosts.write_text(f'{names}[hosts.gone]\naddress = "127.0.0.1:9"\ntimeout_s = 0.2\n')
        with opened("ipmi:rack1", {"hosts": str(hosts), "credentials": credentials}) as driver:
            assert [group.name for group in driver.groups] == ["node0", "node1", "node2", "gone"]
            assert [note.reason.partition(":")[0] for note in driver.notes] == ["gone"]
            channel = driver.groups[1].channels[0]
            assert (channel.name, channel.device, channel.scope) == ("ipmi/node1/power", "node1", "node")
            for group in driver.groups[:3]:
                rows, _ = collect(group, 2)
                assert rows[0].values == (200.0,)


def test_two_names_of_one_bmc_are_kept_apart(tmp_path: Path, credentials: str) -> None:
    write_credentials(tmp_path / "wrong.toml", user="monitor", password="wrong")
    with lan_bmcs(tmp_path, base=200, swing=0) as (port, _):
        hosts = tmp_path / "rack.toml"
        address = f'address = "127.0.0.1:{port}"\n'
        hosts.write_text(
            f'[hosts.a]\n{address}[hosts.b]\naddress = "127.1:{port}"\n[hosts.c]\n{address}credentials = "wrong.toml"\n'
        )
        with opened("ipmi", {"hosts": str(hosts), "credentials": credentials}) as driver:
            assert [group.name for group in driver.groups] == ["a", "b"]
            assert [note.reason.partition(":")[0] for note in driver.notes] == ["c"]
            for group in driver.groups:
                assert collect(group, 3)[0][2].values == (200.0,)


def test_sessions_are_closed(tmp_path: Path, credentials: str) -> None:
    """A BMC with room for one session lets us in again and again."""
    with lan_bmcs(tmp_path, room=1) as (port, _):
        for _ in range(3):
            with opened("ipmi", told(port, credentials)) as driver:
                collect(driver.groups[0], 1)


def test_without_a_device_file_there_is_no_bmc(tmp_path: Path) -> None:
    (result,) = open_drivers(["ipmi"], root=tmp_path)
    assert isinstance(result, Refused) and "dev/ipmi0" in result.reason and "modprobe" in result.fix
    device = tmp_path / "dev" / "ipmi0"
    device.parent.mkdir()
    device.write_text("no device: the kernel refuses its ioctl")
    (result,) = open_drivers(["ipmi"], root=tmp_path)
    assert not isinstance(result, Opened) and "the IPMI device fails" in result.reason


def test_the_kernels_structures_have_their_sizes() -> None:
    """Numbers of linux/ipmi.h on 64-bit machines, as strace prints them: IPMICTL_SEND_COMMAND 0x8028690d."""
    if ctypes.sizeof(ctypes.c_void_p) == 8:
        assert ctypes.sizeof(in_band.Message) == 16
        assert in_band.SEND_COMMAND == 0x8028690D
        assert in_band.RECEIVE_TRUNCATED == 0xC030690B
