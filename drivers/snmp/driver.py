"""Driver `snmp`: PDUs and other devices that tell power through SNMP.

See docs/devices/snmp-pdu.md for which are known and what their figures mean.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from drivers.contract import DriverOptions, ReadFailed, Row, Unavailable
from drivers.credentials import Credentials, read_credentials
from drivers.host_list import Host, read_hosts
from drivers.polled_driver import PolledDriver
from drivers.polling import Opening, PolledGroup, Poller
from drivers.snmp import apc, entity_sensor, raritan
from drivers.snmp.metrics import Metric, wanted_outlets

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

    async def connect(self) -> None:
        """Find out what kind of device it is and what it tells.

        Raises:
            Unavailable: it does not answer, or tells no power.
        """
        await self._client.connect()
        if self.metrics:  # again, after it was lost
            return
        wanted_outlets(self._host)
        try:
            for _, kind in _KINDS:
                model = (await self._client.get([kind.MODEL]))[kind.MODEL]
                name = model[:64] if isinstance(model, str) else ""
                self.metrics = await kind.find_metrics(self._host, self._client.walk, name)
                if self.metrics:
                    return
        except ReadFailed as error:
            raise Unavailable(str(error), _FIX_SILENT) from None
        known = ", ".join(name for name, _ in _KINDS)
        reason = f"{self._host.address} answers, but tells no power in a way that is known ({known})"
        raise Unavailable(reason, _FIX.format(self._host.address))

    async def poll(self) -> Row:
        """See `Source`."""
        oids = list(dict.fromkeys(oid for metric in self.metrics for oid in metric.oids))
        begin_ns = self._clock_ns()
        answers = await self._client.get(oids)
        end_ns = self._clock_ns()
        judged = [metric.judge(answers) for metric in self.metrics]
        statuses = bytes(status for _, status in judged)
        values = [value for value, _ in judged]
        return Row((begin_ns + end_ns) // 2, end_ns - begin_ns, values, statuses if any(statuses) else None)

    async def close(self) -> None:
        """See `Source`; SNMP has no sessions."""


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
        try:
            from pysnmp.hlapi.v3arch.asyncio import SnmpEngine

            from drivers.snmp.client import SECRETS, Client
        except ImportError as error:
            fix = "pip install 'ml-power-agent[snmp]'"
            raise Unavailable(f"the Python package {error.name} is not installed", fix) from None
        engines: dict[str, SnmpEngine] = {}  # of v3 one for each credentials: it knows one password for a user's name

        async def open_one(host: Host, credentials: Credentials) -> PolledGroup:
            key = credentials.place if "user" in credentials else ""
            if key not in engines:  # it belongs to the poller's loop
                engines[key] = SnmpEngine()
            source = SnmpSource(host, Client(host, credentials, engines[key]), options.clock_ns)
            await source.connect()
            channels = [metric.channel for metric in source.metrics]
            return PolledGroup(host.name, channels, source, options.clock_ns)

        opening: list[Opening] = []
        for host in hosts:
            credentials = read_credentials(cls.name, host.settings.get("credentials"), SECRETS)
            opening.append((host.name, partial(open_one, host, credentials)))
        return cls(*Poller.start(cls.name, opening))
