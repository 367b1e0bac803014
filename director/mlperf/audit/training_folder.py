"""Rules on which logs a run and a benchmark's folder must have, and on what logs state once: efficiency, estimates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from director.mlperf.audit.findings import Finding, Severity, finding
from director.mlperf.audit.training_logs import LogOfRun, Run, line_of_reading
from director.mlperf.finding import TrainingBenchmark
from director.mlperf.training.official_energy import estimated_watts
from director.mlperf.training.power_log import EFFICIENCY

_PLAUSIBLE = (0.80, 0.98)  # 80 PLUS begins at 80 %; its highest level asks for 96.5 %
_MOST_JSON_BYTES = 1 << 22


def node_numbers(run: Run) -> Iterator[Finding]:
    """Numbers that are left out between the first and the last node."""
    numbers = sorted(node.number for node in run.nodes if node.number is not None)
    missing = sorted(set(range(numbers[0], numbers[-1])) - set(numbers)) if numbers else []
    if missing:
        text = f"no log of {', '.join(f'node_{number}' for number in missing[:8])}{' …' if len(missing) > 8 else ''}"
        yield finding("node-missing", text, run.power, value=len(missing), count=len(missing))


def switch_missing(run: Run) -> Iterator[Finding]:
    if len(run.nodes) > 1 and not any(log.log.readings or estimated_watts(log.log) is not None for log in run.switches):
        text = f"{len(run.nodes)} nodes, and no sw_*.txt states or measures the interconnect's power"
        yield finding("switch-missing", text, run.power, value=len(run.nodes))


def switch_ignored(run: Run) -> Iterator[Finding]:
    for switch in run.switches:
        if switch.log.readings and estimated_watts(switch.log) is None:
            watts, whole = _mean_watts(switch), sum(_mean_watts(log) for log in run.measured)
            share = f", {watts / whole:.1%} of the system's," if whole > 0 else ""
            text = f"{switch.log.readings} measured readings, {watts:.0f} W on average{share} count as 0 J"
            line = line_of_reading(switch.path, 0, float(next(switch.log.in_file_order())[0][0]))
            yield finding("switch-ignored", text, switch.path, line=line, value=watts)


def _mean_watts(log: LogOfRun) -> float:
    return sum(float(watts.sum()) for _, watts in log.log.in_file_order()) / log.log.readings


def efficiency(run: Run) -> Iterator[Finding]:
    """Absent, implausible, or not the same in all logs of a run."""
    stated: dict[str, float] = {}
    for log in run.measured:
        events = [event for event in log.log.events if event.key == EFFICIENCY and event.value is not None]
        if not events:
            yield finding(
                "efficiency-absent", "no conversion_eff; AC readings would count whole", log.path, value="none"
            )
        for event in events:
            assert event.value is not None
            stated[log.path.name] = event.value
            if not _PLAUSIBLE[0] <= event.value <= _PLAUSIBLE[1]:
                severity: Severity | None = None if 0 < event.value <= 1 else "error"
                text, line = f"conversion_eff {event.value:g}", event.line
                yield finding("efficiency-implausible", text, log.path, line=line, value=event.value, severity=severity)
    if len(set(stated.values())) > 1:
        usual = Counter(stated.values()).most_common(1)[0][0]
        others = {name: value for name, value in stated.items() if value != usual}
        text = f"most logs state {usual:g}; {', '.join(f'{name} {value:g}' for name, value in [*others.items()][:8])}"
        yield finding("efficiency-differs", text, run.power, value=min(others.values()), count=len(others))


RULES_OF_LOGS = (node_numbers, switch_missing, switch_ignored, efficiency)


def fewer_nodes(found: TrainingBenchmark, nodes: Sequence[tuple[Path, int]]) -> Iterator[Finding]:
    """Runs with fewer node logs than the system has nodes, or than other runs have. `nodes`: of each power folder."""
    most = max((count for _, count in nodes), default=0)
    stated = _stated_nodes(found)
    for folder, count in nodes:
        if 0 < count < most:
            yield finding("node-missing", f"{count} node logs; other runs have {most}", folder, value=count)
        elif stated is not None and 0 < count < stated[1]:
            text = f"{count} node logs; {stated[0].name} states {stated[1]} nodes"
            yield finding("node-missing", text, folder, value=count)


def _stated_nodes(found: TrainingBenchmark) -> tuple[Path, int] | None:
    """`number_of_nodes` of `<submitter>/systems/<system>.json`; a number in quotes is usual."""
    for above in found.path.resolve().parents[1:3]:
        path = above / "systems" / f"{found.system}.json"
        try:
            if found.system and path.is_file() and path.stat().st_size <= _MOST_JSON_BYTES:
                return path, int(json.loads(path.read_bytes())["number_of_nodes"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
    return None


def stray_power(found: TrainingBenchmark) -> Iterator[Finding]:
    """Folders in `power` of no run."""
    power = found.path / "power"
    known = {found.power_dir(file).name for file in found.result_files}
    try:
        folders = sorted(path for path in power.iterdir() if path.is_dir() and path.name not in known)
    except OSError:
        return
    for folder in folders:
        yield finding("stray-power", f"there is no {folder.name}.txt beside power", folder)
