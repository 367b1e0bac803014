"""Rules on the meter: its model and ranges, the uncertainty of its samples, and PTDaemon's log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile

import numpy as np

from director.mlperf.audit.findings import Finding, Severity, finding
from director.mlperf.audit.inference_session import Session, line_of_text
from director.mlperf.audit.uncertainty import (
    ChannelSamples,
    Ranges,
    has_formula,
    ranges_of,
    read_channels,
    uncertainties,
)
from director.mlperf.inference.ptd_log import Event, activation, events, ranging_stage
from director.mlperf.inference.session_score import ptd_version
from director.mlperf.text_blocks import NoLog
from drivers.analyzer_uncertainty import LIMIT

_OVER = 1.3  # of a range: up to there meters of crest factor 3 measure
_AGREES = 2e-6  # PTDaemon prints six decimals
_TOLERANCE_S = 0.8
_ABOVE = re.compile(r"Uncertainty \d+(\.\d+)?%.{0,20} above ")
_UNKNOWN = ("Uncertainty unknown", "Can't evaluate uncertainty")
_TOO_HIGH = "appears to be too high for set range"


def model_and_version(session: Session) -> Iterator[Finding]:
    version = ptd_version(dict(session.server))
    if not session.server:
        return
    line = line_of_text(session.server_file, "Identify")
    accepted = session.version
    if version not in accepted.ptd_versions:
        text = f"PTDaemon {version[:40] or 'of unknown version'}; accepted: {', '.join(accepted.ptd_versions)}"
        yield finding("ptd-version", text, session.server_file, line=line, value=version[:40])
    if session.meter not in accepted.meters:
        text = f"meter {session.meter[:60] or 'unknown'}; accepted: {', '.join(accepted.meters)}"
        yield finding("meter-model", text, session.server_file, line=line, value=session.meter[:60])


def ranges_and_uncertainty(session: Session) -> Iterator[Finding]:
    """Everything that follows from the ranges of testing and its samples."""
    if not session.server:
        return
    commands = {unit: _range_commands(session, unit) for unit in ("V", "A")}
    asked = {unit: (of_unit or [""])[-1].rpartition(",")[2] for unit, of_unit in commands.items()}
    automatic = [unit for unit, value in asked.items() if value == "Auto"]
    for unit in automatic:
        line = line_of_text(session.server_file, f"SR,{unit},Auto", commands[unit].count(f"SR,{unit},Auto"))
        yield finding("auto-range", f"SR,{unit},Auto before testing", session.server_file, line=line, value="Auto")
    ranges = None
    with suppress(ValueError):  # automatic, or not set
        ranges = ranges_of(session.meter, float(asked["V"]), float(asked["A"]))
    reported = _reported(session)
    yield from _judge_reported(session, reported)
    spl = session.stages["testing"].spl
    if session.analyzers > 1 or ranges is None or not has_formula(session.meter):
        if not automatic:
            text = f"meter {session.meter[:60] or 'unknown'}, "
            text += f"ranges {asked['V'][:20]} V and {asked['A'][:20]} A" if any(asked.values()) else "ranges not told"
            yield finding("uncertainty-not-recomputed", "several meters" if session.analyzers > 1 else text, spl)
        return
    try:
        samples = read_channels(spl)
    except NoLog:
        return  # said on reading the session
    if len(samples.t_us):
        yield from _clipping(session, samples, ranges)
        yield from _recomputed(session, samples, ranges, reported)


def _range_commands(session: Session, unit: str) -> list[str]:
    """The commands before testing that set a range; the last one holds."""
    before = takewhile(lambda message: not _starts_testing(message[0]), session.messages())
    return [command for command, _ in before if command.startswith(f"SR,{unit},")]


def _starts_testing(command: str) -> bool:
    return command.startswith("Go,") and command.endswith("_testing")


def _reported(session: Session) -> tuple[float, float, float] | None:
    """Mean, least and greatest uncertainty that PTDaemon reported for testing; None: it did not."""
    found, testing = None, False
    for command, reply in session.messages():
        testing |= _starts_testing(command)
        if testing and reply.startswith("Uncertainty,"):
            try:
                mean, least, greatest = map(float, reply.split(",")[1:4])
                found = mean, least, greatest
            except ValueError:
                continue
    return found


def _judge_reported(session: Session, reported: tuple[float, float, float] | None) -> Iterator[Finding]:
    if reported is None or 0 <= reported[0] <= LIMIT:
        return
    text = f"PTDaemon reported {reported[0]:.2%} on average" if reported[0] > 0 else "PTDaemon could not tell it"
    replies = sum(reply.startswith("Uncertainty,") for _, reply in session.messages())
    line = line_of_text(session.server_file, '"Uncertainty,', replies)
    yield finding("uncertainty-reported", text, session.server_file, line=line, value=reported[0])


def _clipping(session: Session, samples: ChannelSamples, ranges: Ranges) -> Iterator[Finding]:
    spl = session.stages["testing"].spl
    for unit, values, limit in (("V", samples.volts, ranges.volts), ("A", samples.amperes, ranges.amperes)):
        most = values.max(axis=1)
        above = most > limit
        if above.any():
            worst = int(most.argmax())
            value = float(most[worst])
            text = f"{int(above.sum())} samples above the range of {limit:g} {unit}, up to {value:g} {unit}"
            severity: Severity | None = "error" if value > _OVER * limit else None
            line = int(samples.line[worst])
            yield finding(
                "range-clipping", text, spl, line=line, value=value, count=int(above.sum()), severity=severity
            )


def _recomputed(
    session: Session, samples: ChannelSamples, ranges: Ranges, reported: tuple[float, float, float] | None
) -> Iterator[Finding]:
    stage = session.stages["testing"]
    share = uncertainties(samples, session.meter, ranges)
    known = ~np.isnan(share)
    if not known.any():
        return
    inside = known.copy()
    if stage.load_s is not None and stage.shift_s is not None:
        t_s = samples.t_us / 1e6 + stage.shift_s
        inside &= (t_s > stage.load_s[0]) & (t_s < stage.load_s[1])
    above = inside & (share > LIMIT)
    if above.any():
        worst = int(np.where(above, share, 0).argmax())
        value, count = float(share[worst]), int(above.sum())
        text = f"{count} of {int(inside.sum())} samples of the load, up to {value:.2%}"
        text += f" (ranges {ranges.volts:g} V, {ranges.amperes:g} A)"
        yield finding("uncertainty", text, stage.spl, line=int(samples.line[worst]), value=value, count=count)
    own = float(share[known].mean()), float(share[known].min()), float(share[known].max())
    if reported is not None and reported[0] > 0:
        off = max((abs(mine - theirs), theirs, mine) for mine, theirs in zip(own, reported, strict=True))
        if off[0] > _AGREES:
            text = f"PTDaemon reported {off[1]:.4%} where ranges and samples give {off[2]:.4%}"
            yield finding("uncertainty-disagrees", text, session.server_file, value=off[1] - off[2])


def ptd_log(session: Session) -> Iterator[Finding]:
    """Warnings on uncertainty and ranges within the load, errors outside ranging, and whether the check was on."""
    path = session.ptd_log
    try:
        if activation(path) is None:
            yield finding("uncertainty-not-activated", "no line says so", path)
        begin, end = session.stages["testing"].load_s or (np.inf, -np.inf)
        started, completed = ranging_stage(path, f"{session.server.get('session_name')}_ranging")
        found: dict[str, list[Event]] = {}
        for event in events(path):
            in_load = event.at_s is not None and begin - _TOLERANCE_S < event.at_s < end + _TOLERANCE_S
            in_ranging = None not in (event.at_s, started, completed) and started < event.at_s < completed  # type: ignore[operator]
            rule = _rule_of(event, in_load, in_ranging)
            if rule:
                found.setdefault(rule, []).append(event)
    except NoLog as error:
        yield finding("file-missing", f"ptd_logs.txt {error.why}", path)
        return
    except ValueError as error:
        yield finding("unreadable-lines", f"a time of ptd_logs.txt cannot be read: {error}", path)
        return
    for rule, of_rule in found.items():
        first = of_rule[0]
        text = f"{len(of_rule)} times; first: {first.line[:120]}"
        severity: Severity | None = "error" if rule == "range-clipping" else None
        yield finding(
            rule, text, path, line=first.number, value=first.message[:80], count=len(of_rule), severity=severity
        )


def _rule_of(event: Event, in_load: bool, in_ranging: bool) -> str:
    if in_load and (_ABOVE.search(event.message) or event.message.startswith(_UNKNOWN)):
        return "uncertainty-warned"
    if in_load and _TOO_HIGH in event.message:
        return "range-clipping"
    return "ptd-errors" if event.is_error and not in_ranging else ""


RULES_OF_METER = (model_and_version, ranges_and_uncertainty, ptd_log)
