"""The devices that a driver is told to poll: addresses in a setting, or a TOML file with many of them."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivers.contract import Accuracy, DriverOptions, Unavailable
from drivers.settings import check_known, read_number

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OWN = "node"  # the device of a single address without a name: this machine's own BMC, or its PDU
COMMON = ("hosts", "credentials", "timeout_s", "accuracy_percent")
_PATHS = ("credentials", "ca")  # in a file, relative to it
_HOW = ("ca", "timeout_s", "accuracy_percent")  # settings that do not say what is polled
_NAME = re.compile(r"[\w-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_MOST_HOSTS = 4096
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Host:
    """A device to poll, with the settings that hold for it."""

    name: str
    address: str
    port: int
    settings: Mapping[str, str]

    @property
    def timeout_s(self) -> float:
        return read_number(self.name, self.settings, "timeout_s", "seconds") or _TIMEOUT_S

    def accuracy(self, percent: float, absolute: float, source: str) -> Accuracy:
        """The user's figure of a share of the reading, else `percent`; half a step of the display comes on top."""
        told = read_number(self.name, self.settings, "accuracy_percent", "percent")
        if told is not None:
            percent, source = told, "the setting accuracy_percent"
        return Accuracy(reading_fraction=percent / 100, absolute=absolute, source=source)


def read_hosts(driver: str, options: DriverOptions, own_settings: Sequence[str], port: int) -> list[Host]:
    """The hosts that the setting `hosts` names: addresses with commas between them, or a file NAME.toml.

    Raises:
        Unavailable: none is named, or one is no address, or a setting is unknown.
    """
    known = (*COMMON, *own_settings)
    check_known(driver, options.settings, known)
    text = options.settings.get("hosts", "").strip()
    if not text:
        raise Unavailable(
            "it is not told which device to ask", f"set {driver}.hosts=ADDRESS, or {driver}.hosts=FILE.toml for many"
        )
    settings = {key: value for key, value in options.settings.items() if key != "hosts"}
    if text.endswith(".toml"):
        hosts = _from_file(driver, Path(text), settings, known, port)
    else:
        addresses = [part.strip() for part in text.split(",")]
        names = [re.sub(r"[^\w-]", "-", address) for address in addresses]
        if len(addresses) == 1:
            names = [options.instance or OWN]
        hosts = [_host(name, part, settings, port) for name, part in zip(names, addresses, strict=True)]
    for host in hosts:
        read_number(host.name, host.settings, "timeout_s", "seconds")
        read_number(host.name, host.settings, "accuracy_percent", "percent")
    _refuse_twins(hosts)
    return hosts


def _refuse_twins(hosts: Sequence[Host]) -> None:
    """What is polled twice would be counted twice. Raises Unavailable."""
    by_name: dict[str, Host] = {}
    by_place: dict[tuple[object, ...], Host] = {}
    for host in hosts:
        what = sorted((key, value) for key, value in host.settings.items() if key not in _HOW)
        if host.name in by_name:
            other = by_name[host.name]
            raise Unavailable(
                f"{other.address} and {host.address} would both be called {host.name}",
                "give each a name of its own in a file: [hosts.NAME]",
            )
        other = by_place.setdefault((host.address.lower(), host.port, *what), host)
        if other is not host:
            raise Unavailable(
                f"{host.name} and {other.name} are one device, {host.address} port {host.port}, and would be counted "
                "twice",
                "leave one of them out",
            )
        by_name[host.name] = host


def _from_file(driver: str, path: Path, settings: Mapping[str, str], known: Sequence[str], port: int) -> list[Host]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", "name a file that is there") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Unavailable(f"{path} is no TOML file: {error}", "see docs/devices/redfish.md for one") from None
    tables = content.pop("hosts", None)
    if not isinstance(tables, dict) or not tables or len(tables) > _MOST_HOSTS:
        raise Unavailable(
            f"{path} names no hosts, or more than {_MOST_HOSTS}", 'write for each: [hosts.NAME], then address = "…"'
        )
    common = {**settings, **_texts(driver, path, content, known)}
    hosts = []
    for name, table in tables.items():
        if not _NAME.fullmatch(name) or not isinstance(table, dict) or not isinstance(table.get("address"), str):
            raise Unavailable(f"{path}: hosts.{name} is no host", 'write: [hosts.node17], then address = "10.0.0.17"')
        own = {key: value for key, value in table.items() if key != "address"}
        hosts.append(_host(name, table["address"], {**common, **_texts(driver, path, own, known)}, port))
    return hosts


def _texts(driver: str, path: Path, values: Mapping[str, object], known: Sequence[str]) -> dict[str, str]:
    """Settings of a file as --set would give them."""
    texts: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            value = ",".join(f"{name}={of}" for name, of in value.items())
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Unavailable(f"{path}: {key} is neither a text nor a number", "see docs/devices for the settings")
        relative = key in _PATHS and not str(value).startswith("env:")
        texts[key] = str(path.parent / str(value)) if relative else str(value)
    check_known(driver, texts, [key for key in known if key != "hosts"])
    return texts


def _host(name: str, address: str, settings: Mapping[str, str], port: int) -> Host:
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?|(.*:.*:.*)", address)
    host = (found[1] or found[2] or found[4] or "") if found else ""
    number = int(found[3]) if found and found[3] else port
    if not (_HOST.fullmatch(host) or _is_ip(host)) or not 0 < number < 65536:
        raise Unavailable(f"{address!r} is no address", "give a name or an IP address, or ADDRESS:PORT")
    return Host(name, host, number, settings)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
