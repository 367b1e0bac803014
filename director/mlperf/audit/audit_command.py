"""`power-director audit`: apply all rules to what lies under paths, print what was found, write JSON and HTML."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from director.mlperf.audit.audited import Audited, Audits, counts_text, files_of
from director.mlperf.audit.findings import SEVERITIES, finding
from director.mlperf.audit.inference import audit_session
from director.mlperf.audit.training import audit_benchmark
from director.mlperf.difference import plain
from director.mlperf.finding import InferenceSession, TrainingBenchmark, Unreadable, find
from director.mlperf.scoring import Job
from director.mlperf.workers import Bar, Workers

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_UNREADABLE = "unreadable"  # the kind of what was not audited


class AuditFailed(Exception):
    """There is nothing to audit, or an output cannot be written: the text for the user."""


def audit(paths: Sequence[Path], json_file: str | None, html_file: str | None) -> int:
    """Audit what lies under the paths. Returns the exit status: 0, or 1 where an error was found.

    Raises:
        AuditFailed: see there.
    """
    with Audits() as audits:
        anything = False
        for one in _audit_all(paths):
            anything |= one.kind != _UNREADABLE
            audits.add(one)
        if not anything:
            why = "".join(f"\n  {one.path} {one.findings[0].text}" for one in audits)
            raise AuditFailed(f"nothing to audit under {', '.join(map(str, paths))}{why}")
        if json_file != "-":
            _show(audits, Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200))
        if json_file is not None:
            with _output(json_file) as file:
                _write_json(audits, file)
        if html_file is not None:
            from director.mlperf.audit.page import write_page

            with _output(html_file) as file:
                write_page(audits, file)
        return int(audits.counts["error"] > 0)


def _audit_all(paths: Sequence[Path]) -> Iterator[Audited]:
    """In the order of the paths, on all cores."""
    waiting: deque[Future[Audited]] = deque()
    try:
        with Workers() as workers, Bar("auditing", "folders") as bar:
            for item in find(paths):
                bar.more(1)
                waiting.append(bar.watch(workers.submit(Job(audit_one, (item,)))))
                while waiting and waiting[0].done():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    except BrokenProcessPool:
        raise AuditFailed("a process was killed; where memory is short, audit less at a time") from None


def audit_one(item: TrainingBenchmark | InferenceSession | Unreadable) -> Audited:
    """Apply all rules to one benchmark's folder or session."""
    path = str(item.path)
    if isinstance(item, Unreadable):
        return Audited(path, _UNREADABLE, path, [finding("power-logs-missing", item.why, item.path)])
    training = isinstance(item, TrainingBenchmark)
    findings = audit_benchmark(item) if isinstance(item, TrainingBenchmark) else audit_session(item)
    parts = (item.submitter, item.system, item.benchmark, "" if training else item.scenario)  # type: ignore[union-attr]
    name = " · ".join(filter(None, parts)) or item.path.resolve().name
    return Audited(path, "training benchmark" if training else "inference session", name, findings)


def _show(audits: Audits, console: Console) -> None:
    for item in audits:
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
    console.print()
    console.print(f"{len(audits)} audited: {counts_text(audits.counts)}")


def _write_json(audits: Audits, file: TextIO) -> None:
    counts = {severity: audits.counts[severity] for severity in SEVERITIES}
    file.write(f'{{"findings": {json.dumps(counts)},\n"audited": [')
    for number, line in enumerate(audits.lines()):
        file.write(f"{',' if number else ''}\n{line}")
    file.write("\n]}\n")


@contextlib.contextmanager
def _output(name: str) -> Iterator[TextIO]:
    if name == "-":
        yield sys.stdout
        return
    try:
        with Path(name).open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
    except OSError as error:
        raise AuditFailed(f"{name} cannot be written: {error.strerror}") from None
