"""`power-director audit`: apply all rules to what lies under paths, print what was found, write JSON and HTML."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from director.mlperf.audit.findings import SEVERITIES, Finding, finding
from director.mlperf.audit.inference import audit_session
from director.mlperf.audit.training import audit_benchmark
from director.mlperf.difference import plain
from director.mlperf.finding import InferenceSession, TrainingBenchmark, Unreadable, find

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


class AuditFailed(Exception):
    """There is nothing to audit, or an output cannot be written: the text for the user."""


@dataclass(frozen=True)
class Audited:
    """One benchmark's folder or session, and what was found there."""

    path: Path
    kind: str  # "training benchmark" or "inference session"
    name: str
    findings: Sequence[Finding]

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
        file = one.file.removeprefix(str(self.path)).lstrip("/") or self.path.name
        return file if one.line is None else f"{file}:{one.line}"


def _badness(one: Finding) -> tuple[int, float]:
    return -one.count, -abs(one.value) if isinstance(one.value, (int, float)) else 0.0


def files_of(findings: Sequence[Finding]) -> int:
    """In how many files they are."""
    return len({one.file for one in findings})


def audit(paths: Sequence[Path], json_file: str | None, html_file: str | None) -> int:
    """Audit what lies under the paths. Returns the exit status: 0, or 1 where an error was found.

    Raises:
        AuditFailed: see there.
    """
    found = list(find(paths))
    audited = list(_audit_all(found))
    if not any(not isinstance(item, Unreadable) for item in found):
        why = "".join(f"\n  {item.path} {item.why}" for item in found if isinstance(item, Unreadable))
        raise AuditFailed(f"nothing to audit under {', '.join(map(str, paths))}{why}")
    if json_file != "-":
        _show(audited, Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200))
    if json_file is not None:
        _write(json_file, json.dumps(to_json(audited), indent=2, allow_nan=False) + "\n")
    if html_file is not None:
        from director.mlperf.audit.page import page

        _write(html_file, page(audited))
    return int(any(one.severity == "error" for item in audited for one in item.findings))


def _audit_all(found: Sequence[TrainingBenchmark | InferenceSession | Unreadable]) -> Iterator[Audited]:
    """In the order of the paths, on all cores."""
    cores = min(len(os.sched_getaffinity(0)), len(found))
    console = Console(stderr=True)
    bar = {"console": console, "transient": True, "disable": not sys.stderr.isatty(), "total": len(found)}
    if cores < 2:
        yield from track(map(_audit_one, found), "auditing", **bar)  # type: ignore[arg-type]
        return
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("fork")) as pool:
        try:
            yield from track(pool.map(_audit_one, found), "auditing", **bar)  # type: ignore[arg-type]
        except BrokenProcessPool:
            raise AuditFailed("a process was killed; where memory is short, audit less at a time") from None
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing is left to wait for


def _audit_one(item: TrainingBenchmark | InferenceSession | Unreadable) -> Audited:
    if isinstance(item, Unreadable):
        return Audited(item.path, "unreadable", str(item.path), [finding("power-logs-missing", item.why, item.path)])
    training = isinstance(item, TrainingBenchmark)
    findings = audit_benchmark(item) if isinstance(item, TrainingBenchmark) else audit_session(item)
    parts = (item.submitter, item.system, item.benchmark, "" if training else item.scenario)  # type: ignore[union-attr]
    name = " · ".join(filter(None, parts)) or item.path.resolve().name
    return Audited(item.path, "training benchmark" if training else "inference session", name, findings)


def to_json(audited: Sequence[Audited]) -> dict[str, object]:
    """Everything that was found."""
    return {
        "findings": {severity: sum(item.counts()[severity] for item in audited) for severity in SEVERITIES},
        "audited": [
            {
                "kind": item.kind,
                "path": str(item.path),
                "name": item.name,
                "counts": item.counts(),
                "findings": [{**asdict(one), "reference": one.reference} for one in item.findings],
            }
            for item in audited
        ],
    }


def _show(audited: Sequence[Audited], console: Console) -> None:
    for item in audited:
        console.print()
        console.print(Text(plain(item.name), style="bold"), Text(f"  {counts_text(item.counts())}", style="dim"))
        if not item.findings:
            continue
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("", "rule", "files", "what was found, at worst", "where"):
            table.add_column(column, justify="right" if column == "files" else "left", overflow="fold")
        for of_rule in item.by_rule():
            worst = of_rule[0]
            severity, files = Text(worst.severity, style=_STYLES[worst.severity]), str(files_of(of_rule))
            table.add_row(severity, worst.rule, files, plain(worst.text), plain(item.shown_file(worst)))
        console.print(table)
    total: Counter[str] = sum((Counter(item.counts()) for item in audited), Counter())
    console.print()
    console.print(f"{len(audited)} audited: {counts_text(total)}")


def counts_text(counts: dict[str, int] | Counter[str]) -> str:
    """`2 errors, 1 warning`."""
    parts = [f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in SEVERITIES if counts.get(s)]
    return ", ".join(parts) or "nothing found"


def _write(name: str, text: str) -> None:
    if name == "-":
        sys.stdout.write(text)
        return
    try:
        Path(name).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise AuditFailed(f"{name} cannot be written: {error.strerror}") from None
