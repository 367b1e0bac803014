"""Which devices a driver is told to poll: addresses, or a file with many."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.contract import DriverOptions, Unavailable
from drivers.host_list import Host, read_hosts


def hosts(text: str, instance: str = "", **more: str) -> list[Host]:
    return read_hosts("redfish", DriverOptions(settings={"hosts": text, **more}, instance=instance), ("ca",), 443)


def test_addresses() -> None:
    assert hosts("10.0.0.17") == [Host("node", "10.0.0.17", 443, {})]
    assert hosts("bmc17.lan:8443", "rack1")[0] == Host("rack1", "bmc17.lan", 8443, {})
    assert [(h.name, h.address, h.port) for h in hosts("10.0.0.1, [fe80::1]:9, ::1")] == [
        ("10-0-0-1", "10.0.0.1", 443),
        ("-fe80--1--9", "fe80::1", 9),
        ("--1", "::1", 443),
    ]


@pytest.mark.parametrize("text", ["", "a b", "10.0.0.1:0", "10.0.0.1:99999", "http://x", "10.0.0.1,,", "-x", "[x]:1:2"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(Unavailable):
        hosts(text)


def test_one_device_is_polled_once() -> None:
    """Else its joules were counted twice."""
    for text, told in (("10.0.0.1, 10.0.0.1", "both be called"), ("10.0.0.1:443, 10.0.0.1", "one device")):
        with pytest.raises(Unavailable, match=told):
            hosts(text)
    assert len(hosts("bmc.a, bmc-b")) == 2
    with pytest.raises(Unavailable, match=r"bmc\.a and bmc-a would both be called bmc-a"):
        hosts("bmc.a, bmc-a")


def test_parts_of_one_device_may_be_polled_apart(tmp_path: Path) -> None:
    path = tmp_path / "rack.toml"
    table = '[hosts.{0}]\naddress = "10.0.0.1"\nchassis = "{0}"\n'
    path.write_text(table.format("blade1") + table.format("blade2"))
    options = DriverOptions(settings={"hosts": str(path)})
    assert [host.name for host in read_hosts("redfish", options, ("chassis",), 443)] == ["blade1", "blade2"]


def test_a_file_with_many(tmp_path: Path) -> None:
    path = tmp_path / "rack.toml"
    path.write_text(
        'credentials = "all.toml"\ntimeout_s = 3\n'
        '[hosts.node1]\naddress = "10.0.0.1"\n'
        '[hosts.node2]\naddress = "10.0.0.2:8443"\ncredentials = "env:NODE2"\n'
        'accuracy_percent = 1.5\nca = "/etc/ca.pem"\n'
    )
    first, second = hosts(str(path), ca="given.pem")
    assert (first.name, first.settings) == (
        "node1",
        {"ca": "given.pem", "credentials": str(tmp_path / "all.toml"), "timeout_s": "3"},
    )
    assert first.timeout_s == 3.0 and second.port == 8443
    assert second.settings["credentials"] == "env:NODE2" and second.settings["ca"] == "/etc/ca.pem"
    assert second.accuracy(5.0, 0.5, "assumed").reading_fraction == 0.015
    assert first.accuracy(5.0, 0.5, "assumed").reading_fraction == 0.05


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hosts = 1", "names no hosts"),
        ("[hosts]", "names no hosts"),
        ("[hosts.'a b']\naddress = '1.1.1.1'", "is no host"),
        ("[hosts.a]\nadress = '1.1.1.1'", "is no host"),
        ("[hosts.a]\naddress = '1.1.1.1'\npassword = 'canary'", "'password'"),
        ("pasword = 'canary'\n[hosts.a]\naddress = '1.1.1.1'", "'pasword'"),
        ("[hosts.a]\naddress = '1.1.1.1'\nca = [1]", "neither a text nor a number"),
        ("[hosts.a]\naddress = '1.1.1.1'\ntimeout_s = 'long'", "not a number"),
        ("[hosts.a\n", "no TOML file"),
        ("[hosts.a]\naddress = '1.1.1.1'\n[hosts.b]\naddress = '1.1.1.1:443'\ntimeout_s = 9", "b and a are one device"),
    ],
)
def test_files_with_mistakes(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "rack.toml"
    path.write_text(text)
    with pytest.raises(Unavailable) as caught:
        hosts(str(path))
    assert told in caught.value.reason and "canary" not in caught.value.reason + caught.value.fix


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_addresses_or_refused(text: str) -> None:
    try:
        found = hosts(text)
    except Unavailable:
        return
    assert all(host.address and 0 < host.port < 65536 for host in found)
