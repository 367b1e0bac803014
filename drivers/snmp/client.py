"""SNMP v2c and v3 to one device, by pysnmp: its engine serves all devices of a driver."""

from __future__ import annotations

from typing import Any

from pysnmp.hlapi.v3arch import asyncio as snmp
from pysnmp.proto import rfc1902, rfc1905

from drivers.contract import ReadFailed, Unavailable
from drivers.credentials import Credentials
from drivers.host_list import Host
from drivers.snmp.metrics import Oid, Table

SECRETS = ("community", "user", "auth_password", "privacy_password", "auth_protocol", "privacy_protocol")
_AUTH = {
    "SHA": snmp.USM_AUTH_HMAC96_SHA,
    "SHA224": snmp.USM_AUTH_HMAC128_SHA224,
    "SHA256": snmp.USM_AUTH_HMAC192_SHA256,
    "SHA384": snmp.USM_AUTH_HMAC256_SHA384,
    "SHA512": snmp.USM_AUTH_HMAC384_SHA512,
}
_PRIVACY = {
    "AES128": snmp.USM_PRIV_CFB128_AES,
    "AES192": snmp.USM_PRIV_CFB192_AES,
    "AES256": snmp.USM_PRIV_CFB256_AES,
}
_AT_ONCE = 24  # objects in a request: agents of PDUs have small buffers
_ROWS_AT_ONCE = 20
_MOST_ROWS = 4096
_LEAST_PASSWORD = 8
_INTEGERS = (
    rfc1902.Integer32,
    rfc1902.Unsigned32,
    rfc1902.Gauge32,
    rfc1902.Counter32,
    rfc1902.Counter64,
    rfc1902.TimeTicks,
)
_ABSENT = (rfc1905.NoSuchObject, rfc1905.NoSuchInstance, rfc1905.EndOfMibView)
_DENIED = frozenset(  # pysnmp's error indications
    (
        *("UnknownUserName", "WrongDigest", "DecryptionError", "AuthenticationFailure", "AuthenticationError"),
        *("UnsupportedSecurityLevel", "UnsupportedSecLevel", "UnknownSecurityName", "AuthorizationError"),
    )
)


class Client:
    """Asks one device."""

    def __init__(self, host: Host, credentials: Credentials, engine: Any) -> None:
        self._host = host
        self._engine = engine
        self._who = _who(credentials)
        self._by_community = "community" in credentials
        self._target: Any = None

    async def connect(self) -> None:
        """Find the address.

        Raises:
            Unavailable: the name means nothing.
        """
        kind = snmp.Udp6TransportTarget if ":" in self._host.address else snmp.UdpTransportTarget
        try:
            self._target = await kind.create(
                (self._host.address, self._host.port), timeout=self._host.timeout_s / 2, retries=1
            )
        except Exception as error:  # pysnmp wraps what the name server said
            raise Unavailable(f"{self._host.address} cannot be reached: {type(error).__name__}", "correct it") from None

    async def get(self, oids: list[Oid]) -> dict[Oid, int | str | None]:
        """These objects.

        Raises:
            ReadFailed: no answer, or the device refuses.
        """
        values: dict[Oid, int | str | None] = {}
        for first in range(0, len(oids), _AT_ONCE):
            asked = oids[first : first + _AT_ONCE]
            answer = await snmp.get_cmd(
                self._engine, self._who, self._target, snmp.ContextData(), *_variables(asked), lookupMib=False
            )
            pairs = self._checked(answer)
            if [oid for oid, _ in pairs] != asked:
                raise ReadFailed(f"{self._host.address} answers with other objects than were asked for")
            values.update(pairs)
        return values

    async def walk(self, column: Oid) -> Table:
        """A column of a table, by index; empty where the device has no such table.

        Raises:
            ReadFailed: no answer, or the device refuses.
        """
        rows: Table = {}
        last = column
        while len(rows) < _MOST_ROWS:
            answer = await snmp.bulk_cmd(
                self._engine,
                self._who,
                self._target,
                snmp.ContextData(),
                0,
                _ROWS_AT_ONCE,
                *_variables([last]),
                lookupMib=False,
            )
            pairs = self._checked(answer)
            if not pairs:
                break
            for oid, value in pairs:
                if oid[: len(column)] != column or oid <= last or value is None:
                    return rows
                rows[oid[len(column) :]] = value
                last = oid
        return rows

    def _checked(self, answer: Any) -> list[tuple[Oid, int | str | None]]:
        failure, status, index, variables = answer
        where = f"{self._host.address} port {self._host.port}"
        if failure is not None:
            name = type(failure).__name__
            if name in _DENIED:
                raise ReadFailed(f"{where} does not let this user in ({name})")
            if name == "RequestTimedOut":
                silent = "; to a wrong community it gives none" if self._by_community else ""
                raise ReadFailed(f"no answer from {where} within {self._host.timeout_s:g} s{silent}")
            raise ReadFailed(f"{where}: {name}")
        if status:
            raise ReadFailed(f"{where} answers with the SNMP error {int(status)} for object {int(index)}")
        return [(tuple(name), plain(value)) for name, value in variables]


def plain(value: Any) -> int | str | None:
    """An SNMP value as a number or a text; None for what is neither, or not there."""
    if isinstance(value, _ABSENT):
        return None
    if isinstance(value, _INTEGERS):
        return int(value)
    if isinstance(value, rfc1902.OctetString):
        return bytes(value).decode("utf-8", "replace")
    return None


def _variables(oids: list[Oid]) -> list[Any]:
    return [snmp.ObjectType(snmp.ObjectIdentity(oid)) for oid in oids]


def _who(credentials: Credentials) -> Any:
    if "community" in credentials:
        return snmp.CommunityData(credentials.need("community"), mpModel=1)
    user = credentials.need("user")
    secrets = {name: credentials.need(name) for name in ("auth_password", "privacy_password")}
    for name, secret in secrets.items():
        if len(secret) < _LEAST_PASSWORD:
            raise Unavailable(
                f"{name} in {credentials.place} is shorter than {_LEAST_PASSWORD} characters", "SNMP v3 demands them"
            )
    auth = credentials.get("auth_protocol", "SHA256")
    privacy = credentials.get("privacy_protocol", "AES128")
    if auth not in _AUTH or privacy not in _PRIVACY:
        raise Unavailable(
            f"auth_protocol or privacy_protocol in {credentials.place} is unknown or too weak",
            f"use one of {', '.join(_AUTH)}, and one of {', '.join(_PRIVACY)}",
        )
    return snmp.UsmUserData(
        user,
        secrets["auth_password"],
        secrets["privacy_password"],
        authProtocol=_AUTH[auth],
        privProtocol=_PRIVACY[privacy],
    )
