"""What was found in one benchmark's folder or session, and many of these on disk, so that memory does not grow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from tempfile import TemporaryFile
from typing import IO, Any

from director.mlperf.audit.findings import SEVERITIES, Finding


@dataclass(frozen=True)
class Audited:
    """One benchmark's folder or session, and what was found there."""

    path: str
    kind: str  # "training benchmark" or "inference session"
    name: str
    findings: list[Finding]

    def by_rule(self) -> list[list[Finding]]:
        """For each rule and severity all findings, the worst first; errors come first."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for one in self.findings:
            groups.setdefault((one.rule, one.severity), []).append(one)
        found = [sorted(of_rule, key=_badness) for of_rule in groups.values()]
        return sorted(found, key=lambda of_rule: SEVERITIES.index(of_rule[0].severity))

    def counts(self) -> dict[str, int]:
        """Findings of each severity."""
        found = Counter(one.severity for one in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    def shown_file(self, one: Finding) -> str:
        """A finding's place, from this folder."""
        file = one.file.removeprefix(self.path).lstrip("/") or self.path.rpartition("/")[2]
        return file if one.line is None else f"{file}:{one.line}"

    def to_json(self) -> dict[str, Any]:
        """Everything, with each rule's reference."""
        return {
            "kind": self.kind,
            "path": self.path,
            "name": self.name,
            "counts": self.counts(),
            "findings": [{**asdict(one), "reference": one.reference} for one in self.findings],
        }


def _badness(one: Finding) -> tuple[int, float]:
    return -one.count, -abs(one.value) if isinstance(one.value, (int, float)) else 0.0


def files_of(findings: list[Finding]) -> int:
    """In how many files they are."""
    return len({one.file for one in findings})


def counts_text(counts: dict[str, int] | Counter[str]) -> str:
    """`2 errors, 1 warning`."""
    parts = [f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in SEVERITIES if counts.get(s)]
    return ", ".join(parts) or "nothing found"


class Audits:
    """All that were audited, in a temporary file, as a line of JSON each."""

    def __init__(self) -> None:
        self._file: IO[str] = TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 (closed by __exit__)
        self.names: list[str] = []
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Audits:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.names)

    def add(self, one: Audited) -> None:
        """Keep one."""
        self._file.write(json.dumps(one.to_json(), allow_nan=False) + "\n")
        self.names.append(one.name)
        self.counts.update(one.counts())

    def lines(self) -> Iterator[str]:
        """What `Audited.to_json` gives for each."""
        self._file.seek(0)
        yield from (line.rstrip("\n") for line in self._file)

    def __iter__(self) -> Iterator[Audited]:
        for line in self.lines():
            content = json.loads(line)
            findings = [
                Finding(**{key: value for key, value in one.items() if key != "reference"})
                for one in content["findings"]
            ]
            yield Audited(content["path"], content["kind"], content["name"], findings)
