"""docs/session-format.md names every field of the files that a run leaves, and none that is not there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from made_fleet_session import made_training

from director.answers.questions import Questions
from director.answers.results import write_results
from director.session.fleet_record import AgentEvent, AgentRecord, Fleet, StageSpan, Transition
from power_agent.wire.messages import SamplerChoices

PAGE = Path(__file__).parent.parent / "docs" / "session-format.md"
JOB = "from power_agent import phase\nwith phase('run', samples=3):\n    pass"
NAME = re.compile(r"`([a-z_0-9]+)`")
BY_NAME = {
    "environment",
    "system",
    "checksums",
    "idle_watts",
    "work",
    "attributes",
    "clock_state",
}  # their keys are the user's


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("format") / "s"
    command = [sys.executable, "-m", "director.cli", "run", "--quiet", "--idle", "0.1", "--output", str(directory)]
    subprocess.run([*command, "--", sys.executable, "-c", JOB], check=True, capture_output=True)
    return directory


def named(heading: str) -> set[str]:
    """What the section under a heading names."""
    text = PAGE.read_text().split(f"### {heading}\n", 1)[1]
    return set(NAME.findall(re.split(r"^###? ", text, maxsplit=1, flags=re.MULTILINE)[0]))


def documented_fields(heading: str) -> set[str]:
    """What the first columns of a section's tables name."""
    text = PAGE.read_text().split(f"### {heading}\n", 1)[1]
    rows = re.split(r"^###? ", text, maxsplit=1, flags=re.MULTILINE)[0].splitlines()
    return {name for row in rows if row.startswith("| `") for name in NAME.findall(row.split("|")[1])}


def fields(value: Any) -> Iterator[str]:
    """All keys at any depth, but those that are names of the user's or of the machine's."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in BY_NAME:
                yield from fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from fields(inner)


@pytest.mark.parametrize("file", ["manifest.json", "summary.json"])
def test_json_is_documented(session: Path, file: str) -> None:
    there = set(fields(json.loads((session / file).read_text())))
    assert there - named(file) == set(), f"{file} has fields that {PAGE.name} does not name"
    assert documented_fields(file) - there == set(), f"{PAGE.name} names fields that {file} does not have"


def test_the_part_of_a_fleet_is_documented() -> None:
    kinds = (Fleet, StageSpan, Transition, AgentRecord, AgentEvent, SamplerChoices)
    there = {field.name for kind in kinds for field in msgspec.structs.fields(kind)}
    assert there <= named("fleet of manifest.json")


@pytest.mark.parametrize("file", ["phases.parquet", "energies.parquet"])
def test_columns_are_documented(session: Path, file: str) -> None:
    assert set(pq.read_schema(session / file).names) == documented_fields(file)


def test_several_hosts_are_documented(tmp_path: Path) -> None:
    small, large = made_training(tmp_path / "small", 2), made_training(tmp_path / "large", 3)
    write_results(small)
    write_results(large, questions=Questions(against=small, interconnect_watts=5.0))
    there = set(fields(json.loads((large / "summary.json").read_text())))
    more = {"host", "joined"}
    assert set(pq.read_schema(large / "phases.parquet").names) == documented_fields("phases.parquet") | more
    assert there - named("summary.json") - named("Several hosts") == set()
    assert documented_fields("Several hosts") - there - more == set()


def test_traces_are_as_documented(session: Path) -> None:
    clock = pq.read_schema(session / "traces" / next(iter((session / "traces").iterdir())).name / "clock.parquet")
    text = PAGE.read_text().split("## Clock\n", 1)[1]
    assert set(clock.names) == set(NAME.findall(text.split(":", 2)[1].split(".")[0])) | {"monotonic_ns"}
    manifest = json.loads((session / "manifest.json").read_text())
    for host in manifest["hosts"]:
        for stream in host["streams"]:
            channels = [channel["name"] for channel in stream["stream"]["channels"]]
            columns = pq.read_schema(session / stream["file"]).names
            assert set(columns) == {"t_ns", "read_ns", *channels, *(f"{name}:status" for name in channels)}
