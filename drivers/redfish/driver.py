"""Driver `redfish`: the power of machines as their BMCs tell it through Redfish.

See docs/devices/redfish.md for what is read and what the figure means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from drivers.contract import Accuracy, Channel, DriverOptions, ReadFailed, Row, Status, Unavailable
from drivers.credentials import read_credentials
from drivers.host_list import Host, read_hosts
from drivers.polled_driver import PolledDriver
from drivers.polling import Freshness, LinkLost, Opening, Poller
from drivers.redfish.resources import NotAsDescribed, seconds

if TYPE_CHECKING:
    from drivers.redfish.client import Client
    from drivers.redfish.discover import Found

PORT = 443
_SETTINGS = ("ca", "chassis")
_MICRO_KWH_JOULES = 3.6
# Few BMCs state a figure; what the sensors of supplies are specified to is 1 to 5 %.
_PERCENT = 5.0
_ASSUMED = "assumed ± 5 %, as the BMC states no accuracy"


class RedfishSource:
    """The power of one machine."""

    def __init__(self, host: Host, client: Client, clock_ns: Callable[[], int]) -> None:
        self._host = host
        self._client = client
        self._clock_ns = clock_ns
        self._freshness = Freshness()
        self._width: int | None = None  # channels; None: not known yet
        self._chosen: tuple[str, str] | None = None
        self.found: Found | None = None

    async def connect(self) -> None:
        """Log in and find the resource to poll.

        Raises:
            NotReached, Unavailable: there is none, or the BMC does not let us in. Who called closes.
        """
        from drivers.redfish.discover import find_power

        root = await self._client.connect()
        try:
            found = await find_power(self._client, root, self._host.settings.get("chassis"))
        except (ReadFailed, NotAsDescribed) as error:
            raise self._client.unavailable(error) from None
        if self._chosen not in (None, (found.path, found.energy)):
            raise Unavailable("the BMC offers another resource than before", "start the recording anew")
        self._chosen = (found.path, found.energy)
        self.found = found

    def channels(self) -> list[Channel]:
        """Of what was found."""
        channels = _channels(self._host, self.found)
        self._width = len(channels)
        return channels

    def absent_channels(self) -> list[Channel]:
        """Of a BMC that does not answer yet: the power that any has. What it says of itself is not known."""
        self._width = 1
        return _channels(self._host, None)

    async def poll(self) -> Row:
        """See `Source`."""
        from drivers.redfish.client import Denied

        assert self.found is not None
        begin_ns = self._clock_ns()
        try:
            raw = await self._client.get(self.found.path)
        except Denied:  # the session has ended
            begin_ns, raw = await self._get_anew(self.found.path)
        end_ns = self._clock_ns()
        try:
            values, statuses, stamp = self.found.understand(raw)
        except NotAsDescribed as error:
            raise ReadFailed(f"the answer of {self._host.address} makes no sense: {error}") from None
        if not any(statuses) and self._freshness.judge(stamp, values) is Status.STALE:
            statuses = [Status.STALE] * len(values)
        values, statuses = values[: self._width], statuses[: self._width]
        return Row((begin_ns + end_ns) // 2, end_ns - begin_ns, values, bytes(statuses) if any(statuses) else None)

    async def _get_anew(self, path: str) -> tuple[int, bytes]:
        """When it was asked after a new login, and the answer. What fails then is tried again after a pause alone."""
        try:
            await self._client.log_in()
            begin_ns = self._clock_ns()
            return begin_ns, await self._client.get(path)
        except ReadFailed as error:
            raise LinkLost(str(error)) from None

    async def close(self) -> None:
        """See `Source`."""
        await self._client.close()


class RedfishDriver(PolledDriver):
    """The machines whose BMCs the setting `hosts` names."""

    name: ClassVar[str] = "redfish"

    @classmethod
    def open(cls, options: DriverOptions) -> RedfishDriver:
        """Log in to each BMC and find its power.

        Raises:
            Unavailable: not one gives any.
        """
        hosts = read_hosts(cls.name, options, _SETTINGS, PORT)
        try:
            from drivers.redfish.client import SECRETS, Client, trust
        except ImportError as error:
            fix = "pip install 'ml-power-agent[bmc]'"
            raise Unavailable(f"the Python package {error.name} is not installed", fix) from None
        opening: list[Opening] = []
        trusted = {ca: trust(ca) for ca in {host.settings.get("ca") for host in hosts}}
        for host in hosts:
            credentials = read_credentials(cls.name, host.settings.get("credentials"), SECRETS)
            client = Client(host, credentials, trusted[host.settings.get("ca")])
            source = RedfishSource(host, client, options.clock_ns)
            opening.append(Opening(host.name, source, source.channels, source.absent_channels))
        return cls(*Poller.start(cls.name, opening, options.clock_ns))


def _channels(host: Host, found: Found | None) -> list[Channel]:
    """`found` is None where the BMC does not answer yet."""
    sensor = found.sensor if found is not None else None
    accuracy = host.accuracy(_PERCENT, 0.0, _ASSUMED)
    if sensor is not None and sensor.accuracy_percent is not None and 0 < sensor.accuracy_percent < 100:
        stated = Accuracy(reading_fraction=sensor.accuracy_percent / 100, source="the sensor's own Accuracy")
        accuracy = stated if "accuracy_percent" not in host.settings else accuracy
    power = Channel(
        name=f"redfish/{host.name}/power",
        device=host.name,
        quantity="power",
        unit="W",
        kind="gauge",
        scope="node",
        model=found.model if found is not None else "",
        update_period_s=seconds(sensor.sensing) if sensor is not None else None,
        window_s=seconds(sensor.averaging) if sensor is not None else None,
        accuracy=accuracy,
        description=found.how if found is not None else "it did not answer when the recording began",
    )
    if found is None or not found.energy:
        return [power]
    energy = Channel(
        name=f"redfish/{host.name}/energy",
        device=host.name,
        quantity="energy",
        unit="J",
        kind="counter",
        scope="node",
        model=found.model,
        scale=_MICRO_KWH_JOULES,
        accuracy=accuracy,
        description=f"{found.how}: EnergykWh, kept in millionths of a kWh; its own step is not stated",
    )
    return [power, energy]
