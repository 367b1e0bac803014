"""The driver `redfish` against sushy-static, and a service of our own that is slow, cuts off and talks nonsense."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import redfish_tree
from emulators import free_ports, make_certificates, redfish_bmcs, running, sushy_static, write_credentials
from metered_power import MeteredPower
from poll_helpers import collect, opened, refused

from drivers.contract import Status

ENVIRONMENT = f"{redfish_tree.CHASSIS}/EnvironmentMetrics"
SENSOR = f"{redfish_tree.CHASSIS}/Sensors/TotalPower"
POWER = f"{redfish_tree.CHASSIS}/Power"


@pytest.fixture
def credentials(tmp_path: Path) -> str:
    return str(write_credentials(tmp_path / "credentials.toml"))


def told(port: int, credentials: str, trusted: dict[str, str], **more: str) -> dict[str, str]:
    return {"hosts": f"127.0.0.1:{port}", "credentials": credentials, **trusted, **more}


def test_reads_the_newest_resource_that_a_real_mock_server_has(tmp_path: Path, credentials: str) -> None:
    """And follows it: sushy-static reads its files at each request."""
    made = redfish_tree.tree()
    folder = redfish_tree.write_tree(made, tmp_path / "mockup")
    with sushy_static(tmp_path, folder) as (port, trusted):
        with opened("redfish", told(port, credentials, trusted)) as driver:
            power, energy = driver.groups[0].channels
            assert (power.scope, power.model, power.unit) == ("node", "Made 9680", "W")
            assert (power.update_period_s, power.window_s) == (0.5, 1.0)  # of the sensor that it is a copy of
            assert power.accuracy is not None and power.accuracy.reading_fraction == 0.02
            rows, failures = collect(driver.groups[0], 2)
            assert rows[1].values == (400.5, 1_234_567_000) and not failures
            assert energy.kind == "counter" and rows[1].values[1] * energy.scale == pytest.approx(1234.567 * 3.6e6)
            made[ENVIRONMENT]["PowerWatts"]["Reading"] = 512.25
            made[ENVIRONMENT]["EnergykWh"]["Reading"] = None
            redfish_tree.write_tree(made, folder)
            rows, _ = collect(driver.groups[0], 3)
            assert rows[2].values[0] == 512.25 and rows[2].statuses == bytes((Status.NEW, Status.MISSING))
        del made[redfish_tree.CHASSIS]["EnvironmentMetrics"]
        redfish_tree.write_tree(made, folder)
        with opened("redfish", told(port, credentials, trusted)) as driver:
            rows, _ = collect(driver.groups[0], 3)
            assert rows[0].values == (401.5,)
            assert rows[1].statuses == bytes((Status.STALE,))  # the same ReadingTime
        made[SENSOR]["ReadingUnits"] = "BTU"
        redfish_tree.write_tree(made, folder)
        with opened("redfish", told(port, credentials, trusted)) as driver:
            rows, _ = collect(driver.groups[0], 1)
            assert rows[0].values == (402.0,)
            assert "PowerControl 0 'System Power Control'" in driver.groups[0].channels[0].description
        made[POWER]["PowerControl"] = made[POWER]["PowerControl"][1:]
        redfish_tree.write_tree(made, folder)
        answer = refused("redfish", told(port, credentials, trusted))
        assert "no power of its machine; chassis: 1" in answer.reason and "ipmi" in answer.fix


def test_one_energy_counter_is_read_and_never_the_other(tmp_path: Path, credentials: str) -> None:
    """They count from different days: the step between them is no energy."""
    made = redfish_tree.tree()
    made[ENVIRONMENT]["EnergykWh"] = {"Reading": 5.0, "LifetimeReading": 1000.0}
    folder = redfish_tree.write_tree(made, tmp_path / "mockup")
    with (
        sushy_static(tmp_path, folder) as (port, trusted),
        opened("redfish", told(port, credentials, trusted)) as driver,
    ):
        assert collect(driver.groups[0], 1)[0][0].values[1] == 1_000_000_000
        made[ENVIRONMENT]["EnergykWh"]["LifetimeReading"] = None
        redfish_tree.write_tree(made, folder)
        rows, _ = collect(driver.groups[0], 3)
        assert rows[2].statuses == bytes((Status.NEW, Status.MISSING))


@pytest.mark.parametrize("location", ["", "https://bmc.example", "http://10.0.0.1:80"])
def test_a_session_is_given_back_however_it_is_called(tmp_path: Path, credentials: str, location: str) -> None:
    """The BMC has room for one."""
    options = {"parts": "environment", "room": 1} | ({"location": location} if location else {})
    with redfish_bmcs(tmp_path, **options) as (port, trusted):
        for _ in range(3):
            with opened("redfish", told(port, credentials, trusted)) as driver:
                assert collect(driver.groups[0], 1)[0]


def test_a_bmc_that_opens_no_session_is_not_asked_for_one_each_second(tmp_path: Path, credentials: str) -> None:
    with (
        redfish_bmcs(tmp_path, parts="environment", energy=0, expire=8, logins=1) as (port, trusted),
        opened("redfish", told(port, credentials, trusted)) as driver,
    ):
        rows, failures = collect(driver.groups[0], 60)
        assert rows and len(failures) > 40 and "opens no session (HTTP 503)" in failures[0]
        (log,) = tmp_path.glob("redfish-*.log")
        assert log.read_text().count("login") <= 6


def test_a_bmc_that_is_down_at_first_comes_in_late(tmp_path: Path, credentials: str) -> None:
    """As power alone: whether it counts energy, too, was not known when the channels were."""
    ca, certificate, key = make_certificates(tmp_path)
    with redfish_bmcs(tmp_path, base=350, swing=0) as (port, _):
        late = free_ports(1, socket.SOCK_STREAM)
        settings = {"hosts": f"127.0.0.1:{late},127.0.0.1:{port}", "credentials": credentials, "ca": str(ca)}
        with opened("redfish", settings) as driver:
            (note,) = driver.notes
            assert "cannot be reached" in note.reason and "it is asked again" in note.reason
            group, other = driver.groups
            assert [len(one.channels) for one in (group, other)] == [1, 2]
            assert "cannot be reached" in collect(group, 1)[1][0]
            assert collect(other, 1)[0][0].values[0] == 350.0
            command = [
                sys.executable,
                "redfish_bmcs.py",
                "1",
                str(late),
                str(certificate),
                str(key),
                "base=444",
                "swing=0",
            ]
            with running(command, tmp_path / "late.log"):
                rows, _ = collect(group, 1)
                while not rows:
                    rows, _ = collect(group, 1)
                assert rows[0].values == (444.0,)


def test_follows_the_sensor_and_tells_old_values_from_new(tmp_path: Path, credentials: str) -> None:
    sensor = MeteredPower(base=500, swing=200, period=2.0, window=0.25, update=0.5)
    options = {"base": 500, "swing": 200, "period": 2.0, "window": 0.25, "update": 0.5, "energy": 0}
    with (
        redfish_bmcs(tmp_path, **options) as (port, trusted),
        opened("redfish", told(port, credentials, trusted)) as driver,
    ):
        rows, failures = collect(driver.groups[0], 200)
    assert not failures
    new = [row for row in rows if row.statuses is None]
    assert len(new) <= len({sensor.updated(row.t_ns * 1e-9) for row in rows}) + 2
    for row in rows:
        begin, end = (row.t_ns - row.read_ns) * 1e-9, (row.t_ns + row.read_ns) * 1e-9
        assert min(abs(row.values[0] - sensor.shown(t)) for t in (begin, end)) <= 0.05 + 1e-6


def test_the_energy_counter_and_the_power_agree(tmp_path: Path, credentials: str) -> None:
    with (
        redfish_bmcs(tmp_path, base=36000, swing=0) as (port, trusted),
        opened("redfish", told(port, credentials, trusted)) as driver,
    ):
        rows, _ = collect(driver.groups[0], 100)
        scale = driver.groups[0].channels[1].scale
    joules = (rows[-1].values[1] - rows[0].values[1]) * scale
    seconds = (rows[-1].t_ns - rows[0].t_ns) * 1e-9
    slack_s = (rows[0].read_ns + rows[-1].read_ns) * 1e-9
    assert abs(joules - 36000 * seconds) <= 36000 * slack_s + 2 * 3.6


@pytest.mark.parametrize("faults", [{"garbage": 7}, {"cut": 7}, {"close": 2}, {"expire": 9}, {"sessions": 0}])
def test_what_goes_wrong_is_missing_or_mended_and_never_a_wrong_value(
    tmp_path: Path, credentials: str, faults: dict[str, int]
) -> None:
    with (
        redfish_bmcs(tmp_path, base=350, swing=0, parts="environment", energy=0, **faults) as (port, trusted),
        opened("redfish", told(port, credentials, trusted, timeout_s="1")) as driver,
    ):
        rows, failures = collect(driver.groups[0], 25)
    assert {row.values for row in rows} == {(350.0,)}
    if "garbage" in faults or "cut" in faults:
        assert failures and all("127.0.0.1" in failure for failure in failures)
    else:
        assert not failures


def test_slow_and_fragmented_answers_come_through_or_time_out(tmp_path: Path, credentials: str) -> None:
    fragments = {"fragment": 0.0001, "parts": "environment", "energy": 0, "swing": 0}
    with (
        redfish_bmcs(tmp_path, **fragments) as (port, trusted),
        opened("redfish", told(port, credentials, trusted)) as driver,
    ):
        rows, failures = collect(driver.groups[0], 2)
        assert rows[1].values == (400.0,) and rows[1].read_ns > 1_000_000 and not failures
    with redfish_bmcs(tmp_path, slow=0.3) as (port, trusted):
        late = refused("redfish", told(port, credentials, trusted, timeout_s="0.1"))
        assert "no answer from 127.0.0.1" in late.reason


def test_a_slow_bmc_holds_up_no_reading(tmp_path: Path, credentials: str) -> None:
    """A read hands over at once; what is under way comes with a later one."""
    with (
        redfish_bmcs(tmp_path, parts="environment", energy=0, slow=0.15) as (port, trusted),
        opened("redfish", told(port, credentials, trusted)) as driver,
    ):
        collect(driver.groups[0], 1)
        assert driver.groups[0].read() == ()
        assert driver.groups[0].read() == ()
        rows, _ = collect(driver.groups[0], 1)
        assert rows[0].read_ns >= 150_000_000


def test_certificates_are_verified(tmp_path: Path, credentials: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with redfish_bmcs(tmp_path) as (port, trusted):
        unknown = refused("redfish", told(port, credentials, {}))
        assert "certificate is not trusted" in unknown.reason and "redfish.ca=" in unknown.fix
        named = told(port, credentials, trusted) | {"hosts": f"localhost:{port}"}  # the certificate is for 127.0.0.1
        assert "certificate is not trusted" in refused("redfish", named).reason
        empty = other / "ca.pem"
        empty.write_text("none")
        assert "holds no certificate" in refused("redfish", told(port, credentials, {"ca": str(empty)})).reason
        lost = refused("redfish", told(port, credentials, {"ca": str(other / "no.pem")}))
        assert "No such file" in lost.reason


def test_refusals_say_what_to_do(tmp_path: Path, credentials: str) -> None:
    wrong = str(write_credentials(tmp_path / "wrong.toml", user="monitor", password="canary"))
    with redfish_bmcs(tmp_path) as (port, trusted):
        denied = refused("redfish", told(port, wrong, trusted))
        assert "does not let this user in" in denied.reason and "locks the user out" in denied.fix
        lost = refused("redfish", told(port, credentials, trusted, chassis="7"))
        assert "none of that name" in lost.reason
    assert "cannot be reached" in refused("redfish", told(port, credentials, trusted)).reason
    with redfish_bmcs(tmp_path, parts="") as (port, trusted):
        assert "no power of its machine" in refused("redfish", told(port, credentials, trusted)).reason
    with redfish_bmcs(tmp_path, status=503) as (port, trusted):
        assert "answers HTTP 503" in refused("redfish", told(port, credentials, trusted)).reason
    with redfish_bmcs(tmp_path, mute_after=1) as (port, trusted):
        silent = refused("redfish", told(port, credentials, trusted, timeout_s="0.2"))
        assert "no answer from 127.0.0.1" in silent.reason and "curl" in silent.fix
