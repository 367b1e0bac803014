"""The checks of a power session as the rules mean them, without the faults of the official checkers.

- The official tolerance of 800 ms is added to times in seconds, so that the first and the last 800 s of a load are not
  looked at: a load of less than 1600 s is never checked for samples of more than 1 % uncertainty.
- Its scan of PTDaemon's log ends at the first warning, which hides what comes later.
- A load that fits the measured interval only when its clock is moved by an hour passes.
- A testing stage that is up to half as long as ranging passes, where five per cent is meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from director.mlperf.inference.checker_versions import CheckerVersion
from director.mlperf.inference.official_checks import (
    CheckResult,
    Descriptions,
    Failed,
    Warned,
    read_descriptions,
    run_check,
)
from director.mlperf.inference.power_logs import RUNS, average_watts, load_times
from director.mlperf.inference.ptd_log import Event, activation, events, ranging_stage
from director.mlperf.inference.sample_log import SampleLog, Window

_TOLERANCE_S = 0.8  # of clocks: what the official checkers mean
_LEAST_S = 600.0  # of a load (inference rules: every scenario runs for ten minutes)
_MOST_CHANGE = 0.05  # of power and of duration, testing against ranging
_LONGEST_GAP_S = 2.5  # samples come every second; docs/formulas/energy.md calls more a gap
_HOUR_S = 3600.0
_MOST_ZONES = 15  # hours from UTC
_FEW = 3
# PTDaemon 1.9: "Uncertainty 1.22% above 1.00% limit …"; later: "Uncertainty 1.22%, which is above 1.00% limit …"
_ABOVE = re.compile(r"Uncertainty \d+(\.\d+)?%.{0,20} above ")


def strict_checks(session: Path, version: CheckerVersion) -> list[CheckResult]:
    """Run all strict checks on a session's folder."""
    checks: dict[str, Callable[[], None]] = {
        "Uncertainty at most 1 % in the whole load": lambda: _uncertainty(session),
        "All errors and warnings of the PTD log": lambda: _all_events(session, version),
        "Load inside the measured interval, without shifting a clock": lambda: _interval(session),
        "Loads last ten minutes, testing as long as ranging": lambda: _durations(session),
        "Testing draws no less than 95 % of ranging": lambda: _power(session),
        "Samples in the whole load, all valid": lambda: _samples(session),
    }
    return [run_check(name, check) for name, check in checks.items()]


def _ptd_path(session: Path) -> Path:
    return session / "power" / "ptd_logs.txt"


def _uncertainty(session: Path) -> None:
    if activation(_ptd_path(session)) is None:
        raise Failed("ptd_logs.txt does not say that uncertainty was checked: what samples have is not known")
    begin, end = load_times(session / "run_1", 0)
    above, unknown = _Some(), _Some()
    for event in events(_ptd_path(session)):
        if event.at_s is None or not begin - _TOLERANCE_S < event.at_s < end + _TOLERANCE_S:
            continue
        if not event.is_error and _ABOVE.search(event.message):
            above.add(event)
        elif "Uncertainty unknown" in event.message or "Can't evaluate uncertainty" in event.message:
            unknown.add(event)
    if above.count:
        raise Failed(f"samples of the load above 1 %: {above}")
    if unknown.count:
        raise Failed(f"samples of the load of unknown uncertainty: {unknown}")


def _all_events(session: Path, version: CheckerVersion) -> None:
    begin, end = load_times(session / "run_1", 0)
    mark = f"{read_descriptions(session).server['session_name']}_ranging"
    started, completed = ranging_stage(_ptd_path(session), mark)
    if started is None or completed is None:
        raise Failed(f"ptd_logs.txt has no stage {mark}, or no end of it")
    errors, warnings, of_ranging = _Some(), _Some(), _Some()
    for event in events(_ptd_path(session)):
        in_ranging = event.at_s is not None and started < event.at_s < completed
        if event.is_error and not in_ranging:
            errors.add(event)
        elif event.is_error and not event.message.startswith(version.usual_ranging_errors):
            of_ranging.add(event)
        elif not event.is_error and event.at_s is not None and begin < event.at_s < end:
            warnings.add(event)
    if errors.count:
        raise Failed(f"errors outside ranging: {errors}")
    told = [f"warnings during the load: {warnings}"] if warnings.count else []
    told += [f"errors during ranging: {of_ranging}"] if of_ranging.count else []
    if told:
        raise Warned("; ".join(told))


@dataclass
class _Some:
    """How many lines, and the first few of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, event: Event) -> None:
        self.count += 1
        if len(self.first) < _FEW:
            self.first.append(f"line {event.number}: {event.line[:120]}")

    def __str__(self) -> str:
        return f"{self.count} ({', '.join(self.first)}{' …' if self.count > len(self.first) else ''})"


def _interval(session: Path) -> None:
    """Loads lie between the start of measuring and the request to stop. Logs of round 1.0 are in local time."""
    both = read_descriptions(session)
    stated_s = float(both.client["timezone"])
    shifts = {}
    for name, run in zip(("ranging", "testing"), RUNS, strict=True):
        begin, end = load_times(session / run, 0)
        _in_order(both, name)
        started, stopping = (float(both.client["phases"][name][at][0]) for at in (1, 2))
        fitting = [
            shift
            for shift in (0.0, *(hours * _HOUR_S / 2 for hours in range(-2 * _MOST_ZONES, 2 * _MOST_ZONES + 1)))
            if started - _TOLERANCE_S <= begin + shift and end + shift <= stopping + _TOLERANCE_S
        ]
        if not fitting:
            raise Failed(f"{name}: the load is not inside the measured interval at any whole or half hour's shift")
        shifts[name] = fitting[0]
    if shifts["ranging"] != shifts["testing"]:
        raise Failed(
            f"ranging fits with its clock moved by {shifts['ranging']:+.0f} s, testing by {shifts['testing']:+.0f} s"
        )
    shift = shifts["testing"]
    if shift in (0.0, stated_s):
        return
    if shift == stated_s - _HOUR_S:
        raise Warned(
            "the load fits only with an hour taken off: daylight saving time, which client.json does not state, or a "
            "clock an hour off; nothing in the session tells which"
        )
    raise Failed(f"the load fits only with its clock moved by {shift:+.0f} s; client.json states {stated_s:+.0f} s")


def _in_order(both: Descriptions, name: str) -> None:
    for side, description in (("client", both.client), ("server", both.server)):
        times = [float(phase[0]) for phase in description["phases"][name]]
        if times != sorted(times):
            raise Failed(f"{side}.json: the phase times of {name} go backwards")


def _durations(session: Path) -> None:
    ranging, testing = (end - begin for begin, end in (load_times(session / run, 0) for run in RUNS))
    if testing < _LEAST_S:
        raise Failed(f"testing took {testing:.3f} s; at least {_LEAST_S:.0f} s are required")
    if abs(ranging - testing) > _MOST_CHANGE * max(ranging, testing):
        raise Warned(f"ranging took {ranging:.1f} s and testing {testing:.1f} s: more than 5 % apart")


def _power(session: Path) -> None:
    watts = [average_watts(session / run, *load_times(session / run, 0)) for run in RUNS]
    if min(watts) <= 0:
        raise Failed("a load has no sample above 0 W")
    change = watts[1] / watts[0] - 1
    if change < -_MOST_CHANGE:
        raise Failed(f"testing drew {watts[1]:.3f} W, {-change:.2%} less than ranging with {watts[0]:.3f} W")


def _samples(session: Path) -> None:
    begin, end = load_times(session / "run_1", 0)
    window = Window(round(begin * 1e6), round(end * 1e6))
    log = SampleLog(session / "run_1" / "spl.txt", window)
    last_us, longest_us, invalid, backwards, inside = window.begin_us, 0, 0, 0, 0
    for block in log.samples():
        within = window.holds(block.t_us)
        t_us = block.t_us[within]
        valid = block.watts[within] > 0
        invalid += int((~valid).sum())
        inside += len(t_us)
        for at in t_us[valid].tolist():
            backwards += at < last_us
            longest_us = max(longest_us, at - last_us)
            last_us = max(last_us, at)
    if not inside:
        raise Failed(f"no sample lies between power_begin and power_end; the log covers {log.covered}")
    longest_us = max(longest_us, window.end_us - last_us)
    if longest_us > _LONGEST_GAP_S * 1e6:
        raise Failed(f"{longest_us / 1e6:.1f} s of the load are without a valid sample")
    if log.unreadable_lines:
        raise Failed(f"{log.unreadable_lines} lines cannot be read: {'; '.join(list(log.problems)[:_FEW])}")
    if invalid or backwards:
        raise Warned(f"samples of 0 W or less (rejected or missed): {invalid}; back in time: {backwards}")
