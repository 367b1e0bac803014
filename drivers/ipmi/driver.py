"""Driver `ipmi`: the power of a machine as its BMC tells it by DCMI, from within it or over the LAN.

See docs/devices/ipmi.md for what the figure means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from drivers.contract import Channel, DriverOptions, Unavailable
from drivers.credentials import read_credentials
from drivers.host_list import COMMON, OWN, Host, read_hosts
from drivers.polled_driver import PolledDriver
from drivers.settings import check_known

if TYPE_CHECKING:  # a machine without a BMC need not load what talks with one
    from drivers.ipmi.source import Link
    from drivers.polling import Opening

PORT = 623
IN_BAND_DEVICES = ("dev/ipmi0", "dev/ipmi/0", "dev/ipmidev/0")
# No maker states a figure for DCMI's reading in general; what the sensors of supplies are specified to is 1 to 5 %.
_PERCENT = 5.0
_ACCURACY = "assumed ± 5 %, as no maker states one for DCMI, and half of its step of 1 W"
_WHY = "DCMI Get Power Reading, current power; whether it is an instant or a filtered value, the BMC does not say"
_FIX_MODULE = "sudo modprobe ipmi_si ipmi_devintf; a virtual machine has no BMC; for other machines' set ipmi.hosts"


class IpmiDriver(PolledDriver):
    """This machine's BMC, or those that the setting `hosts` names."""

    name: ClassVar[str] = "ipmi"

    @classmethod
    def open(cls, options: DriverOptions) -> IpmiDriver:
        """Open a session with each BMC and take a first reading.

        Raises:
            Unavailable: there is none that gives power.
        """
        check_known(cls.name, options.settings, COMMON)
        opening = _lan(options) if options.settings.get("hosts") else [_own(options)]
        from drivers.polling import Poller

        return cls(*Poller.start(cls.name, opening, options.clock_ns))


def _own(options: DriverOptions) -> Opening:
    paths = [options.root / device for device in IN_BAND_DEVICES]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise Unavailable(f"there is no {paths[0]}: no BMC, or its driver is not loaded", _FIX_MODULE)
    from drivers.ipmi.in_band import InBandLink

    host = Host(OWN, "", 0, options.settings)
    return _opening(host, InBandLink(path, host.timeout_s), options)


def _lan(options: DriverOptions) -> list[Opening]:
    try:
        from drivers.ipmi.lan import SECRETS, LanLink
        from drivers.udp import Sockets
    except ImportError as error:
        fix = "pip install 'ml-power-agent[bmc]'"
        raise Unavailable(f"the Python package {error.name} is not installed", fix) from None
    sockets = Sockets()
    opening: list[Opening] = []
    for host in read_hosts(IpmiDriver.name, options, (), PORT):
        credentials = read_credentials(IpmiDriver.name, host.settings.get("credentials"), SECRETS)
        opening.append(_opening(host, LanLink(host, credentials, sockets), options))
    return opening


def _opening(host: Host, link: Link, options: DriverOptions) -> Opening:
    from drivers.ipmi.source import DcmiSource
    from drivers.polling import Opening

    channel = Channel(
        name=f"ipmi/{host.name}/power",
        device=host.name,
        quantity="power",
        unit="W",
        kind="gauge",
        scope="node",
        accuracy=host.accuracy(_PERCENT, 0.5, _ACCURACY),
        description=_WHY,
    )

    def channels() -> list[Channel]:  # any BMC that has DCMI tells this
        return [channel]

    return Opening(host.name, DcmiSource(link, options.clock_ns), channels, channels)
