"""HTTPS to one BMC: verified, logged in, one connection that stays open, and no answer longer than a bound."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from drivers.contract import ReadFailed, Unavailable
from drivers.credentials import Credentials
from drivers.host_list import Host
from drivers.polling import LinkLost, NotReached
from drivers.redfish.resources import NotAsDescribed, Root, parse

SECRETS = ("user", "password")
ROOT = "/redfish/v1/"
_SESSIONS = "/redfish/v1/SessionService/Sessions"
_MOST_BYTES = 4 << 20
_CLOSE_S = 1.0
_NO_SESSIONS = frozenset((404, 405, 501))


class Denied(ReadFailed):
    """The BMC does not let this user in."""


class NotThere(ReadFailed):
    """The BMC has no such resource."""


class Untrusted(LinkLost):
    """Nobody we trust vouches for the BMC's certificate."""


class Client:
    """Asks one BMC. Its certificate is always checked."""

    def __init__(self, host: Host, credentials: Credentials, tls: ssl.SSLContext) -> None:
        self._host = host
        self._user = credentials.need("user")
        self._password = credentials.need("password")
        self._base = f"https://{f'[{host.address}]' if ':' in host.address else host.address}:{host.port}"
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._headers: dict[str, str] = {}
        self._sessions = _SESSIONS
        self._login: str | None = None  # of our session, to end it

    async def connect(self) -> Root:
        """Connect and log in; what the BMC offers.

        Raises:
            NotReached, Unavailable: that failed. Who called closes.
        """
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=self._tls, keepalive_timeout=120),
            timeout=aiohttp.ClientTimeout(total=self._host.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "OData-Version": "4.0"},
        )
        try:
            root = parse(await self.get(ROOT), Root)
            if root.links is not None and root.links.sessions is not None:
                self._sessions = root.links.sessions.uri
            await self.log_in()
        except (ReadFailed, NotAsDescribed) as error:
            raise self.unavailable(error) from None
        return root

    def unavailable(self, error: ReadFailed | NotAsDescribed) -> Unavailable:
        """A failure while connecting for the person who reads it, and whether it may pass by itself."""
        if isinstance(error, Denied):
            return Unavailable(
                str(error), "correct the credentials before the BMC locks the user out; the role ReadOnly suffices"
            )
        if isinstance(error, Untrusted):
            fix = f"set redfish.ca=FILE.pem, with the CA or the certificate that the BMC at {self._host.address} has"
            return Unavailable(str(error), fix)
        passes = isinstance(error, ReadFailed) and not isinstance(error, NotThere)
        fix = f"see whether the BMC answers: curl --head {self._base}{ROOT}"
        return (NotReached if passes else Unavailable)(str(error), fix)

    async def get(self, path: str) -> bytes:
        """A resource, as JSON.

        Raises:
            Denied, NotThere, LinkLost, ReadFailed: what went wrong.
        """
        status, _, raw = await self._send("GET", path)
        if status == 200:
            return raw
        if status in (401, 403):
            raise Denied(f"the BMC at {self._host.address} does not let this user in (HTTP {status})")
        if status in (404, 410):
            raise NotThere(f"the BMC at {self._host.address} has no {path} (HTTP {status})")
        raise ReadFailed(f"the BMC at {self._host.address} answers HTTP {status} for {path}")

    async def close(self) -> None:
        """End our session at the BMC, which has room for few, and disconnect."""
        await self._log_out()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def log_in(self) -> None:
        """Open a session, or where the BMC has none, send the password with each request.

        Raises:
            Denied, LinkLost, ReadFailed: what went wrong.
        """
        await self._log_out()  # a session that does not let us in any more may still take a place
        body = {"UserName": self._user, "Password": self._password}
        status, headers, _ = await self._send("POST", self._sessions, body)
        token = headers.get("X-Auth-Token")
        if status in (200, 201) and token:
            self._headers = {"X-Auth-Token": token}
            self._login = _path(headers.get("Location", ""))
        elif status in _NO_SESSIONS or status // 100 == 2:
            self._headers = {"Authorization": _basic(self._user, self._password)}
        elif status in (400, 401, 403):
            raise Denied(f"the BMC at {self._host.address} does not let this user in (HTTP {status})")
        else:
            raise ReadFailed(f"the BMC at {self._host.address} opens no session (HTTP {status}); it may have too many")

    async def _log_out(self) -> None:
        login, self._login = self._login, None
        if login is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._send("DELETE", login), _CLOSE_S)
        self._headers = {}

    async def _send(self, method: str, path: str, body: dict[str, str] | None = None) -> tuple[int, Any, bytes]:
        session = self._session
        if session is None:
            raise LinkLost(f"there is no connection with {self._host.address}")
        if not path.startswith("/"):
            raise ReadFailed(f"the BMC at {self._host.address} points to {path[:80]!r}, which is no path")
        where = f"{self._host.address} port {self._host.port}"
        try:
            async with session.request(
                method, self._base + path, json=body, headers=self._headers, allow_redirects=False
            ) as answer:
                raw = await answer.content.read(_MOST_BYTES)
                while not answer.content.at_eof():
                    raw += await answer.content.read(_MOST_BYTES)
                    if len(raw) > _MOST_BYTES:
                        answer.close()
                        raise ReadFailed(f"{where}: the answer is longer than {_MOST_BYTES >> 20} MiB")
                return answer.status, answer.headers, raw
        except asyncio.TimeoutError:
            raise LinkLost(f"no answer from {where} within {self._host.timeout_s:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise Untrusted(f"{where}: its certificate is not trusted: {_verification(error)}") from None
        except aiohttp.ClientConnectorError as error:
            raise LinkLost(f"{where} cannot be reached: {error.os_error.strerror or 'no TLS'}") from None
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise LinkLost(f"the connection with {where} failed: {type(error).__name__}") from None


def trust(ca: str | None) -> ssl.SSLContext:
    """What checks certificates: against the CAs in this file, else against those of the system.

    Raises:
        Unavailable: the file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError among them
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise Unavailable(f"the CA file {ca} cannot be used: {reason}", "name a file in PEM format") from None


def _path(location: str) -> str | None:
    """Of a session. BMCs may write a whole URI, with a name of their own that means nothing here."""
    try:
        path = urlsplit(location).path
    except ValueError:
        return None
    return path if path.startswith("/") else None


def _basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def _verification(error: aiohttp.ClientConnectorCertificateError) -> str:
    inner = error.certificate_error
    return getattr(inner, "verify_message", "") or type(inner).__name__
