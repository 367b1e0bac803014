"""What polling 300 BMCs or PDUs once a second costs: CPU time and memory of the sampling process, and seconds missed.

Method. Emulated BMCs and PDUs (tests/simulators/lan_bmcs.py, redfish_bmcs.py, snmp_pdus.py) run in a process of their
own, each on a port of its own, with a sensor that has a new value each second. Over IPMI each has a session of cipher
suite 17; over Redfish each has a TLS connection that stays open, with verified certificates, and a session token. A PDU
has --outlets metered outlets with power and energy each, which are read besides its own: 51 numbers where there are
24, in two requests; over SNMP v3 they are authenticated (SHA-256) and encrypted (AES-128). The sampler runs as in a
measurement, with the driver alone, and writes its spool. After two seconds its CPU clock is read twice, --seconds
apart: that is the figure, as a share of one core; what the emulators use is not in it. Then every row in the spool
is looked at: a second is missed where a reading did not come (the row says so), or where two readings of a device are
more than 1.5 s apart. The bound is 20 % of a core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from process_cost import cpu_ns, rss_bytes

from power_agent.messages import SamplerSpec
from power_agent.row_format import row_struct
from power_agent.sampler_client import SamplerClient
from power_agent.spool import SpoolReader

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "simulators"))
import emulators

Start = Callable[[Path, int], AbstractContextManager[tuple[int, dict[str, str]]]]
BOUND_PERCENT = 20.0
LONGEST_GAP_S = 1.5


@contextmanager
def sampled(directory: Path, driver: str, settings: dict[str, str]) -> Iterator[int]:
    """A sampler with this driver; gives its process id."""
    directory.mkdir()
    spec = SamplerSpec(spool=str(directory / "spool.db"), host="bench", drivers=[driver], settings={driver: settings})
    client, ready = SamplerClient.start(spec, directory)
    if not ready.drivers[0].usable:
        raise SystemExit(f"{driver} cannot be used: {ready.drivers[0].reason}")
    reader = SpoolReader(directory / "spool.db")
    yield int(reader.meta()["pid"])
    reader.close()
    client.stop(10)


def missed(spool: Path) -> tuple[int, int, float]:
    """Readings, seconds missed, and the longest time between two readings of one BMC, in s."""
    reader = SpoolReader(spool)
    readings = lost = 0
    longest_s = 0.0
    for stream in reader.streams():
        row = row_struct(stream.channels)
        last_ns = 0
        for _, payload in reader.batches(stream.id):
            for t_ns, *_, statuses in row.iter_unpack(payload):
                if max(statuses) > 1:
                    lost += 1
                    continue
                readings += 1
                if last_ns:
                    gap_s = (t_ns - last_ns) * 1e-9
                    longest_s = max(longest_s, gap_s)
                    lost += gap_s > LONGEST_GAP_S
                last_ns = t_ns
    reader.close()
    return readings, lost, longest_s


def measure(directory: Path, name: str, start: Start, secrets: dict[str, str], options: argparse.Namespace) -> None:
    """Poll so many devices, and print what that costs."""
    driver = name.partition("-")[0]
    directory.mkdir()
    credentials = emulators.write_credentials(directory / "credentials.toml", **secrets)
    with start(directory, options.bmcs) as (first_port, settings):
        hosts = directory / "hosts.toml"
        lines = [f'[hosts.node{i}]\naddress = "127.0.0.1:{first_port + i}"\n' for i in range(options.bmcs)]
        hosts.write_text("".join(lines))
        told = {"hosts": str(hosts), "credentials": str(credentials), **settings}
        with sampled(directory / driver, driver, told) as pid:
            time.sleep(2.0)
            before_ns, begin_ns = cpu_ns(pid), time.monotonic_ns()
            time.sleep(options.seconds)
            percent = 100 * (cpu_ns(pid) - before_ns) / (time.monotonic_ns() - begin_ns)
            rss = rss_bytes(pid) / 1e6
    readings, lost, longest_s = missed(directory / driver / "spool.db")
    text = f"{percent:.1f} % of a core ({percent / BOUND_PERCENT:.2f} of the bound), {rss:.0f} MB"
    told_missed = f"{readings} readings, {lost} seconds missed, longest {longest_s:.2f} s between two"
    print(f"{name:<8} {options.bmcs} devices at 1 Hz: {text}; {told_missed}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each measurement")
    parser.add_argument("--bmcs", type=int, default=300, help="how many BMCs, or PDUs")
    parser.add_argument("--outlets", type=int, default=24, help="of each PDU")
    parser.add_argument("--only", choices=("ipmi", "redfish", "snmp-v2c", "snmp-v3"))
    options = parser.parse_args()
    login = {"user": "monitor", "password": "secret"}
    keys = {"user": "monitor", "auth_password": "auth-secret", "privacy_password": "privacy-secret"}
    pdus = partial(emulators.snmp_pdus, outlets=options.outlets)
    kinds: list[tuple[str, Start, dict[str, str]]] = [
        ("ipmi", emulators.lan_bmcs, login),
        ("redfish", emulators.redfish_bmcs, login),
        ("snmp-v2c", pdus, {"community": "public"}),
        ("snmp-v3", pdus, keys),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, start, secrets in kinds:
            if options.only in (None, name):
                measure(Path(folder) / name, name, start, secrets, options)


if __name__ == "__main__":
    main()
