"""The official checks of one power session, with the names and outcomes of the official checker of a round.

Where that checker has a fault, this has it too; `strict_checks` is without them. docs/mlperf/check.md describes each.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from director.mlperf.inference.checker_versions import CheckerVersion
from director.mlperf.inference.power_logs import (
    RUNS,
    average_watts,
    load_times,
    result_checksums,
)
from director.mlperf.inference.ptd_log import check_ptd_log
from director.mlperf.inference.session_files import CLIENT, SERVER, read_description
from director.mlperf.text_blocks import NoLog

Outcome = Literal["pass", "WARN", "FAIL"]
_FIELDS = ("version", "timezone", "modules", "sources", "messages", "uuid", "session_name", "results", "phases")
_GO = "Starting untimed measurement, maximum 500000 samples at 1000ms with 0 rampup samples"
_REPLIES = (
    ("SR,A", "Range A changed"),
    ("SR,V", "Range V changed"),
    ("Go,1000,", _GO),
    ("Stop", "Stopping untimed measurement"),
)
_SET_BACK = 3  # which of the commands that set a range sets the initial one


class Failed(Exception):
    """A check fails: the text for the user."""


class Warned(Exception):
    """A check passes with a warning: the text for the user."""


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check."""

    name: str
    outcome: Outcome
    text: str = ""


@dataclass(frozen=True)
class Descriptions:
    """`client.json` and `server.json`."""

    client: dict[str, Any]
    server: dict[str, Any]


def read_descriptions(session: Path) -> Descriptions:
    """Both descriptions.

    Raises:
        NoLog: one cannot be read.
    """
    return Descriptions(read_description(session / CLIENT), read_description(session / SERVER))


def official_checks(session: Path, version: CheckerVersion) -> list[CheckResult]:
    """Run all checks of the official checker on a session's folder."""
    names: dict[str, Callable[[Descriptions], None]] = {
        "Check client sources checksum": lambda both: _sources(both.client, version),
        "Check server sources checksum": lambda both: _sources(both.server, version),
        "Check PTD commands and replies": lambda both: _ptd_messages(both.server, version),
        "Check UUID": _uuids,
        "Check session name": _session_name,
        "Check time difference": lambda both: _times(session, both, version),
        "Check client server messages": lambda both: _messages(both, version),
        "Check results checksum": lambda both: _results(session, both, version),
        "Check errors and warnings from PTD logs": lambda both: _ptd_log(session, both, version),
        "Check PTD configuration": lambda both: _ptd_config(both.server, version),
        "Check debug is disabled on server-side": _debug,
    }
    try:
        both = read_descriptions(session)
        for path, found in ((CLIENT, both.client), (SERVER, both.server)):
            if missing := [field for field in _FIELDS if field not in found]:
                raise NoLog(session / path, f"lacks {', '.join(missing)}")
    except NoLog as error:
        return [CheckResult(name, "FAIL", f"the official checker ends before its checks: {error}") for name in names]
    return [run_check(name, lambda check=check: check(both)) for name, check in names.items()]  # type: ignore[misc]


def run_check(name: str, check: Callable[[], None]) -> CheckResult:
    """Outcome of a check, which passes where nothing is raised."""
    try:
        check()
    except Failed as error:
        return CheckResult(name, "FAIL", str(error))
    except Warned as error:
        return CheckResult(name, "WARN", str(error))
    except NoLog as error:
        return CheckResult(name, "FAIL", str(error))
    except Exception as error:  # descriptions may hold anything; the official checker fails the check, too
        return CheckResult(name, "FAIL", f"not as the checker expects it: {type(error).__name__}: {error}")
    return CheckResult(name, "pass")


def _sources(description: Mapping[str, Any], version: CheckerVersion) -> None:
    sources = description["sources"]
    if sources in version.sources:
        return
    if not isinstance(sources, dict):
        raise Failed("no checksums of the official scripts")
    official = version.sources[0]
    parts = {
        "changed": [name for name, sha in official.items() if name in sources and sources[name] != sha],
        "missing": [name for name in official if name not in sources],
        "extra": [name for name in sources if name not in official],
    }
    told = "; ".join(f"{what}: {', '.join(map(str, files))}" for what, files in parts.items() if files)
    raise Failed(f"not the official scripts of round {version.name}: {told}")


def _ptd_messages(server: Mapping[str, Any], version: CheckerVersion) -> None:
    messages = server["ptd_messages"]
    identity = next((message["reply"] for message in messages if message["cmd"] == "Identify"), "")
    if not identity:
        raise Failed("PTDaemon did not answer Identify")
    meter = identity.split(",")[0]
    _, found, after = identity.partition("version=")
    # the version is at least one character long, and ends before a dash
    dash = after.find("-", 1) if found and "\n" not in after else -1
    ptd = after[:dash] if dash > 0 else ""
    if ptd not in version.ptd_versions:
        raise Failed(f"PTDaemon {ptd or 'of unknown version'}; accepted: {', '.join(version.ptd_versions)}")
    if meter not in version.meters:
        raise Failed(f"meter {meter}; accepted: {', '.join(version.meters)}")
    for command, expected in _REPLIES:
        stops = 0
        for message in messages:
            if not message["cmd"].startswith(command):
                continue
            if message["cmd"] == "Stop":
                expected = "Error: no measurement to stop" if stops == 2 else expected
                stops += 1
            if message["reply"] != expected:
                raise Failed(f"{message['cmd']} was answered {message['reply']!r}, not {expected!r}")
    ranges = messages[2]["reply"]
    for unit, place in (("A", 1), ("V", 3)):
        _range_set_back(messages, unit, f"SR,{unit},{_initial_range(ranges, place)}", version)


def _initial_range(reply: str, place: int) -> str:
    fields = reply.split(",")
    try:
        return fields[place + 1] if fields[place] == "0" and float(fields[place + 1]) > 0 else "Auto"
    except (ValueError, IndexError):
        raise Failed(f"the meter's initial ranges cannot be read from {reply!r}") from None


def _range_set_back(messages: list[dict[str, str]], unit: str, expected: str, version: CheckerVersion) -> None:
    commands = [message["cmd"] for message in messages if message["cmd"].startswith(f"SR,{unit}")]
    wanted = _SET_BACK + 1 if version.analyzer_list and unit == "A" else _SET_BACK
    if len(commands) < wanted:
        raise Failed(f"there are {len(commands)} commands SR,{unit}; the checker looks for number {wanted}")
    if expected not in commands[_SET_BACK - 1 : wanted]:
        found = " and ".join(commands[_SET_BACK - 1 : wanted])
        raise Failed(f"the initial range was not set again at the end: {found} instead of {expected}")


def _uuids(both: Descriptions) -> None:
    for side in ("client", "server"):
        if uuid.UUID(both.client["uuid"][side]) != uuid.UUID(both.server["uuid"][side]):
            raise Failed(f"client.json and server.json name different {side}s")


def _session_name(both: Descriptions) -> None:
    names = both.client["session_name"], both.server["session_name"]
    if names[0] != names[1]:
        raise Failed(f"client.json is of session {names[0]!r}, server.json of {names[1]!r}")


def _times(session: Path, both: Descriptions, version: CheckerVersion) -> None:
    phases = {name: (both.client["phases"][name], both.server["phases"][name]) for name in ("ranging", "testing")}
    for name, (client, server) in phases.items():
        if len(client) != len(server):
            raise Failed(f"{name}: client.json has {len(client)} phase times, server.json {len(server)}")
        for number, (mine, theirs) in enumerate(zip(client, server, strict=True), start=1):
            apart = abs(mine[0] - theirs[0])
            limit_s = version.phase_tolerance_s
            if apart > limit_s or (version.below_tolerance and apart == limit_s):
                limit = round(limit_s * 1000)
                raise Failed(f"{name}, phase {number}: clocks {apart * 1000:.1f} ms apart; allowed are {limit} ms")
    zone_s = int(both.server["timezone"]) if version.first else 0
    loads = {name: load_times(session / run, zone_s) for name, run in zip(phases, RUNS, strict=True)}
    for name, (begin, end) in loads.items():
        started, stopping = phases[name][0][1][0], phases[name][0][2][0]
        for what, at in (("begins", begin), ("ends", end)):
            # an hour later is taken to be daylight saving time
            if not (started < at < stopping or started < at - 3600 < stopping):
                off = at - started if at < started else at - stopping
                raise Failed(f"{name}: the load {what} outside the measured interval, {off:+.1f} s from it")
    ranging, testing = (end - begin for begin, end in loads.values())
    if version.durations_apart is not None:
        if abs(ranging - testing) / max(ranging, testing) >= version.durations_apart:
            apart_text = f"{version.durations_apart:.0%} apart"
            raise Failed(f"ranging took {ranging:.1f} s and testing {testing:.1f} s: more than {apart_text}")
        return
    if (ranging - testing) / ranging > 0.5:
        raise Warned(f"testing took {testing:.1f} s, ranging {ranging:.1f} s")
    watts = [
        round(average_watts(session / run, *loads[name], version.every_line), 5)
        for name, run in zip(phases, RUNS, strict=True)
    ]
    change = round((watts[1] / watts[0] - 1) * 100, 2)
    if not change > -5:
        raise Failed(f"testing drew {watts[1]} W, {-change} % less than ranging with {watts[0]} W; allowed are 5 %")


def _messages(both: Descriptions, version: CheckerVersion) -> None:
    client, server = both.client["messages"], both.server["messages"]
    if len(client) != len(server) - version.first:
        expected = "one less than" if version.first else "as many as"
        raise Failed(
            f"the client has {len(client)} messages and the server {len(server)}; {expected} the server's expected"
        )
    for number, (mine, theirs) in enumerate(zip(client, server, strict=False)):
        if mine["cmd"] != theirs["cmd"]:
            raise Failed(f"message {number}: the client sent {mine['cmd']!r}, the server got {theirs['cmd']!r}")
        if mine["cmd"] != "time" and mine["reply"] != theirs["reply"]:
            raise Failed(
                f"reply to {mine['cmd']!r}: the server sent {theirs['reply']!r}, the client got {mine['reply']!r}"
            )
    versions = []
    for text, side in ((server[0]["cmd"], "client"), (server[0]["reply"], "server")):
        _, found, number_text = text.partition(f"mlcommons/power {side} v")
        if not found or not number_text.removesuffix("\n").isdecimal():
            raise Failed(f"the {side} did not say its version: {text!r}")
        versions.append(number_text.removesuffix("\n"))
    if versions[0] != versions[1]:
        raise Failed(f"client.py has version {versions[0]}, server.py {versions[1]}")


def _results(session: Path, both: Descriptions, version: CheckerVersion) -> None:
    files = result_checksums(session, with_client=version.first)
    client = {path: sha for path, sha in both.client["results"].items() if path in files}
    server = {path: sha for path, sha in both.server["results"].items() if path in files}
    for path in client.keys() & server.keys():
        if client[path] != server[path]:
            raise Failed(f"client.json and server.json have different checksums of {path}")
    recorded = {**client, **server}
    for path, sha in files.items():
        if (path in recorded) != (sha is not None):
            raise Failed(f"{path} is {'not there' if sha is None else 'there, but without a recorded checksum'}")
        if sha is None:
            raise Failed(f"{path} is not there, and has no recorded checksum")
        if recorded[path] != sha:
            raise Failed(f"{path} was changed: its checksum is {sha}, recorded is {recorded[path]}")


def _ptd_log(session: Path, both: Descriptions, version: CheckerVersion) -> None:
    mark = f"{both.server['session_name']}_ranging"
    zone_s = int(both.server["timezone"])
    load = load_times(session / "run_1", zone_s if version.first else 0)
    zone_s = zone_s if version.ptd_log_in_zone else 0
    found = check_ptd_log(session / "power" / "ptd_logs.txt", mark, load, zone_s, version)
    if found is not None:
        raise (Failed if found.fails else Warned)(found.text)


def _ptd_config(server: Mapping[str, Any], version: CheckerVersion) -> None:
    config = server["ptd_config"]
    for analyzer in config if version.analyzer_list else [config]:
        number = analyzer["device_type"]
        if number not in version.meters.values():
            raise Failed(f"device number {number}; accepted: {sorted(set(version.meters.values()))}")
        if number != 77:
            continue
        command = analyzer["command"]
        given = next((command[at + 1] for at in range(len(command)) if command[at] == "-c"), "")
        if len(given.split(",")) != 2 or not analyzer["channel"] or len(analyzer["channel"]) != 2:
            raise Failed("a meter of several channels needs their first and their number, as -c 1,3")


def _debug(both: Descriptions) -> None:
    if both.server.get("debug", False) is not False:
        raise Failed("the server ran in debug mode")
