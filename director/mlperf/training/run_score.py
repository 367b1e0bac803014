"""One run of a benchmark: time to train, whether it counts, its official energy, and the physical energy beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from director.mlperf.difference import Cause
from director.mlperf.text_blocks import NoLog
from director.mlperf.training.causes import node_causes, switch_cause
from director.mlperf.training.closed_rules import with_joint_accuracy
from director.mlperf.training.compliance import problems
from director.mlperf.training.compliance_rules import rules_of, wanted_keys
from director.mlperf.training.log_score import LogScore
from director.mlperf.training.log_text import Unread
from director.mlperf.training.official_energy import OfficialEnergy, estimated_watts, node_energy, switch_energy
from director.mlperf.training.physical_energy import PhysicalEnergy, energy_inside
from director.mlperf.training.power_log import PowerLog, read_power_log
from director.mlperf.training.result_log import read_result_log

_WANTED = wanted_keys()
_DIGITS = re.compile(r"(\d+)")
_POWER_LOG = re.compile(r"(?:node|sw)_.*\.txt", re.DOTALL)


@dataclass
class RunScore:
    """One run under the rules of one round."""

    name: str  # of the result file, without .txt
    round: str
    problems: list[str]  # why the run does not count; empty: it does
    train_ms: float | None = None
    start_ms: float | None = None
    official_joules: float | None = None
    node_joules: float | None = None
    switch_joules: float | None = None
    is_official: bool = True  # False: the official code gives no energy here; this is what the rules define
    physical_joules: float | None = None
    physical_expanded_joules: float | None = None
    physical_estimate_joules: float = 0.0  # the part of it that nobody measured
    coverage: float | None = None  # of the node log with the least
    causes: list[Cause] = field(default_factory=list)  # of official − physical
    logs: list[LogScore] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread_lines: int = 0

    @property
    def counts(self) -> bool:
        """Whether the run passes the checks that decide which runs count."""
        return not self.problems

    @property
    def difference(self) -> float | None:
        """Official over physical energy, less 1."""
        return difference(self.official_joules, self.physical_joules)


def difference(official: float | None, physical: float | None) -> float | None:
    """Official over physical energy, less 1; None where one is not known."""
    return official / physical - 1 if official is not None and physical else None


def score_run(result_file: Path, power_dir: Path | None, rounds: Sequence[str]) -> dict[str, RunScore]:
    """Score a run under the rules of each round. `power_dir` is None where the benchmark has no power results."""
    try:
        log = read_result_log(result_file, _WANTED)
    except NoLog as error:
        return {name: RunScore(result_file.stem, name, [f"{result_file.name} {error.why}"]) for name in rounds}
    notes = unread_notes(result_file.name, log.unread)
    start, stop = log.run_ms()
    found: dict[str, RunScore] = {}
    entries = with_joint_accuracy(log.entries)
    for name in rounds:
        failed = problems(entries, rules_of(name)) + ([f"{log.unread.count} lines cannot be read"] if notes else [])
        run = RunScore(result_file.stem, name, failed, notes=list(notes), unread_lines=log.unread.count)
        if start is not None and stop is not None:
            run.start_ms, run.train_ms = start, stop - start
            if stop <= start:
                run.notes.append(f"{result_file.name}: run_stop is not later than run_start")
        else:
            run.problems.append("run_start is missing" if start is None else "run_stop is missing")
        found[name] = run
    if power_dir is not None and start is not None and stop is not None:
        _add_energies(found, _PowerLogs(power_dir), (start, stop))
    return found


def unread_notes(file_name: str, unread: Unread) -> list[str]:
    """What could not be read, line by line as far as it is named."""
    notes = [f"{file_name}:{line} {why}" for line, why in unread.named]
    if unread.count > len(notes):
        notes.append(f"{file_name}: and {unread.count - len(notes)} more lines like these")
    return notes


class _PowerLogs:
    """The power logs of a run, in order of their numbers."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[PowerLog] = []
        self.switches: list[PowerLog] = []
        self.unread = 0
        self.notes: list[str] = []
        self.missing: list[str] = []
        try:
            files = sorted((file for file in folder.iterdir() if _POWER_LOG.fullmatch(file.name)), key=_by_number)
        except OSError as error:
            files = []
            self.missing.append(f"power/{folder.name} cannot be read: {error.strerror}")
        for file in files:
            try:
                log = read_power_log(file)
            except NoLog as error:
                self.missing.append(f"{file.name} {error.why}")
                continue
            self.unread += log.unread.count
            self.notes += unread_notes(f"{folder.name}/{file.name}", log.unread)
            (self.nodes if file.name.startswith("node") else self.switches).append(log)
        if not self.nodes and not self.missing:
            self.missing.append(f"power/{folder.name} has no node_*.txt")


def _by_number(file: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in _DIGITS.split(file.name)]


def _add_energies(found: dict[str, RunScore], logs: _PowerLogs, run_ms: tuple[float, float]) -> None:
    for run in found.values():
        run.unread_lines += logs.unread
        run.notes += [*logs.notes, *logs.missing]
    if logs.missing:
        return
    measured = [*logs.nodes, *(log for log in logs.switches if log.readings)]
    physical: PhysicalEnergy | None = None
    for run in found.values():
        official = _official(logs, run_ms[1] - run_ms[0], run.round)
        if physical is None and run_ms[1] > run_ms[0]:
            physical = energy_inside(measured, [official[id(log)].efficiency for log in measured], run_ms)
        places = {id(log): place for place, log in enumerate(measured)}
        run.logs = [_log_score(log, official[id(log)], False, physical, places) for log in logs.nodes]
        run.logs += [_log_score(log, official[id(log)], True, physical, places) for log in logs.switches]
        _total(run, logs.nodes, official, physical, run_ms)


def _official(logs: _PowerLogs, train_ms: float, round_name: str) -> dict[int, OfficialEnergy]:
    nodes = {id(log): node_energy(log, train_ms, round_name) for log in logs.nodes}
    return nodes | {id(log): switch_energy(log, train_ms) for log in logs.switches}


def _log_score(
    log: PowerLog, official: OfficialEnergy, is_switch: bool, physical: PhysicalEnergy | None, places: dict[int, int]
) -> LogScore:
    score = LogScore(
        name=log.path.stem,
        is_switch=is_switch,
        readings=log.readings,
        efficiency=official.efficiency,
        official_joules=official.joules if math.isfinite(official.joules) else None,
        physical_joules=None,
        coverage=None,
        is_estimate=False,
        is_official=official.from_code,
        notes=list(official.notes),
    )
    place = places.get(id(log))
    if physical is not None and place is not None:
        joules, shift_s = physical.joules[place], physical.shift_s[place]
        score.physical_joules = joules if math.isfinite(joules) else None
        score.coverage = physical.coverage[place]
        if shift_s:
            score.notes.append(f"its clock is {-shift_s / 3600:+g} h off the run's: moved for the physical energy")
    elif is_switch and estimated_watts(log) is not None:
        score.physical_joules, score.is_estimate = official.joules, True  # nobody knows better
    return score


def _total(
    run: RunScore,
    nodes: Sequence[PowerLog],
    official: dict[int, OfficialEnergy],
    physical: PhysicalEnergy | None,
    run_ms: tuple[float, float],
) -> None:
    run.is_official = all(log.is_official for log in run.logs)
    run.notes += _shared_notes(run.logs)
    run.node_joules = _sum([log.official_joules for log in run.logs if not log.is_switch])
    run.switch_joules = _sum([log.official_joules for log in run.logs if log.is_switch])
    run.official_joules = _sum([run.node_joules, run.switch_joules])
    run.physical_joules = _sum([log.physical_joules for log in run.logs if not _says_nothing(log)])
    run.physical_estimate_joules = sum(log.physical_joules or 0.0 for log in run.logs if log.is_estimate)
    run.coverage = min((log.coverage for log in run.logs if log.coverage is not None), default=None)
    if physical is not None and run.physical_joules is not None and run.official_joules is not None:
        run.physical_expanded_joules = physical.expanded_joules
        run.causes = node_causes(nodes, [official[id(log)] for log in nodes], run_ms, physical)
        run.causes += switch_cause([log for log in run.logs if log.is_switch])


def _says_nothing(log: LogScore) -> bool:
    """A switch log without power: neither code nor physics has a figure for it."""
    return log.is_switch and not log.readings and not log.official_joules


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _shared_notes(logs: Sequence[LogScore]) -> list[str]:
    """Each note once, with the logs that it is about."""
    by_note: dict[str, list[str]] = {}
    for log in logs:
        for note in log.notes:
            by_note.setdefault(note, []).append(log.name)
    return [f"{names[0] if len(names) == 1 else f'{len(names)} logs'}: {note}" for note, names in by_note.items()]
