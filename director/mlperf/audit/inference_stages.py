"""Rules on ranging and testing: durations, powers, clocks, and samples that cover the load."""

from __future__ import annotations

from collections.abc import Iterator

from director.mlperf.audit.findings import Finding, Severity, finding
from director.mlperf.audit.inference_session import Session
from director.mlperf.inference.session_files import CLIENT

_LEAST_S = 600.0  # every scenario runs for ten minutes
_MOST_CHANGE = 0.05
_MOST_SKEW_S = 0.8  # of clocks: what the official checkers mean
_EDGE_S = 1.5
_LEAST_COVERED = 0.5  # of the load, by a log whose clock may be off
_HALF_HOUR_S, _HOUR_S = 1800.0, 3600.0
_MOST_HALF_HOURS = 30


def short_duration(session: Session) -> Iterator[Finding]:
    load = session.stages["testing"].load_s
    if load is not None and load[1] - load[0] < _LEAST_S:
        text = f"testing took {load[1] - load[0]:.3f} s; at least {_LEAST_S:.0f} s are required"
        file = session.stages["testing"].folder / "mlperf_log_detail.txt"
        yield finding("short-duration", text, file, value=load[1] - load[0])


def durations_differ(session: Session) -> Iterator[Finding]:
    loads = [stage.load_s for stage in session.stages.values()]
    if loads[0] is None or loads[1] is None:
        return
    ranging, testing = (end - begin for begin, end in (loads[0], loads[1]))
    if abs(ranging - testing) > _MOST_CHANGE * max(ranging, testing):
        text = f"ranging took {ranging:.1f} s and testing {testing:.1f} s"
        file = session.stages["testing"].folder / "mlperf_log_detail.txt"
        yield finding("durations-differ", text, file, value=testing / ranging - 1)


def testing_below_ranging(session: Session) -> Iterator[Finding]:
    ranging, testing = (stage.mean_watts() for stage in session.stages.values())
    if ranging and testing and testing / ranging - 1 <= -_MOST_CHANGE:
        text = f"testing drew {testing:.3f} W, {1 - testing / ranging:.2%} less than ranging with {ranging:.3f} W"
        yield finding("testing-below-ranging", text, session.stages["testing"].spl, value=testing / ranging - 1)


def samples_cover_load(session: Session) -> Iterator[Finding]:
    for stage in session.stages.values():
        if stage.readings is None or stage.readings.window_s is None:
            continue
        t, (begin, end) = stage.readings.t_s, stage.readings.window_s
        late, early = float(t.min()) - begin, end - float(t.max())
        if late > _EDGE_S or early > _EDGE_S:
            parts = [f"the first {late:.1f} s"] if late > _EDGE_S else []
            parts += [f"the last {early:.1f} s"] if early > _EDGE_S else []
            line = stage.readings.line_of(int(t.argmin() if late >= early else t.argmax()))
            text = f"{' and '.join(parts)} of the load have no sample"
            yield finding("samples-cover-load", text, stage.spl, line=line, value=max(late, early))


def sample_clock(session: Session) -> Iterator[Finding]:
    """Samples against the load."""
    for stage in session.stages.values():
        if stage.readings is None or stage.load_s is None:
            continue
        if stage.shift_s is None:
            off = stage.first_s - stage.load_s[0]
            text = f"the samples lie beside the load, the first {off:+.0f} s from its begin"
            length_s = stage.load_s[1] - stage.load_s[0]
            if float(stage.readings.t_s.max()) < _LEAST_COVERED * length_s:  # whatever its clock says
                yield finding("samples-cover-load", text, stage.spl, line=1, value=length_s)
            else:
                text += "; no whole half hours fit"
                yield finding("clock-offset", text, stage.spl, line=1, value=off / _HOUR_S)
        elif stage.shift_s:
            hours = -stage.shift_s / _HOUR_S
            yield finding("clock-offset", f"the samples are {hours:+g} h off the load", stage.spl, line=1, value=hours)


def load_clock(session: Session) -> Iterator[Finding]:
    """Loads against the phases, which are in seconds since 1970: logs are in UTC, or in the zone of client.json."""
    stated = _number(session.client.get("timezone")) or 0.0
    for name, stage in session.stages.items():
        times = _phases(session.client, name)
        if stage.load_s is None or len(times) < 3:
            continue
        file = session.path / CLIENT
        begin, end = stage.load_s
        fits = [
            shift
            for shift in (0.0, stated, *(at * _HALF_HOUR_S for at in range(-_MOST_HALF_HOURS, _MOST_HALF_HOURS + 1)))
            if times[1] - _MOST_SKEW_S <= begin + shift and end + shift <= times[2] + _MOST_SKEW_S
        ]
        if not fits:
            text = f"the load of {name} is outside the measured interval, {begin - times[1]:+.1f} s from its begin"
            yield finding("clock-offset", text, file, value=(begin - times[1]) / _HOUR_S)
        elif fits[0] not in (0.0, stated):
            hours = -fits[0] / _HOUR_S
            daylight = fits[0] == stated - _HOUR_S
            severity: Severity | None = "warning" if daylight else None
            text = (
                f"the load of {name} is stamped {hours:+g} h from UTC; client.json states {0 - stated / _HOUR_S:+g} h"
            )
            text += ": daylight saving time, or a clock an hour off" if daylight else ""
            yield finding("clock-offset", text, file, value=hours, severity=severity)


def clock_skew(session: Session) -> Iterator[Finding]:
    for name in session.stages:
        both = _phases(session.client, name), _phases(session.server, name)
        skews = [mine - theirs for mine, theirs in zip(*both, strict=False)]
        worst = max(skews, key=abs, default=0.0)
        if abs(worst) > _MOST_SKEW_S:
            text = f"{name}: client and server are {abs(worst):.3f} s apart"
            yield finding("clock-skew", text, session.path / CLIENT, value=worst)


def _phases(description: object, name: str) -> list[float]:
    """Wall times of a stage: start asked, started, stop asked, stopped. [] where they cannot be read."""
    try:
        return [float(phase[0]) for phase in description["phases"][name]]  # type: ignore[index]
    except (TypeError, KeyError, ValueError, IndexError, OverflowError):
        return []


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e6 else None


RULES_OF_STAGES = (
    short_duration,
    durations_differ,
    testing_below_ranging,
    samples_cover_load,
    sample_clock,
    load_clock,
    clock_skew,
)
