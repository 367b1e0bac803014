"""Workloads with frameworks as their users start them: with and without a measurement, always as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

EXAMPLES = Path(__file__).parents[2] / "examples"
_DEADLINE_S = 300
_TOO_MANY_THREADS = {"OMP_NUM_THREADS": "1"}  # small work is slower with many, most of all on a busy machine


class Run(NamedTuple):
    done: subprocess.CompletedProcess[str]
    phases: list[dict[str, Any]]  # rows of phases.parquet by begin
    summary: dict[str, Any]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [phase for phase in self.phases if phase["name"] == name]

    def column(self, name: str, column: str) -> list[Any]:
        return [phase[column] for phase in self.named(name)]

    def parents(self, name: str) -> set[str | None]:
        """The names of what phases of this name lie in."""
        rows = self.column(name, "parent")
        return {None if row is None else self.phases[row]["name"] for row in rows}

    def metric(self, name: str) -> dict[str, Any]:
        (found,) = (metric for metric in self.summary["metrics"] if metric["name"] == name)
        return found


def unmeasured(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **_TOO_MANY_THREADS}
    environment.pop("POWER_AGENT_MARKS", None)
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=_DEADLINE_S
    )


def measured(folder: Path, *command: str, options: tuple[str, ...] = ()) -> Run:
    """`power-director run … -- python COMMAND`, with an estimate of power, which all machines have."""
    session = folder / "session"
    director = ("-m", "director.cli", "run", "--drivers", "estimate", "--quiet", "--output", str(session), *options)
    done = unmeasured(folder, *director, "--", sys.executable, *command)
    phases = pq.read_table(session / "phases.parquet").to_pylist()
    for phase in phases:
        phase["attributes"] = json.loads(phase["attributes"] or "{}")
    return Run(done, phases, json.loads((session / "summary.json").read_bytes()))
