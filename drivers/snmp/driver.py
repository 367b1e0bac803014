"""Driver `snmp`: PDUs and other devices that tell power through SNMP.

See docs/devices/snmp-pdu.md for which are known and what their figures mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from drivers.contract import Channel, DriverOptions, ReadFailed, Row, Unavailable
from drivers.credentials import read_credentials
from drivers.host_list import Host, read_hosts
from drivers.polled_driver import PolledDriver
from drivers.polling import LinkLost, NotReached, Opening, Poller
from drivers.snmp import apc, entity_sensor, raritan
from drivers.snmp.ber import Oid
from drivers.snmp.metrics import Metric, wanted_outlets
from drivers.udp import Sockets

if TYPE_CHECKING:
    from drivers.snmp.client import Client

PORT = 161
_SETTINGS = ("outlets",)
_KINDS = (("APC", apc), ("Raritan", raritan), ("ENTITY-SENSOR", entity_sensor))
_FIX = "see what it has: snmpwalk -v2c -c … {} 1.3.6.1.4.1; tell the project of PDUs that are not known yet"
_FIX_SILENT = "see whether SNMP is enabled there and its access list lets this machine in; correct the credentials"


class SnmpSource:
    """The numbers of one device."""

    def __init__(self, host: Host, client: Client, clock_ns: Callable[[], int]) -> None:
        self._host = host
        self._client = client
        self._clock_ns = clock_ns
        self.metrics: list[Metric] = []
        self._oids: list[Oid] = []

    async def connect(self) -> None:
        """Find out what kind of device it is and what it tells.

        Raises:
            NotReached, Unavailable: it does not answer, or refuses, or tells no power.
        """
        wanted_outlets(self._host)
        try:
            await self._client.connect()
            if self.metrics:  # again, after it was lost
                return
            for _, kind in _KINDS:
                model = (await self._client.get([kind.MODEL]))[kind.MODEL]
                name = model[:64] if isinstance(model, str) else ""
                self.metrics = await kind.find_metrics(self._host, self._client.walk, name)
                if self.metrics:
                    self._oids = list(dict.fromkeys(oid for metric in self.metrics for oid in metric.oids))
                    return
        except ReadFailed as error:
            failure = Unavailable if isinstance(error, LinkLost) else NotReached
            raise failure(str(error), _FIX_SILENT) from None
        known = ", ".join(name for name, _ in _KINDS)
        reason = f"{self._host.address} answers, but tells no power in a way that is known ({known})"
        raise Unavailable(reason, _FIX.format(self._host.address))

    def channels(self) -> list[Channel]:
        """What it tells, once it is connected."""
        return [metric.channel for metric in self.metrics]

    async def poll(self) -> Row:
        """See `Source`."""
        begin_ns = self._clock_ns()
        answers = await self._client.get(self._oids)
        end_ns = self._clock_ns()
        judged = [metric.judge(answers) for metric in self.metrics]
        statuses = bytes(status for _, status in judged)
        values = [value for value, _ in judged]
        return Row((begin_ns + end_ns) // 2, end_ns - begin_ns, values, statuses if any(statuses) else None)

    async def close(self) -> None:
        """See `Source`."""
        self._client.close()


class SnmpDriver(PolledDriver):
    """The devices that the setting `hosts` names."""

    name: ClassVar[str] = "snmp"

    @classmethod
    def open(cls, options: DriverOptions) -> SnmpDriver:
        """Find out what each device tells.

        Raises:
            Unavailable: not one tells any power.
        """
        hosts = read_hosts(cls.name, options, _SETTINGS, PORT)
        from drivers.snmp.client import SECRETS, Client

        sockets = Sockets()
        opening: list[Opening] = []
        for host in hosts:
            credentials = read_credentials(cls.name, host.settings.get("credentials"), SECRETS)
            try:
                client = Client(host, credentials, sockets)
            except ImportError as error:
                fix = "pip install 'ml-power-agent[snmp]'"
                raise Unavailable(f"the Python package {error.name} is not installed", fix) from None
            source = SnmpSource(host, client, options.clock_ns)
            opening.append(Opening(host.name, source, source.channels))
        return cls(*Poller.start(cls.name, opening, options.clock_ns))
