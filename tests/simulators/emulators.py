"""Starts the emulators of BMCs and PDUs as processes of their own, and ends them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEADLINE_S = 20.0


def write_credentials(path: Path, **secrets: str) -> Path:
    """A credentials file as a user writes it; by default what the emulated BMCs know."""
    secrets = secrets or {"user": "monitor", "password": "secret"}
    path.write_text("".join(f'{name} = "{value}"\n' for name, value in secrets.items()))
    path.chmod(0o600)
    return path


def free_ports(count: int, kind: socket.SocketKind) -> int:
    """The first of so many ports in a row that nobody uses now."""
    for first in range(20_000 + os.getpid() % 8_000, 60_000, count):
        try:
            for port in range(first, first + count):
                with closing(socket.socket(socket.AF_INET, kind)) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no free ports")


@contextmanager
def running(command: Sequence[str], log: Path, ready: str = "ready") -> Iterator[subprocess.Popen[bytes]]:
    """A process that has written `ready` to its log."""
    with log.open("wb") as file:
        process = subprocess.Popen(list(command), stdout=file, stderr=subprocess.STDOUT, cwd=HERE)
    try:
        deadline_s = time.monotonic() + DEADLINE_S
        while ready not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{command[1]} did not start: {log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def pyghmi_bmc(directory: Path, **options: object) -> Iterator[int]:
    """One BMC of pyghmi; gives its port."""
    port = free_ports(1, socket.SOCK_DGRAM)
    with running([sys.executable, "dcmi_bmc.py", str(port), *_told(options)], directory / f"bmc-{port}.log"):
        yield port


@contextmanager
def lan_bmcs(directory: Path, count: int = 1, **options: object) -> Iterator[tuple[int, dict[str, str]]]:
    """Our own BMCs; gives the first port, and no settings."""
    port = free_ports(count, socket.SOCK_DGRAM)
    command = [sys.executable, "lan_bmcs.py", str(count), str(port), *_told(options)]
    with running(command, directory / f"bmcs-{port}.log"):
        yield port, {}


@contextmanager
def snmp_pdus(directory: Path, count: int = 1, **options: object) -> Iterator[tuple[int, dict[str, str]]]:
    """Our own PDUs; gives the first port, and no settings."""
    port = free_ports(count, socket.SOCK_DGRAM)
    command = [sys.executable, "snmp_pdus.py", str(count), str(port), *_told(options)]
    with running(command, directory / f"pdus-{port}.log"):
        yield port, {}


@contextmanager
def redfish_bmcs(directory: Path, count: int = 1, **options: object) -> Iterator[tuple[int, dict[str, str]]]:
    """Our own Redfish services; gives the first port, and the settings that trust them."""
    port = free_ports(count, socket.SOCK_STREAM)
    ca, certificate, key = make_certificates(directory)
    command = [sys.executable, "redfish_bmcs.py", str(count), str(port), str(certificate), str(key), *_told(options)]
    with running(command, directory / f"redfish-{port}.log"):
        yield port, {"ca": str(ca)}


@contextmanager
def sushy_static(directory: Path, mockup: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """sushy-static with this folder, over TLS; gives its port, and the settings that trust it."""
    port = free_ports(1, socket.SOCK_STREAM)
    ca, certificate, key = make_certificates(directory)
    tls = ["--ssl-certificate", str(certificate), "--ssl-key", str(key)]
    program = str(Path(sys.executable).parent / "sushy-static")
    command = [program, "-m", str(mockup), "-i", "127.0.0.1", "-p", str(port), *tls]
    with running(command, directory / f"sushy-{port}.log", ready=""):
        _wait_for_port(port)
        yield port, {"ca": str(ca)}


@contextmanager
def snmpsim(
    directory: Path, agents: dict[str, str], *, auth_protocol: str = "SHA256", privacy_protocol: str = "AES"
) -> Iterator[int]:
    """snmpsim with these agents: records by community; that of "self" is what SNMP v3 shows. Gives the port."""
    data, cache = directory / "snmp-data", directory / "snmp-cache"
    for folder in (data, cache):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for community, records in agents.items():
        (data / f"{community}.snmprec").write_text(records)
    port = free_ports(1, socket.SOCK_DGRAM)
    program = str(Path(sys.executable).parent / "snmpsim-command-responder")
    command = [program, f"--data-dir={data}", f"--cache-dir={cache}", f"--agent-udpv4-endpoint=127.0.0.1:{port}"]
    command += ["--v3-user=monitor", "--v3-auth-key=auth-secret", f"--v3-auth-proto={auth_protocol}"]
    command += ["--v3-priv-key=privacy-secret", f"--v3-priv-proto={privacy_protocol}"]
    if os.geteuid() == 0:
        command += ["--process-user=root", "--process-group=root"]
    with running(command, directory / f"snmpsim-{port}.log", ready="Listening at"):
        yield port


def make_certificates(directory: Path) -> tuple[Path, Path, Path]:
    """A CA, and a certificate for 127.0.0.1 with its key."""
    import trustme

    ca, certificate, key = (directory / name for name in ("ca.pem", "certificate.pem", "key.pem"))
    if not ca.exists():
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(str(ca))
        certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
    return ca, certificate, key


def _told(options: dict[str, object]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items()]


def _wait_for_port(port: int) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise RuntimeError(f"nothing listens on port {port}")
