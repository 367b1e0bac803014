"""Score of one power session: the official figures of a round, and the physical energy beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from director.mlperf.difference import Cause
from director.mlperf.finding import InferenceSession
from director.mlperf.inference.detail_log import DetailLog, read_detail_log
from director.mlperf.inference.physical import Physical, meter_accuracy, physical_energy, summed
from director.mlperf.inference.rules import RULES, Rules, performance, power_metric, usual_scenario
from director.mlperf.inference.sample_log import SampleLog, Samples, Window, stamp_us
from director.mlperf.inference.session_files import (
    CLIENT,
    SERVER,
    analyzer_logs,
    names_of_submitter,
    read_description,
)
from director.mlperf.text_blocks import NoLog

_HALF_HOUR_US = 1_800_000_000
_MOST_SHIFT_US = 26 * _HALF_HOUR_US * 2
_LEAST_COVERED = 0.5  # of the window; a log that covers less is looked for at other hours


@dataclass
class SessionScore:
    """A session under the rules of one round. Figures are None where they are not known; `notes` say why."""

    found: InferenceSession
    round: str
    round_from: str = ""  # why this round, in words
    scenario: str = ""
    log_scenario: str = ""
    inferred: bool = False
    duration_s: float | None = None  # power_begin … power_end
    samples: int = 0  # that count
    average_watts: float | None = None
    performance_key: str = ""
    performance: float | None = None
    performance_unit: str = ""
    power_metric: float | None = None
    power_metric_unit: str = ""
    efficiency: float | None = None
    efficiency_unit: str = ""
    efficiency_is_official: bool = True
    official_code_stops: str = ""  # where the official code ends with an exception; "": it does not
    physical: Physical | None = None
    clock_shift_s: float = 0.0  # added to the samples' times for the physical energy
    analyzers: int = 1
    causes: list[Cause] = field(default_factory=list)
    unreadable_lines: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def official_joules(self) -> float | None:
        """Average watts times duration: the energy that the official power figures stand for."""
        if self.average_watts is None or self.duration_s is None:
            return None
        return self.average_watts * self.duration_s

    @property
    def physical_joules(self) -> float | None:
        return None if self.physical is None else self.physical.joules

    @property
    def difference(self) -> float | None:
        """Official over physical energy, less 1."""
        official, physical = self.official_joules, self.physical_joules
        return None if official is None or not physical else official / physical - 1.0


@dataclass
class _Average:
    """The running mean of what counts, and what of it is no measured power."""

    window: Window
    rules: Rules
    total: float = 0.0
    count: int = 0
    not_positive: float = 0.0  # sum
    not_positive_count: int = 0  # that count
    left_out: int = 0  # samples in the window that do not count

    def add(self, block: Samples) -> None:
        inside = self.window.holds(block.t_us) & ~np.isnan(block.watts)
        if not self.rules.every_line:
            inside &= block.time_lines
        watts = block.watts[inside]
        low = watts <= 0
        if self.rules.positive_only:
            self.left_out += int(low.sum())
            watts = watts[~low]
        else:
            self.not_positive += float(watts[low].sum())
            self.not_positive_count += int(low.sum())
        if len(watts):  # one after the other, as the official code adds them
            self.total = float(np.cumsum(np.concatenate(([self.total], watts)))[-1])
            self.count += len(watts)


def score_session(found: InferenceSession, wanted_round: str | None) -> SessionScore:
    """Score a session. Whatever cannot be read is said in the score."""
    descriptions = {path: _description(found.path / path) for path in (CLIENT, SERVER)}
    server = descriptions[SERVER][0]
    name, why = _round(found, wanted_round, server)
    score = SessionScore(found, name, why, scenario=usual_scenario(found.scenario))
    rules = RULES[name]
    score.efficiency_is_official = rules.efficiency
    run = found.path / "run_1"
    try:
        log = read_detail_log(run / "mlperf_log_detail.txt")
        score.problems += log.problems
        score.unreadable_lines += log.unreadable_lines
        score.log_scenario = str(log.get("effective_scenario") or "")
        score.scenario = score.scenario or score.log_scenario
        begin_us, end_us = (_instant(log, key) for key in ("power_begin", "power_end"))
    except NoLog as error:
        score.notes.append(str(error))
        return score
    score.duration_s = (end_us - begin_us) / 1e6
    if log.stops:
        score.official_code_stops = f"{log.path.name}, {log.stops}"
    shift_us = 0
    if rules.time_zones:
        shift_us = _zones_apart_us(descriptions, score)
    window = Window(begin_us + shift_us, end_us + shift_us)
    average = _read_samples(run, window, rules, score, server)
    if average is not None and average.count:
        score.samples, score.average_watts = average.count, average.total / average.count
    _official(score, log, rules)
    if average is not None:
        _explain(score, average)
    return score


def _round(found: InferenceSession, wanted: str | None, server: dict[str, Any] | None) -> tuple[str, str]:
    if wanted is not None:
        return wanted, "as asked for"
    if found.round in RULES:
        return found.round, "named by a folder"
    newest = max(RULES, key=float)
    if found.round:
        earlier = [name for name in RULES if float(name) <= float(found.round)]
        name = max(earlier, key=float) if earlier else min(RULES, key=float)
        return name, f"the last before round {found.round}, which a folder names"
    version = ptd_version(server)
    if version.startswith("1.9."):
        return "1.0", f"PTDaemon {version}"
    return ("4.1", f"PTDaemon {version}") if version == "1.10.0" else (newest, "the newest")


def ptd_version(server: dict[str, Any] | None) -> str:
    """PTDaemon's version, from its reply to Identify; "" where it is not known."""
    messages = (server or {}).get("ptd_messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("cmd") == "Identify":
            return str(message.get("reply")).partition("version=")[2].partition("-")[0]
    return ""


def _description(path: Path) -> tuple[dict[str, Any] | None, str]:
    try:
        return read_description(path), ""
    except NoLog as error:
        return None, str(error)


def _instant(log: DetailLog, key: str) -> int:
    value = log.get(key)
    if value is None:
        raise NoLog(log.path, f"has no {key}: LoadGen did not end, or was told of no power measurement")
    try:
        return stamp_us(str(value))
    except ValueError:
        raise NoLog(log.path, f"has {key} {str(value)[:40]!r}, which is no time as 07-17-2024 08:06:12.146") from None


def _zones_apart_us(descriptions: dict[Path, tuple[dict[str, Any] | None, str]], score: SessionScore) -> int:
    """What round 1.0 adds to the window on the clock of the samples."""
    zones = []
    for path, (found, why) in descriptions.items():
        zone = (found or {}).get("timezone")
        if isinstance(zone, bool) or not isinstance(zone, (int, float)) or abs(zone) > 1e6:
            score.notes.append(why or f"{path} has no timezone; the official code of round 1.0 needs it")
            return 0
        zones.append(zone)
    return round((zones[0] - zones[1]) * 1e6)


def _read_samples(
    run: Path, window: Window, rules: Rules, score: SessionScore, server: dict[str, Any] | None
) -> _Average | None:
    """Read the sample logs once, for the average and for the physical energy. None: there is no spl.txt to read."""
    accuracy = meter_accuracy(server)
    average = _Average(window, rules)
    sample_log = SampleLog(run / "spl.txt", window)

    def seen(log: SampleLog) -> Iterator[Samples]:
        for block in log.samples():
            average.add(block)
            yield block

    try:
        score.physical = physical_energy(seen(sample_log), window, accuracy)
    except NoLog as error:
        score.notes.append(str(error))
    score.unreadable_lines += sample_log.unreadable_lines
    score.problems += sample_log.problems
    stops = sample_log.stops.any_line if rules.every_line else sample_log.stops.time_lines
    if stops and not score.official_code_stops:
        score.official_code_stops = f"spl.txt, {stops}"
    parts = analyzer_logs(run)
    score.analyzers = max(len(parts), sample_log.analyzers)
    if len(parts) > 1:
        _replace_physical(score, [SampleLog(path, window) for path in parts], accuracy)
    elif score.physical is not None and score.physical.coverage < _LEAST_COVERED:
        shift_us = _shift_us(sample_log, window)
        if shift_us:
            moved = Window(window.begin_us - shift_us, window.end_us - shift_us)
            again = SampleLog(run / "spl.txt", moved)
            score.physical = physical_energy(again.samples(), moved, accuracy)
            score.clock_shift_s = shift_us / 1e6
    if score.physical is not None and sample_log.first_us is None:
        score.notes.append(f"{sample_log.path} holds no sample")
    return average if sample_log.first_us is not None else None


def _replace_physical(score: SessionScore, logs: list[SampleLog], accuracy: Any) -> None:
    """Each analyzer by its own times: the merged log took them by line number."""
    energies = []
    for log in logs:
        try:
            energies.append(physical_energy(log.samples(), log.window, accuracy))
        except NoLog as error:
            score.notes.append(str(error))
            return
        score.unreadable_lines += log.unreadable_lines
        score.problems += log.problems
    score.physical = summed(energies)


def _shift_us(log: SampleLog, window: Window) -> int:
    """Whole half hours that bring a log's times onto the window; 0: none does."""
    if log.first_us is None or log.last_us is None:
        return 0
    off = (window.begin_us + window.end_us) // 2 - (log.first_us + log.last_us) // 2
    shift = round(off / _HALF_HOUR_US) * _HALF_HOUR_US
    covered = min(log.last_us + shift, window.end_us) - max(log.first_us + shift, window.begin_us)
    fits = covered >= _LEAST_COVERED * (window.end_us - window.begin_us)
    return shift if fits and abs(shift) <= _MOST_SHIFT_US else 0


def _official(score: SessionScore, log: DetailLog, rules: Rules) -> None:
    try:
        more_names = names_of_submitter(score.found.path)
    except NoLog as error:
        more_names = {}
        score.notes.append(str(error))
    benchmark = rules.benchmark(score.found.benchmark, more_names)
    result = performance(log, score.scenario, benchmark, rules)
    if not score.found.benchmark and any("tokens" in key for key in log.values) and rules.token_keys:
        score.notes.append("no folder names the benchmark, so performance is not counted in tokens")
    score.performance_key, score.performance, score.performance_unit = result.key, result.value, result.unit
    score.inferred = result.inferred
    if result.why:
        score.notes.append(f"no performance figure: {result.why}")
    if score.average_watts is None or score.duration_s is None:
        if score.physical is not None:
            score.notes.append("no sample that counts lies between power_begin and power_end: no official power figure")
        return
    metric = power_metric(log, score.scenario, score.average_watts, score.duration_s, result, rules)
    score.power_metric, score.power_metric_unit = metric.value, metric.unit
    score.efficiency, score.efficiency_unit = metric.efficiency, metric.efficiency_unit
    if metric.why and metric.why != result.why:
        score.notes.append(f"no power figure or efficiency: {metric.why}")


def _explain(score: SessionScore, average: _Average) -> None:
    """Parts of official − physical energy, in words."""
    official, physical = score.official_joules, score.physical_joules
    if score.clock_shift_s:
        text = f"the samples' clock is {score.clock_shift_s / 3600:+g} h off the window's"
        score.notes.append(f"{text}; the physical energy is that of the samples moved onto it")
    if official is None or physical is None or score.duration_s is None or score.physical is None:
        return
    rest = official - physical
    if average.not_positive_count and average.count > average.not_positive_count:
        clean = (average.total - average.not_positive) / (average.count - average.not_positive_count)
        joules = official - clean * score.duration_s
        text = f"{average.not_positive_count} samples of 0 W or less, such as −2 for a missed one, count as power"
        score.causes.append(Cause("readings", joules, text))
        rest -= joules
    reasons = []
    if score.physical.coverage < 0.995:
        reasons.append(f"{1 - score.physical.coverage:.1%} of the window has no sample")
    if average.left_out:
        reasons.append(f"{average.left_out} samples of 0 W or less are left out")
    if score.unreadable_lines:
        reasons.append(f"{score.unreadable_lines} lines cannot be read")
    if score.analyzers > 1:
        reasons.append("lines of several analyzers were merged by number, not by time")
    text = "every sample in the window weighs the same, whatever share of its second lies inside"
    score.causes.append(Cause("readings", rest, "; ".join([text, *reasons])))
