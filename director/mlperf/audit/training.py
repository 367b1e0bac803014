"""Audits a benchmark's folder of MLPerf Training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from director.mlperf.audit.clocks import clock_lag, clock_offset, stamp_far_off
from director.mlperf.audit.findings import Finding
from director.mlperf.audit.readings import RULES_OF_READINGS
from director.mlperf.audit.training_folder import RULES_OF_LOGS, fewer_nodes, stray_power
from director.mlperf.audit.training_logs import Run, read_run
from director.mlperf.audit.training_window import RULES_OF_WINDOWS
from director.mlperf.finding import TrainingBenchmark

_RULES_OF_RUNS = (*RULES_OF_WINDOWS, *RULES_OF_LOGS, clock_offset, clock_lag, stamp_far_off)


def audit_benchmark(found: TrainingBenchmark) -> list[Finding]:
    """What is wrong with its power results; [] where it has none."""
    if not found.has_power:
        return []
    findings: list[Finding] = []
    nodes: list[tuple[Path, int]] = []
    for file in found.result_files:
        run = read_run(file, found.power_dir(file))
        nodes.append((run.power, len(run.nodes)))
        findings += audit_run(run)
    return [*findings, *fewer_nodes(found, nodes), *stray_power(found)]


def audit_run(run: Run) -> Iterator[Finding]:
    """All rules on one run."""
    yield from run.findings
    for rule in _RULES_OF_RUNS:
        yield from rule(run)
    for log in (*run.nodes, *(switch for switch in run.switches if switch.log.readings)):
        readings = log.readings(run.run_ms)
        for rule_of_readings in RULES_OF_READINGS:
            yield from rule_of_readings(readings)
